"""Checkpoints on every kind of database, in it and as files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select, update

from epochd_server.domain.checkpoints import Checkpoint, MemberCheckpoint
from epochd_server.domain.records import FIRST_CLAIM, SavedCheckpoint
from epochd_server.domain.runs import Cancelled, RunState
from epochd_server.storage import checkpoint_files
from epochd_server.storage.schema import checkpoints as rows


def checkpoint(epoch: int, size: int = 8, **ended: object) -> Checkpoint:
    rng = np.random.default_rng(epoch)
    state = {
        "parameters": rng.normal(size=size).astype(np.float32),
        "powers": rng.normal(size=2),
        "second": np.empty(0, np.float32),
        "loss": np.asarray(rng.normal()),
    }
    return Checkpoint(members={3: MemberCheckpoint(epoch, state)}, ended=ended, training_seconds=epoch / 7)


def saved(run_id: str, found: Checkpoint, claim: int = FIRST_CLAIM) -> SavedCheckpoint:
    return SavedCheckpoint(run_id=run_id, claim=claim, checkpoint=found)


def assert_same(found: Checkpoint | None, expected: Checkpoint) -> None:
    assert found is not None
    assert found.training_seconds == expected.training_seconds
    assert {k: place.epoch for k, place in found.members.items()} == {
        k: place.epoch for k, place in expected.members.items()
    }
    pairs = [(found.members[k].state, place.state) for k, place in expected.members.items()]
    for state, wanted in [*pairs, (found.ended, expected.ended)]:
        assert {name: (a.dtype, a.shape, a.tobytes()) for name, a in state.items()} == {
            name: (a.dtype, a.shape, a.tobytes()) for name, a in wanted.items()
        }


@pytest.fixture
async def run_id(storage, make):
    run = make.run()
    await storage.runs.accept(run, make.queued(run))
    return run.run_id


def files(storage) -> list[Path]:
    return sorted((storage.folder.artifacts / "checkpoints").glob("*"))


@pytest.mark.parametrize("size", [8, 200_000])
async def test_the_newest_is_found_and_the_one_before_is_kept(storage, run_id, size):
    for epoch in range(1, 5):
        await storage.checkpoints.save([saved(run_id, checkpoint(epoch, size))])
        found = await storage.checkpoints.newest(run_id)
        assert_same(found.checkpoint, checkpoint(epoch, size))
        assert found.damaged == 0
    count = await storage.database.read(lambda connection: len(connection.execute(select(rows)).all()))
    assert count == 2
    assert len(files(storage)) == (2 if size > 8 else 0)


async def test_a_run_without_any_has_none(storage, run_id):
    found = await storage.checkpoints.newest(run_id)
    assert (found.checkpoint, found.damaged) == (None, 0)


@pytest.mark.parametrize("damage", [b"", b"short", None])
async def test_damaged_files_are_passed_over(storage, run_id, damage):
    for epoch in (1, 2):
        await storage.checkpoints.save([saved(run_id, checkpoint(epoch, 200_000))])
    statement = select(rows.c.artifact).order_by(rows.c.number.desc()).limit(1)
    newest = await storage.database.read(lambda connection: connection.scalar(statement))
    path = storage.folder.artifacts / newest
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    found = await storage.checkpoints.newest(run_id)
    assert_same(found.checkpoint, checkpoint(1, 200_000))
    assert found.damaged == 1


async def test_rows_that_are_no_checkpoints_are_passed_over(storage, run_id):
    await storage.checkpoints.save([saved(run_id, checkpoint(1))])
    junk = b"\xff" * 40
    digest = hashlib.sha256(junk).hexdigest()
    await storage.database.write(lambda c: c.execute(update(rows).values(data=junk, digest=digest)))
    found = await storage.checkpoints.newest(run_id)
    assert (found.checkpoint, found.damaged) == (None, 1)


async def test_one_of_another_format_counts_as_none(storage, run_id, monkeypatch):
    monkeypatch.setattr(checkpoint_files, "FORMAT", checkpoint_files.FORMAT + 1)
    await storage.checkpoints.save([saved(run_id, checkpoint(1))])
    monkeypatch.undo()
    found = await storage.checkpoints.newest(run_id)
    assert (found.checkpoint, found.damaged) == (None, 0)


async def test_fleets_keep_what_became_of_their_members(storage, run_id):
    fleet = checkpoint(
        5, **{"outcomes": np.array([0, -1], np.int8), "parameter.linear.weight": np.ones((2, 1, 3))}
    )
    await storage.checkpoints.save([saved(run_id, fleet)])
    assert_same((await storage.checkpoints.newest(run_id)).checkpoint, fleet)


@pytest.mark.parametrize("named", [False, True])
async def test_those_of_ended_runs_are_forgotten_with_their_files(storage, make, run_id, named):
    other = make.run()
    await storage.runs.accept(other, make.queued(other))
    run_ids = [run_id, other.run_id] if named else None
    await storage.checkpoints.save(
        [saved(run_id, checkpoint(1, 200_000)), saved(other.run_id, checkpoint(2))]
    )
    await storage.checkpoints.forget_ended(run_ids)
    assert len(files(storage)) == 1
    await make.append(storage.runs, run_id, [make.event(2, Cancelled(epochs=1))], state=RunState.CANCELLED)
    await storage.checkpoints.forget_ended(run_ids)
    assert files(storage) == []
    assert (await storage.checkpoints.newest(run_id)).checkpoint is None
    assert (await storage.checkpoints.newest(other.run_id)).checkpoint is not None


async def test_who_lost_its_claim_keeps_nothing(storage, make, run_id):
    await storage.checkpoints.save([saved(run_id, checkpoint(1, 200_000))])
    await storage.checkpoints.save([saved(run_id, checkpoint(2, 200_000), claim=FIRST_CLAIM - 1)])
    await storage.checkpoints.save([saved(run_id, checkpoint(1, 200_000), claim=FIRST_CLAIM - 1)])
    assert_same((await storage.checkpoints.newest(run_id)).checkpoint, checkpoint(1, 200_000))
    assert len(files(storage)) == 1


async def test_deaths_of_workers_are_remembered(storage, run_id):
    await storage.runs.note_worker_deaths(run_id, FIRST_CLAIM, 2)
    await storage.runs.note_worker_deaths(run_id, FIRST_CLAIM + 1, 9)
    stored = await storage.runs.get(run_id)
    assert stored.worker_deaths == 2
