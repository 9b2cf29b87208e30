"""The large parts of versions, as they are read again and again."""

import asyncio

import pytest

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.storage.blobs import INLINE_BYTES, BlobReader, StoredBlob, make_blob
from epochd_server.storage.local_artifacts import LocalArtifacts

LARGE = b"x" * (INLINE_BYTES + 1)


@pytest.fixture
def stored(tmp_path):
    """Stores bytes as the artifact of a version."""

    def store(version: int, data: bytes) -> StoredBlob:
        blob = make_blob(f"run{version}", data, suffix="bin")
        asyncio.run(LocalArtifacts(tmp_path).put(blob.artifact, data))
        return StoredBlob(model="m", version=version, digest=blob.digest, data=None, artifact=blob.artifact)

    return store


def copied(data: memoryview) -> bytearray:
    return bytearray(data)


def test_what_was_made_of_an_artifact_is_given_again_without_reading_it(tmp_path, stored) -> None:
    blob, reader = stored(1, LARGE), BlobReader(LocalArtifacts(tmp_path))
    first = asyncio.run(reader.load(blob, copied))
    (tmp_path / blob.artifact).unlink()
    assert asyncio.run(reader.load(blob, copied)) is first
    with pytest.raises(EpochdError) as caught:
        asyncio.run(reader.load(blob, bytes))
    assert caught.value.reason is Reason.ARTIFACT_CORRUPT


def test_what_was_used_longest_ago_is_let_go(tmp_path, stored) -> None:
    blobs = [stored(version, LARGE + bytes([version])) for version in range(3)]
    reader = BlobReader(LocalArtifacts(tmp_path), kept_bytes=2 * len(LARGE) + 2)
    made = [asyncio.run(reader.load(blobs[version], copied)) for version in (0, 1, 0, 2)]
    again = [asyncio.run(reader.load(blobs[version], copied)) for version in (0, 2, 1)]
    assert again[0] is made[0] is made[2]
    assert again[1] is made[3]
    assert again[2] is not made[1]
    assert again[2] == made[1]


def test_what_is_larger_than_all_that_is_kept_is_not_kept(tmp_path, stored) -> None:
    blob, reader = stored(1, LARGE), BlobReader(LocalArtifacts(tmp_path), kept_bytes=len(LARGE) - 1)
    first = asyncio.run(reader.load(blob, copied))
    assert asyncio.run(reader.load(blob, copied)) is not first
