"""Artifacts: whole or not at all."""

from __future__ import annotations

import pytest

from epochd_server.storage import Artifacts
from epochd_server.storage.artifacts import CHUNK_BYTES


@pytest.fixture
def artifacts(tmp_path):
    return Artifacts(tmp_path / "artifacts")


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 7, 20_000_000])
async def test_come_back_whole_and_in_chunks(artifacts, size):
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    await artifacts.put("weights/a.bin", data)
    assert await artifacts.get("weights/a.bin") == data
    chunks = [chunk async for chunk in artifacts.stream("weights/a.bin")]
    assert b"".join(chunks) == data
    assert all(len(chunk) <= CHUNK_BYTES for chunk in chunks)


async def test_can_be_put_again(artifacts):
    """As when a commit was not acknowledged and its operation is repeated."""
    for data in (b"first", b"second"):
        await artifacts.put("a", data)
    assert await artifacts.get("a") == b"second"


async def test_leave_no_other_file(artifacts, tmp_path):
    await artifacts.put("weights/a.bin", b"data")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.bin"]


async def test_a_missing_one_is_told(artifacts):
    with pytest.raises(FileNotFoundError):
        await artifacts.get("a")
    with pytest.raises(FileNotFoundError):
        await anext(artifacts.stream("a"))


async def test_deleting_twice_is_fine(artifacts):
    await artifacts.put("a", b"data")
    for _ in range(2):
        await artifacts.delete("a")
    with pytest.raises(FileNotFoundError):
        await artifacts.get("a")
