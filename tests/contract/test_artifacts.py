"""What a store of artifacts does, whether it is a folder or a bucket."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from epochd_server.storage.artifact_urls import open_artifacts
from epochd_server.storage.artifacts import ArtifactDamagedError, StoredArtifact

LARGE = bytes(range(256)) * 50_000
"""More than one part of an upload."""


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(params=["folder", "s3"])
def artifacts(request, tmp_path):
    url = str(tmp_path / "store") if request.param == "folder" else request.getfixturevalue("bucket")
    return open_artifacts(url, cache=tmp_path / "cache", cache_bytes=1 << 30)


async def names(artifacts, folder: str = "") -> list[str]:
    return sorted([found.name async for found in artifacts.list(folder)])


@pytest.mark.parametrize("data", [b"", b"epochd", LARGE], ids=["empty", "small", "large"])
async def test_what_was_put_is_there(artifacts, data):
    await artifacts.put("weights/one", data)
    for digest in (None, digest_of(data)):
        assert await asyncio.to_thread(artifacts.map, "weights/one", digest) == data
        assert (await asyncio.to_thread(artifacts.fetch, "weights/one", digest)).read_bytes() == data


async def test_a_view_of_bytes_can_be_put(artifacts):
    await artifacts.put("weights/one", memoryview(LARGE)[5:300])
    assert await asyncio.to_thread(artifacts.map, "weights/one") == LARGE[5:300]


@pytest.mark.parametrize("data", [b"", LARGE], ids=["empty", "large"])
async def test_a_file_is_taken_over(artifacts, tmp_path, data):
    path = tmp_path / "file"
    path.write_bytes(data)
    await artifacts.put_file("datasets/one.arrow", path)
    assert not path.exists()
    found = await asyncio.to_thread(artifacts.fetch, "datasets/one.arrow", digest_of(data))
    assert found.read_bytes() == data


async def test_putting_the_same_again_changes_nothing(artifacts):
    for _ in range(2):
        await artifacts.put("weights/one", LARGE)
    assert await asyncio.to_thread(artifacts.map, "weights/one") == LARGE
    assert await names(artifacts) == ["weights/one"]


async def test_one_that_is_not_there_is_a_missing_file(artifacts):
    for read in (artifacts.map, artifacts.fetch):
        for digest in (None, digest_of(b"")):
            with pytest.raises(FileNotFoundError):
                await asyncio.to_thread(read, "weights/none", digest)


async def test_one_with_another_digest_is_not_given_out(artifacts):
    await artifacts.put("weights/one", b"one")
    for read in (artifacts.map, artifacts.fetch):
        with pytest.raises(ArtifactDamagedError):
            await asyncio.to_thread(read, "weights/one", digest_of(b"other"))
        assert (await asyncio.to_thread(artifacts.fetch, "weights/one", digest_of(b"one"))).exists()


async def test_a_deleted_one_is_gone_but_for_those_who_read_it(artifacts):
    await artifacts.put("weights/one", LARGE)
    mapped = await asyncio.to_thread(artifacts.map, "weights/one")
    await artifacts.delete("weights/one")
    with pytest.raises(FileNotFoundError):
        await asyncio.to_thread(artifacts.map, "weights/one")
    assert mapped == LARGE
    assert await names(artifacts) == []


async def test_deleting_one_that_is_not_there_is_fine(artifacts):
    await artifacts.delete("weights/none")


async def test_mapped_memory_cannot_be_written_to(artifacts):
    await artifacts.put("weights/one", LARGE)
    assert (await asyncio.to_thread(artifacts.map, "weights/one")).readonly


async def test_lists_tell_name_size_and_time(artifacts):
    await artifacts.put("weights/one", b"epochd")
    [found] = [found async for found in artifacts.list()]
    assert found == StoredArtifact("weights/one", 6, found.modified)
    assert abs(datetime.now(UTC) - found.modified) < timedelta(minutes=1)


async def test_a_list_is_of_a_whole_folder_and_nothing_beside(artifacts):
    for name in ("runs/a/1", "runs/a/2", "runs/ab/1", "other"):
        await artifacts.put(name, b"")
    assert await names(artifacts, "runs/a") == ["runs/a/1", "runs/a/2"]
    assert await names(artifacts, "runs") == ["runs/a/1", "runs/a/2", "runs/ab/1"]
    assert await names(artifacts, "none") == []


async def test_many_are_listed(artifacts):
    await asyncio.gather(*(artifacts.put(f"many/{n:04}", b"x") for n in range(1_100)))
    assert await names(artifacts, "many") == [f"many/{n:04}" for n in range(1_100)]


async def test_many_at_once_do_not_mix(artifacts):
    contents = {f"runs/{n}": bytes([n]) * 10_000 * n for n in range(30)}
    await asyncio.gather(*(artifacts.put(name, data) for name, data in contents.items()))
    read = await asyncio.gather(*(asyncio.to_thread(artifacts.map, name) for name in contents))
    assert [bytes(found) for found in read] == list(contents.values())
