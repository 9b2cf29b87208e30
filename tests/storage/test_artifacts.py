"""Artifacts: whole or not at all."""

from __future__ import annotations

import pytest

from epochd_server.storage import Artifacts


@pytest.fixture
def artifacts(tmp_path):
    return Artifacts(tmp_path / "artifacts")


@pytest.mark.parametrize("size", [0, 1, 4_095, 4_096, 3_000_007, 20_000_000])
async def test_come_back_whole(artifacts, size):
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    await artifacts.put("weights/a.bin", data)
    mapped = artifacts.map("weights/a.bin")
    assert mapped == data
    assert mapped.readonly


async def test_can_be_put_again(artifacts):
    """As when a commit was not acknowledged and its operation is repeated."""
    for data in (b"first", b"second"):
        await artifacts.put("a", data)
    assert artifacts.map("a") == b"second"


async def test_leave_no_other_file(artifacts, tmp_path):
    await artifacts.put("weights/a.bin", b"data")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.bin"]


async def test_a_missing_one_is_told(artifacts):
    with pytest.raises(FileNotFoundError):
        artifacts.map("a")


async def test_one_that_is_deleted_stays_readable_to_who_has_mapped_it(artifacts):
    await artifacts.put("a", b"data")
    mapped = artifacts.map("a")
    await artifacts.delete("a")
    assert mapped == b"data"


async def test_deleting_twice_is_fine(artifacts):
    await artifacts.put("a", b"data")
    for _ in range(2):
        await artifacts.delete("a")
    with pytest.raises(FileNotFoundError):
        artifacts.map("a")
