"""What the DatasetStore does, on every database."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from sqlalchemy import update

from epochd_server.domain.datasets import DatasetColumn, DatasetFormat
from epochd_server.domain.errors import EpochdError, InvalidInput, Reason
from epochd_server.domain.runs import Cancelled, RunState
from epochd_server.storage.schema import datasets

CSV = DatasetFormat.CSV
DATA = bytes(range(256)) * 40
DIGEST = hashlib.sha256(DATA).hexdigest()


async def chunks(data: bytes, size: int = 1000, *, breaks: bool = False):
    for start in range(0, len(data), size):
        yield data[start : start + size]
    if breaks:
        raise ConnectionError("the client is gone")


async def upload(storage, data: bytes = DATA, offset: int = 0, digest: str | None = None):
    digest = digest or hashlib.sha256(data).hexdigest()
    return await storage.datasets.upload(digest, len(data), CSV, offset, chunks(data[offset:]))


async def test_an_upload_becomes_a_dataset(storage):
    assert await storage.datasets.begin(DIGEST, len(DATA)) == 0
    dataset = await upload(storage)
    assert (dataset.digest, dataset.format, dataset.size_bytes) == (DIGEST, CSV, len(DATA))
    assert dataset.columns == (DatasetColumn("x", "float64"), DatasetColumn("city", None))
    assert await storage.datasets.get(DIGEST) == dataset
    assert await storage.datasets.begin(DIGEST, len(DATA)) == dataset
    assert (await storage.datasets.path_of(DIGEST)).read_bytes() == DATA
    assert list(storage.folder.uploads.iterdir()) == []


async def test_uploading_again_finds_the_same_dataset(storage):
    assert await upload(storage) == await upload(storage)


async def test_a_broken_upload_goes_on_where_it_ended(storage):
    with pytest.raises(ConnectionError):
        await storage.datasets.upload(DIGEST, len(DATA), CSV, 0, chunks(DATA[:5000], breaks=True))
    committed = await storage.datasets.begin(DIGEST, len(DATA))
    assert committed == 5000
    assert (await upload(storage, offset=committed)).digest == DIGEST


async def test_an_upload_may_begin_before_what_is_there(storage):
    with pytest.raises(ConnectionError):
        await storage.datasets.upload(DIGEST, len(DATA), CSV, 0, chunks(DATA[:5000], breaks=True))
    assert (await upload(storage, offset=3000)).digest == DIGEST


async def test_an_offset_that_leaves_a_gap_is_refused(storage):
    with pytest.raises(InvalidInput) as caught:
        await upload(storage, offset=1)
    assert caught.value.violations[0].field == "header.offset"


async def test_other_bytes_are_refused_and_thrown_away(storage):
    with pytest.raises(EpochdError) as caught:
        await upload(storage, DATA[::-1], digest=DIGEST)
    assert caught.value.reason is Reason.DIGEST_MISMATCH
    assert await storage.datasets.begin(DIGEST, len(DATA)) == 0


async def test_too_many_bytes_are_refused(storage):
    with pytest.raises(InvalidInput) as caught:
        await storage.datasets.upload(DIGEST, 100, CSV, 0, chunks(DATA))
    assert "100 bytes announced" in caught.value.message


async def test_too_few_bytes_are_refused_but_kept(storage):
    with pytest.raises(InvalidInput) as caught:
        await storage.datasets.upload(DIGEST, len(DATA), CSV, 0, chunks(DATA[:100]))
    assert f"ends after 100 of {len(DATA)} bytes" in caught.value.message
    assert await storage.datasets.begin(DIGEST, len(DATA)) == 100


async def test_a_wrong_size_announced_before_does_no_harm(storage):
    with pytest.raises(ConnectionError):
        await storage.datasets.upload(DIGEST, 10**6, CSV, 0, chunks(DATA * 2, breaks=True))
    assert await storage.datasets.begin(DIGEST, len(DATA)) == 0
    assert (await upload(storage)).digest == DIGEST


async def test_announcing_more_than_allowed_is_refused(storage):
    with pytest.raises(EpochdError) as caught:
        await storage.datasets.begin(DIGEST, (1 << 20) + 1)
    assert caught.value.reason is Reason.DATA_TOO_LARGE


async def test_uploading_more_than_allowed_is_refused(storage):
    with pytest.raises(EpochdError) as caught:
        await storage.datasets.upload(DIGEST, (1 << 20) + 1, CSV, 0, chunks(DATA))
    assert caught.value.reason is Reason.DATA_TOO_LARGE
    assert list(storage.folder.uploads.iterdir()) == []


async def test_datasets_are_listed_newest_first(storage):
    made = [await upload(storage, bytes([n])) for n in range(5)]
    first = await storage.datasets.page(2)
    before = (first[-1].create_time, first[-1].digest)
    assert first + await storage.datasets.page(9, before=before) == made[::-1]


async def test_a_dataset_can_be_deleted_and_uploaded_again(storage):
    await upload(storage)
    path = await storage.datasets.path_of(DIGEST)
    await storage.datasets.delete(DIGEST)
    assert not path.exists()
    with pytest.raises(EpochdError) as caught:
        await storage.datasets.get(DIGEST)
    assert caught.value.reason is Reason.DATASET_NOT_FOUND
    assert caught.value.metadata["name"] == f"datasets/{DIGEST}"
    assert (await upload(storage)).digest == DIGEST


async def test_deleting_a_missing_one_names_it(storage):
    with pytest.raises(EpochdError) as caught:
        await storage.datasets.delete(DIGEST)
    assert caught.value.reason is Reason.DATASET_NOT_FOUND


@pytest.mark.parametrize("role", ["dataset", "validation_dataset"])
async def test_a_dataset_stays_while_an_unfinished_run_uses_it(storage, make, role):
    await upload(storage)
    run = make.run(**{role: DIGEST})
    await storage.runs.accept(run, make.queued(run))
    with pytest.raises(EpochdError) as caught:
        await storage.datasets.delete(DIGEST)
    assert caught.value.reason is Reason.DATASET_IN_USE
    assert caught.value.metadata["run"] == f"runs/{run.run_id}"
    assert (await storage.datasets.path_of(DIGEST)).exists()
    await storage.datasets.get(DIGEST)
    await make.append(
        storage.runs, run.run_id, [make.event(2, Cancelled(epochs=0))], state=RunState.CANCELLED
    )
    await storage.datasets.delete(DIGEST)
    late = make.run(**{role: DIGEST})
    with pytest.raises(EpochdError) as caught:
        await storage.runs.accept(late, make.queued(late))
    assert caught.value.reason is Reason.DATASET_NOT_FOUND


def only_file(storage):
    [path] = storage.folder.artifacts.rglob("*.arrow")
    return path


async def assert_damaged(storage):
    with pytest.raises(EpochdError) as caught:
        await storage.datasets.path_of(DIGEST)
    assert caught.value.reason is Reason.ARTIFACT_CORRUPT
    assert caught.value.metadata == {"name": f"datasets/{DIGEST}"}
    assert (
        caught.value.message == f"The rows of datasets/{DIGEST} are damaged; delete it and upload it again."
    )


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-1], lambda data: b"X" + data[1:]], ids=["cut", "changed"]
)
async def test_a_damaged_one_is_named_and_the_others_are_served(storage, spoil):
    await upload(storage)
    path = only_file(storage)
    path.write_bytes(spoil(path.read_bytes()))
    other = await upload(storage, b"other")
    await assert_damaged(storage)
    assert (await storage.datasets.path_of(other.digest)).read_bytes() == b"other"


async def test_a_missing_file_is_damage_too_and_uploading_anew_mends_it(storage):
    await upload(storage)
    only_file(storage).unlink()
    await assert_damaged(storage)
    await storage.datasets.delete(DIGEST)
    await upload(storage)
    assert (await storage.datasets.path_of(DIGEST)).read_bytes() == DATA


async def test_one_of_an_earlier_server_is_found_under_its_digest(storage):
    await upload(storage)
    path = only_file(storage)
    path.rename(path.with_name(f"{DIGEST}.arrow"))
    nameless = update(datasets).values(artifact=None, file_digest=None)
    await storage.database.write(lambda connection: connection.execute(nameless).rowcount)
    assert (await storage.datasets.path_of(DIGEST)).read_bytes() == DATA
    await storage.datasets.delete(DIGEST)
    assert [found.name async for found in storage.artifacts.list("datasets")] == []


async def test_servers_that_take_the_same_upload_at_once_keep_one_file(open_at):
    first, second = open_at("first"), open_at("second")
    made = await asyncio.gather(upload(first), upload(second))
    assert made[0] == made[1]
    files = [found.name async for found in first.artifacts.list("datasets")]
    assert len(files) == 1


async def test_what_was_computed_of_one_is_computed_once_and_goes_with_it(storage):
    await upload(storage)
    seen = []

    def count(path):
        seen.append(path)
        return str(path.stat().st_size).encode()

    for _ in range(3):
        assert await storage.datasets.facts(DIGEST, count) == str(len(DATA)).encode()
    assert seen == [only_file(storage)]
    await storage.datasets.delete(DIGEST)
    assert [found.name async for found in storage.artifacts.list("datasets")] == []
    with pytest.raises(EpochdError) as caught:
        await storage.datasets.facts(DIGEST, count)
    assert caught.value.reason is Reason.DATASET_NOT_FOUND


async def test_an_upload_that_finds_no_room_can_be_completed_once_there_is_some(storage, monkeypatch):
    async def full(name, path):
        raise EpochdError(Reason.STORAGE_UNAVAILABLE)

    with monkeypatch.context() as broken:
        broken.setattr(storage.datasets._artifacts, "put_file", full)
        with pytest.raises(EpochdError) as caught:
            await upload(storage)
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    assert await storage.datasets.begin(DIGEST, len(DATA)) == len(DATA)
    assert (await upload(storage, offset=len(DATA))).digest == DIGEST
    assert list(storage.folder.uploads.iterdir()) == []


async def test_the_same_bytes_sent_twice_at_once_are_one_dataset(storage):
    first, second = await asyncio.gather(upload(storage), upload(storage), return_exceptions=True)
    made = [one for one in (first, second) if not isinstance(one, BaseException)]
    assert made
    assert all(one.digest == DIGEST for one in made)
    assert (await storage.datasets.path_of(DIGEST)).read_bytes() == DATA
