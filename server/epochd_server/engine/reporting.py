"""Between the programs that train and the observer who listens: collects, paces, and remembers the results."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from epochd_server.engine.chain import Slot, total_size, unpack
from epochd_server.engine.checkpointing import Checkpointer, Columns
from epochd_server.engine.rates import Rates
from epochd_server.engine.stability import largest_stable_lr
from epochd_server.engine.task import (
    CohortResult,
    CohortTask,
    EndBatch,
    Floats,
    Integers,
    LogBatch,
    MemberState,
    Observer,
)
from epochd_server.engine.validation import Scores, Validator, joined, no_scores

LOG_INTERVAL = 0.05
"""Seconds between two calls of :meth:`Observer.logs` while training goes on."""
POLL_INTERVAL = 0.02
"""Seconds between two calls of :meth:`Observer.stopped_members`."""
_TOLD_RATES = 16
DIVERGED_MESSAGE = (
    "the loss or a parameter became NaN or infinite in epoch {}; try a smaller learning rate, scaled features"
)


class StopPoll:
    """Asks an observer who shall stop, but no more often than every :data:`POLL_INTERVAL`.

    Args:
        observer: Who is asked.
        clock: Seconds, monotonic.
    """

    def __init__(self, observer: Observer, clock: Callable[[], float]) -> None:
        self._observer = observer
        self._clock = clock
        self._stopped: frozenset[int] = frozenset()
        self._polled_at = -np.inf

    def stopped(self) -> frozenset[int]:
        """The members that the observer wants stopped, at most :data:`POLL_INTERVAL` old."""
        now = self._clock()
        if now - self._polled_at >= POLL_INTERVAL:
            self._stopped = frozenset(self._observer.stopped_members())
            self._polled_at = now
        return self._stopped


class Reporter:
    """Collects what programs report and hands it to the observer in batches.

    Args:
        task: What is trained.
        slots: The parameters' places in the flat vectors that programs report.
        observer: Who is told.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, task: CohortTask, slots: tuple[Slot, ...], observer: Observer, clock: Callable[[], float]
    ) -> None:
        members = task.members
        self.clock = clock
        self._observer = observer
        self._slots = slots
        self._task = task
        self.rates = Rates(task)
        self._log_every = task.log_every
        self._flat = np.zeros((members, total_size(slots)), task.dtype)
        self._states = np.full(members, MemberState.FAILED, np.int64)
        self._epochs_done = np.zeros(members, np.int64)
        self._losses = np.full(members, np.nan)
        self._messages: list[str | None] = [None] * members
        self.validator = (
            None if task.validation is None else Validator(task, task.validation, total_size(slots))
        )
        self._scores = no_scores(members, len(task.metrics))
        self._best_epochs = np.full(members, -1, np.int64)
        self._points: list[tuple[Integers, Integers, Floats, Floats, Floats]] = []
        self._point_scores: list[Scores] = []
        self._snapshots: list[list[Floats | None] | None] = []
        self._ended: list[Integers] = []
        self.stopped = StopPoll(observer, clock).stopped
        self._checkpoints = Checkpointer(task, observer, clock)
        self._columns = {"loss": self._losses, **self.rates.columns}
        if self.validator is not None:
            self._columns |= self.validator.columns
        self._flushed_at = clock()

    def log(
        self,
        members: Integers,
        epochs: Integers,
        losses: Floats,
        rows_per_second: Floats,
        snapshots: list[Floats | None] | None = None,
        scores: Scores | None = None,
    ) -> None:
        """Takes log points, [M] each; ``snapshots`` are flat parameter vectors [P] where they are wanted.

        Each member's last epoch is among them for the sake of its loss; it is passed on only where it was asked for.
        ``scores`` are given where the task has a validation.
        """
        self._losses[members] = losses  # in the order of epochs, so the last one stays
        if scores is not None:
            self._scores.put(members, scores)
        asked = np.flatnonzero(epochs % self._log_every[members] == 0)
        if not len(asked):
            return
        if len(asked) < len(members):
            members, epochs = members[asked], epochs[asked]
            losses, rows_per_second = losses[asked], rows_per_second[asked]
            snapshots = None if snapshots is None else [snapshots[position] for position in asked.tolist()]
            scores = None if scores is None else scores.of(asked)
        self._points.append((members, epochs, losses, rows_per_second, self.rates.at(members, epochs)))
        if scores is not None:
            self._point_scores.append(scores)
        self._snapshots.append(snapshots)

    def end(
        self,
        members: Integers,
        states: Integers,
        epochs_done: Integers,
        flat: Floats,
        message: str | None = None,
    ) -> None:
        """Takes members that ended, [M] each, and their parameters [M, P]."""
        if not len(members):
            return
        self._states[members] = states
        self._epochs_done[members] = epochs_done
        self._losses[members[states == MemberState.DIVERGED]] = np.nan
        self._flat[members] = flat
        if self.validator is not None:
            self._keep_best(self.validator, members, states)
        for position in np.flatnonzero(states != MemberState.FINISHED):
            member = int(members[position])
            if states[position] == MemberState.DIVERGED:
                self._messages[member] = DIVERGED_MESSAGE.format(epochs_done[position])
            elif states[position] == MemberState.FAILED:
                self._messages[member] = message
        self._ended.append(members)

    @property
    def begun(self) -> Integers:
        """int64 [K]: the epoch that each member begins with; not 0 for those that were interrupted."""
        return self._checkpoints.begun

    def resume(self, members: Integers, columns: Columns) -> int:
        """Puts members where they were when they were saved, all of them at one epoch, and returns it.

        Args:
            members: [M]
            columns: What their program changes from epoch to epoch, [M, …] each.
        """
        places = np.arange(len(members))
        return int(self._checkpoints.restore(members, (columns, places), (self._columns, members))[0])

    def checkpoint_if_due(self, members: Integers, columns: Columns, places: Integers, epoch: int) -> None:
        """Tells where members are, unless that was told only just now; arguments as in :meth:`checkpoint`."""
        if self._checkpoints.due:
            self.checkpoint(members, columns, places, epoch)

    def checkpoint(self, members: Integers, columns: Columns, places: Integers, epoch: int) -> None:
        """Tells the observer where members are, after all that came before.

        Args:
            members: [M]
            columns: What their program changes from epoch to epoch.
            places: [M] where they are in these.
            epoch: Their next epoch.
        """
        self.flush()
        self._checkpoints.save(members, epoch, (columns, places), (self._columns, members))

    def flush_if_due(self) -> None:
        """Tells the observer what was collected, unless it was told only just now."""
        if self.clock() - self._flushed_at >= LOG_INTERVAL:
            self.flush()

    def flush(self) -> None:
        """Tells the observer what was collected: logs first, then ends."""
        if self._points:
            self._observer.logs(self._log_batch())
            self._points, self._snapshots, self._point_scores = [], [], []
        if self._ended:
            self._observer.ended(self._end_batch())
            self._ended = []
        self._flushed_at = self.clock()

    def result(self) -> CohortResult:
        """What became of every member; all of them have ended."""
        return CohortResult(
            parameters=unpack(self._flat, self._slots),
            states=self._states,
            epochs_done=self._epochs_done,
            final_loss=self._losses,
            messages=self._messages,
            validation_losses=self._scores.losses,
            metrics=self._scores.metrics,
            best_epochs=self._best_epochs,
        )

    def _keep_best(self, validator: Validator, members: Integers, states: Integers) -> None:
        """Gives members that finished, or were stopped, the best parameters they had, where that was asked for."""
        restores = np.isin(states, (MemberState.FINISHED, MemberState.STOPPED)) & validator.restored(members)
        unmeasured = members[~restores & (states != MemberState.FINISHED)]
        self._scores.put(unmeasured, no_scores(len(unmeasured), self._scores.metrics.shape[1]))
        restored = members[restores]
        if len(restored):
            self._best_epochs[restored], self._flat[restored], scores = validator.best(restored)
            self._scores.put(restored, scores)

    def _log_batch(self) -> LogBatch:
        members, epochs, losses, rows_per_second, lrs = (
            np.concatenate(column) for column in zip(*self._points, strict=True)
        )
        scores = None if self.validator is None else joined(self._point_scores)
        return LogBatch(
            members=members,
            epochs=epochs,
            losses=losses.astype(np.float64),
            lrs=lrs,
            rows_per_second=rows_per_second,
            parameters=self._named_snapshots(),
            validation_losses=None if scores is None else scores.losses,
            metrics=None if scores is None else scores.metrics,
        )

    def _named_snapshots(self) -> list[dict[str, Floats] | None] | None:
        if all(snapshots is None for snapshots in self._snapshots):
            return None
        named: list[dict[str, Floats] | None] = []
        for (members, *_), snapshots in zip(self._points, self._snapshots, strict=True):
            column = [None] * len(members) if snapshots is None else snapshots
            named.extend(None if flat is None else unpack(flat, self._slots) for flat in column)
        return named

    def _end_batch(self) -> EndBatch:
        members = np.concatenate(self._ended)
        return EndBatch(
            members=members,
            states=self._states[members],
            epochs_done=self._epochs_done[members],
            final_losses=self._losses[members],
            parameters=unpack(self._flat[members], self._slots),
            messages=[self._messages[int(member)] for member in members],
            validation_losses=self._scores.losses[members],
            metrics=self._scores.metrics[members],
            best_epochs=self._best_epochs[members],
            stable_lrs=self._stable_lrs(members),
        )

    def _stable_lrs(self, members: Integers) -> NDArray[np.float64] | None:
        """Of the first few that diverged: finding it takes as long as some epochs."""
        diverged = np.flatnonzero(self._states[members] == MemberState.DIVERGED)[:_TOLD_RATES]
        if not len(diverged):
            return None
        rates = np.full(len(members), np.nan)
        rates[diverged] = [largest_stable_lr(self._task, int(member)) for member in members[diverged]]
        return rates
