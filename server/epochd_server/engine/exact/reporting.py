"""Between the exact fits and the observer who listens: collects, paces, stops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from epochd_server.engine.chain import Chain, unpack
from epochd_server.engine.checkpointing import Checkpointer, Columns
from epochd_server.engine.exact.task import Doubles, ExactTask, Statistics
from epochd_server.engine.reporting import LOG_INTERVAL, StopPoll
from epochd_server.engine.task import EndBatch, Integers, LogBatch, MemberState, Observer


class ExactReporter:
    """Collects what the fits report and hands it to the observer in batches.

    Args:
        task: What is fitted.
        chain: Where the parameters lie in flat vectors.
        observer: Who is told.
        clock: Seconds, monotonic.
    """

    def __init__(self, task: ExactTask, chain: Chain, observer: Observer, clock: Callable[[], float]) -> None:
        self._task = task
        self._chain = chain
        self._observer = observer
        self._clock = clock
        self._points: list[tuple[Integers, Integers, Doubles, Doubles]] = []
        self._snapshots: list[Doubles | None] = []
        self.stopped = StopPoll(observer, clock).stopped
        self._checkpoints = Checkpointer(task, observer, clock)
        self._flushed_at = clock()

    def log(
        self,
        members: Integers,
        epochs: Integers,
        losses: Doubles,
        steps: Doubles,
        flat: Doubles | None = None,
    ) -> None:
        """Takes an iteration of members, [M] each, and their parameters [M, P] after it where some log them.

        Args:
            members: Who they are.
            epochs: Their iterations, from 0.
            losses: Mean losses before the iterations' updates.
            steps: Lengths of the updates, in parts of a full one.
            flat: Parameters after the updates.
        """
        asked = epochs % self._task.log_every[members] == 0
        if asked.any():
            self._points.append((members[asked], epochs[asked], losses[asked], steps[asked]))
            self._snapshots.append(None if flat is None else flat[asked])
        if self._clock() - self._flushed_at >= LOG_INTERVAL:
            self.flush()

    @property
    def logs_parameters(self) -> bool:
        """Whether any member's logs hold parameters."""
        return bool(self._task.log_parameters.any())

    def end(
        self,
        members: Integers,
        states: Integers,
        epochs: Integers,
        losses: Doubles,
        flat: Doubles,
        statistics: Statistics,
    ) -> None:
        """Takes members that ended, [M] each, with their parameters [M, P]; tells the observer at once."""
        if not len(members):
            return
        self.flush()
        self._observer.ended(
            EndBatch(
                members=members,
                states=states,
                epochs_done=epochs,
                final_losses=losses,
                parameters=unpack(flat.astype(self._task.dtype), self._chain.slots),
                messages=[None] * len(members),
                validation_losses=np.full(len(members), np.nan),
                metrics=np.empty((len(members), 0)),
                best_epochs=np.full(len(members), -1),
                statistics=dict(statistics),
            )
        )

    def stop(self, members: Integers, epochs: Integers, flat: Doubles) -> None:
        """Ends members as stopped, [M] each, with their parameters [M, P]."""
        states = np.full(len(members), MemberState.STOPPED, np.int64)
        self.end(members, states, epochs, np.full(len(members), np.nan), flat, {})

    @property
    def begun(self) -> Integers:
        """int64 [K]: the iteration that each member begins with; not 0 for those that were interrupted."""
        return self._checkpoints.begun

    def resume(self, members: Integers, columns: Columns) -> Integers:
        """Puts members where they were when they were saved; returns the iterations [M] that they have made.

        Args:
            members: [M]
            columns: What changes from iteration to iteration, [M, …] each.
        """
        return self._checkpoints.restore(members, (columns, np.arange(len(members))))

    def checkpoint_if_due(
        self, members: Integers, columns: Columns, places: Integers, iterations: Integers
    ) -> None:
        """Tells where members are, unless that was told only just now; arguments as in :meth:`checkpoint`."""
        if self._checkpoints.due:
            self.checkpoint(members, columns, places, iterations)

    def checkpoint(self, members: Integers, columns: Columns, places: Integers, iterations: Integers) -> None:
        """Tells the observer where members are, after all that came before.

        Args:
            members: [M]
            columns: What changes from iteration to iteration.
            places: [M] where they are in these.
            iterations: [M] that they have made.
        """
        if len(members):
            self.flush()
            self._checkpoints.save(members, iterations, (columns, places))

    def flush(self) -> None:
        """Tells the observer of the iterations that were collected."""
        self._flushed_at = self._clock()
        if not self._points:
            return
        members, epochs, losses, steps = (
            np.concatenate(column) for column in zip(*self._points, strict=True)
        )
        batch = LogBatch(
            members=members,
            epochs=epochs,
            losses=losses,
            lrs=steps,
            rows_per_second=np.zeros(len(members)),
            parameters=self._named(members),
        )
        self._points, self._snapshots = [], []
        self._observer.logs(batch)

    def _named(self, members: Integers) -> list[dict[str, NDArray[np.floating]] | None] | None:
        if all(snapshot is None for snapshot in self._snapshots):
            return None
        wanted = self._task.log_parameters[members].tolist()
        rows = [row for snapshot in self._snapshots if snapshot is not None for row in snapshot]
        return [
            unpack(row.astype(self._task.dtype), self._chain.slots) if logs else None
            for row, logs in zip(rows, wanted, strict=True)
        ]
