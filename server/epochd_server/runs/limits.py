"""Deadlines of runs, and how long they may be in training."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from epochd_server.domain.stopping import DEADLINE_REACHED, TRAINING_TIME_SPENT, Wish
from epochd_server.runs.live import LiveRun

_LONGEST_SLEEP = 30.0
"""Seconds after which the wall clock is looked at again: it may have been set."""


class LimitKeeper:
    """Cancels runs that reach a limit.

    Args:
        ask: Does what is wished of a run, and says why.
    """

    def __init__(self, ask: Callable[[LiveRun, Wish, str], Awaitable[None]]) -> None:
        self._ask = ask
        self._deadlines: dict[str, asyncio.Task[None]] = {}
        self._budgets: dict[str, asyncio.Task[None]] = {}

    def watch(self, run: LiveRun) -> None:
        """Looks after the deadline of a run, from when its limits are known until :meth:`forget`."""
        if run.limits.deadline is not None and run.run_id not in self._deadlines:
            self._deadlines[run.run_id] = asyncio.create_task(self._until(run, run.limits.deadline))

    def began(self, run: LiveRun) -> None:
        """A run is in training from now on."""
        if run.limits.training_seconds is not None:
            left = run.limits.training_seconds - run.trained_seconds
            self._budgets[run.run_id] = asyncio.create_task(self._after(run, left))

    def left(self, run: LiveRun) -> None:
        """A run is not in training any more."""
        _cancel(self._budgets.pop(run.run_id, None))

    def forget(self, run: LiveRun) -> None:
        """A run is not this server's any more."""
        _cancel(self._deadlines.pop(run.run_id, None))
        self.left(run)

    async def _until(self, run: LiveRun, deadline: datetime) -> None:
        while (left := (deadline - datetime.now(UTC)).total_seconds()) > 0:  # noqa: ASYNC110 - no event tells the time
            await asyncio.sleep(min(left, _LONGEST_SLEEP))
        await self._ask(run, run.limits.wish, DEADLINE_REACHED)

    async def _after(self, run: LiveRun, seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0.0))
        await self._ask(run, run.limits.wish, TRAINING_TIME_SPENT)


def _cancel(task: asyncio.Task[None] | None) -> None:
    """Ends a task, unless that is what does it."""
    if task is not None and task is not asyncio.current_task():
        task.cancel()
