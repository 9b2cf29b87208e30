"""Keeping where runs in training are, so that what interrupts them costs little."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import structlog

from epochd_server.domain.checkpoints import Checkpoint
from epochd_server.domain.errors import EpochdError
from epochd_server.runs.durable import durably
from epochd_server.runs.live import LiveRun
from epochd_server.runs.ports import Checkpoints, FoundCheckpoint, SavedCheckpoint

_FROM_THE_START = (
    "It is trained again from its first epoch, to the same result; logged epochs are not repeated."
)

_logger = structlog.get_logger(__name__)


class CheckpointKeeper:
    """Saves and finds the checkpoints of live runs. One that cannot be saved costs time later, but no run.

    Args:
        store: Where they are kept.
    """

    def __init__(self, store: Checkpoints) -> None:
        self._store = store
        self._forgetting: set[asyncio.Task[None]] = set()

    async def save(self, saved: Sequence[tuple[LiveRun, Checkpoint]]) -> None:
        """Keeps where runs are, as far as their logs tell it already; those that have ended are passed over."""
        current = [(run, checkpoint) for run, checkpoint in saved if not run.ended]
        if not current:
            return
        for run, _ in current:
            run.saved = True
        found = [
            SavedCheckpoint(run_id=run.run_id, claim=run.claim, checkpoint=checkpoint)
            for run, checkpoint in current
        ]
        try:
            await self._store.save(found)
        except EpochdError as error:
            run_ids = [run.run_id for run, _ in current]
            _logger.warning("runs could not be saved; they go on", runs=run_ids, problem=str(error))

    async def recall(self, run: LiveRun) -> Checkpoint | None:
        """Where a run was saved last; None where it begins from its first epoch."""
        if not run.begun:
            return None
        found = await durably(lambda: self._store.newest(run.run_id))
        run.saved = run.saved or found.checkpoint is not None or found.damaged > 0
        run.damaged_checkpoints = found.damaged
        run.resumption = _resumption(found, run)
        run.trained_seconds = 0.0 if found.checkpoint is None else found.checkpoint.training_seconds
        return found.checkpoint

    def forget(self, run: LiveRun) -> None:
        """Deletes the checkpoints of a run, if it has ended and there are any, in the background."""
        if run.saved:
            self._tend(self._forget([run.run_id]))

    def tidy(self) -> None:
        """Deletes what a crash left of runs that have ended, in the background."""
        self._tend(self._forget(None))

    async def close(self) -> None:
        """Returns when nothing is being deleted any more."""
        await asyncio.gather(*self._forgetting)

    async def _forget(self, run_ids: Sequence[str] | None) -> None:
        try:
            await self._store.forget_ended(run_ids)
        except EpochdError as error:
            _logger.warning("checkpoints are left for the next start", runs=run_ids, problem=error.message)

    def _tend(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._forgetting.add(task)
        task.add_done_callback(self._forgetting.discard)


def _resumption(found: FoundCheckpoint, run: LiveRun) -> str:
    """How a run goes on, for its log."""
    checkpoint = found.checkpoint
    if checkpoint is None:
        return _FROM_THE_START
    if run.started is not None and run.started.members:
        return "It goes on where its members were saved last, to the same result."
    return f"It goes on with epoch {checkpoint.epochs}, to the same result."
