"""Artifacts in a folder: in which order they reach the disk, and what a broken one leaves."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.storage import durable_files
from epochd_server.storage.artifact_urls import open_artifacts
from epochd_server.storage.artifacts import ArtifactDamagedError, discard
from epochd_server.storage.durable_files import digest_of_file
from epochd_server.storage.failures import StorageUnusableError
from epochd_server.storage.local_artifacts import LocalArtifacts


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "artifacts"


@pytest.fixture
def artifacts(folder):
    return LocalArtifacts(folder)


@pytest.fixture
def steps(monkeypatch):
    """What is flushed and renamed, in order."""
    made: list[tuple[str, str]] = []
    fsync, rename = os.fsync, Path.rename

    def record_fsync(descriptor: int) -> None:
        fsync(descriptor)
        made.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))

    def record_rename(source: Path, target: Path) -> Path:
        made.append(("rename", str(source)))
        return rename(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "rename", record_rename)
    return made


async def test_content_is_flushed_before_it_gets_its_name_and_the_folders_after(artifacts, folder, steps):
    await artifacts.put("runs/a/1", b"epochd")
    fresh = steps[0][1]
    assert Path(fresh).parent == folder / "incoming"
    entries = [("fsync", str(path)) for path in (folder / "runs" / "a", folder / "runs", folder)]
    assert steps == [("fsync", fresh), ("rename", fresh), *entries]


async def test_a_file_that_is_taken_over_is_flushed_likewise(artifacts, folder, tmp_path, steps):
    path = tmp_path / "file"
    path.write_bytes(b"epochd")
    await artifacts.put_file("datasets/1", path)
    entries = [("fsync", str(folder / "datasets")), ("fsync", str(folder))]
    assert steps == [("fsync", str(path)), ("rename", str(path)), *entries]


async def test_nothing_is_left_where_the_disk_is_full(artifacts, folder, monkeypatch):
    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(EpochdError) as caught:
            await artifacts.put("weights/one", b"epochd")
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    await artifacts.put("weights/one", b"epochd")
    assert artifacts.map("weights/one") == b"epochd"


async def test_what_a_crash_left_half_written_is_listed_as_garbage(artifacts, folder):
    (folder / "incoming" / "0123.tmp").write_bytes(b"epo")
    assert [found.name async for found in artifacts.list()] == ["incoming/0123.tmp"]


async def test_a_file_is_hashed_once_and_again_when_it_has_changed(artifacts, folder, monkeypatch):
    hashed: list[Path] = []

    def record(path: Path) -> str:
        hashed.append(path)
        return digest_of_file(path)

    monkeypatch.setattr(durable_files, "digest_of_file", record)
    await artifacts.put("datasets/1", b"epochd")
    digest = durable_files.digest_of(b"epochd")
    for _ in range(3):
        artifacts.fetch("datasets/1", digest)
    assert hashed == [folder / "datasets" / "1"]
    (folder / "datasets" / "1").write_bytes(b"epoch!")
    with pytest.raises(ArtifactDamagedError):
        artifacts.fetch("datasets/1", digest)


async def test_one_that_cannot_be_deleted_is_left_behind(artifacts, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    await artifacts.put("weights/one", b"one")
    await artifacts.put("weights/two", b"two")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", fail)
        await discard(artifacts, ["weights/one"])
    await discard(artifacts, ["weights/two"])
    assert [found.name async for found in artifacts.list()] == ["weights/one"]


@pytest.mark.parametrize("url", ["http://host/x", "memory:///", "ftp://host/x", "file://host/x"])
def test_a_url_of_another_kind_is_refused(tmp_path, url):
    with pytest.raises(StorageUnusableError, match=r"known are s3://, gs://, az://, file://"):
        open_artifacts(url, cache=tmp_path, cache_bytes=1)


async def test_a_file_url_is_a_folder(tmp_path):
    artifacts = open_artifacts(f"file://{tmp_path}/a%20b", cache=tmp_path / "cache", cache_bytes=1)
    await artifacts.put("one", b"1")
    assert (tmp_path / "a b" / "one").read_bytes() == b"1"


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageUnusableError, match="cannot be written to: Not a directory"):
        open_artifacts(str(tmp_path / "file" / "x"), cache=tmp_path, cache_bytes=1)


def test_a_bucket_that_is_not_there_is_told(bucket, tmp_path):
    with pytest.raises(StorageUnusableError, match=r"s3://no-such-bucket/ cannot be used: .*404"):
        open_artifacts("s3://no-such-bucket/", cache=tmp_path / "cache", cache_bytes=1)
