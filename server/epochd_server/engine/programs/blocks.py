"""Blocks of small members: what the lane programs have in common.

A block trains L members at once, one in each vector lane, epoch by epoch in chunks that last some milliseconds.
Between chunks it tells logs and ends, asks who shall stop, and closes ranks when members have left. Which members
share a block, how many, and how long a chunk is, are only matters of speed: no lane's numbers depend on them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from epochd_server.engine import optimizers
from epochd_server.engine.chain import Chain
from epochd_server.engine.programs.lane_state import Record, State
from epochd_server.engine.rates import Rates
from epochd_server.engine.reporting import Reporter
from epochd_server.engine.rows import Rows
from epochd_server.engine.task import CohortTask, Floats, Integers, MemberState
from epochd_server.engine.validation import Scores, Validator, chain_forward, no_scores, watched_losses

MOST_LANES = 128
"""Enough for the vector units to outweigh the loops around them."""
BLOCK_BYTES = 1 << 20
"""What a block may occupy, about: half of a usual second-level cache."""
CHUNK_SECONDS = 0.012
"""How long one call of a kernel should last."""
CHUNK_EPOCHS = 4096


class Pace:
    """How fast a task's blocks have been going."""

    def __init__(self) -> None:
        self.seconds = 1e-9
        """For each unit of work, as measured last."""

    def learn(self, seconds: float) -> None:
        """Takes a measurement; one hiccup of the machine must not shrink all chunks to come."""
        self.seconds = min(max(seconds, self.seconds / 4), self.seconds * 4)


def in_blocks(
    task: CohortTask, rows: Rows, members: Integers, begun: Integers, lane_bytes: Callable[[int], int]
) -> Iterator[Integers]:
    """Cuts members into blocks that fit the cache.

    Args:
        task: The whole cohort.
        rows: Its rows.
        members: Which of them are to be cut into blocks.
        begun: [K] the epoch that each member of the cohort begins with; one for all members of a block.
        lane_bytes: What a lane of so many rows occupies.
    """
    # Neighbours of one size waste no lane on padding, and those of one seed share their permutations.
    order = np.lexsort((task.seeds[members], task.epochs[members], rows.counts[members], begun[members]))
    ordered = members[order]
    ends = np.append(np.flatnonzero(np.diff(begun[ordered])) + 1, len(ordered))
    begin = 0
    while begin < len(ordered):
        reach = ordered[begin : min(begin + MOST_LANES, int(ends[np.searchsorted(ends, begin, "right")]))]
        room = BLOCK_BYTES // max(lane_bytes(int(rows.counts[reach[-1]])), 1)
        lanes = min(MOST_LANES, max(8, room // 8 * 8))
        yield reach[:lanes]
        begin += len(reach[:lanes])


class Block(ABC):
    """L members on their way through all their epochs.

    Args:
        task: The whole cohort.
        chain: Its network.
        rows: Its rows.
        members: [L] which of them are in this block.
        start: [L, P] their initial parameters, in the precision of the arithmetic.
        pace: Of the blocks of this task.
    """

    def __init__(
        self, task: CohortTask, chain: Chain, rows: Rows, members: Integers, start: Floats, pace: Pace
    ) -> None:
        self._task = task
        self._forward = chain_forward(chain)
        self._members = members
        self._counts = rows.counts[members]
        self._pace = pace
        self._epoch = 0
        self._told = np.zeros(len(members), np.bool_)
        self._state = _new_state(task, members, start)
        self._method = optimizers.method_of(task, chain.slots)

    def run(self, reporter: Reporter) -> None:
        """Trains to the end of the last member."""
        self._epoch = reporter.resume(self._members, self._state.columns)
        while self._state.alive.any():
            self._stop(reporter)
            if self._state.alive.any():
                self._run_chunk(reporter)
                reporter.flush_if_due()
                self._drop_ended()
                lanes = np.flatnonzero(self._state.alive)
                reporter.checkpoint_if_due(self._members[lanes], self._state.columns, lanes, self._epoch)

    @abstractmethod
    def _advance(self, record: Record, epochs: int) -> int:
        """Runs some epochs from ``self._epoch`` on; returns how many, fewer when no lane is left alive."""

    @abstractmethod
    def _epoch_work(self) -> float:
        """How much there is to do in an epoch, in any unit."""

    @abstractmethod
    def _keep(self, lanes: Integers) -> None:
        """Forgets all lanes but these."""

    def _stop(self, reporter: Reporter) -> None:
        """Ends the members that the observer wants stopped."""
        wanted = reporter.stopped()
        if not wanted:
            return
        lanes = np.flatnonzero(self._state.alive & np.isin(self._members, list(wanted)))
        reporter.checkpoint(self._members[lanes], self._state.columns, lanes, self._epoch)
        self._leave(lanes, MemberState.STOPPED, reporter)

    def _leave(self, lanes: Integers, how: MemberState, reporter: Reporter) -> None:
        """Ends living lanes before their last epoch."""
        self._state.alive[lanes] = False
        self._state.ended[lanes] = self._epoch
        self._told[lanes] = True
        states = np.full(len(lanes), how, np.int64)
        flat = self._state.parameters[:, lanes].T
        reporter.end(self._members[lanes], states, self._state.ended[lanes], flat)

    def _run_chunk(self, reporter: Reporter) -> None:
        epochs, wanted = self._next_chunk(reporter)
        snapshot_of, snapshots = self._snapshot_space(wanted)
        record = Record(
            self._lrs(reporter.rates, epochs), wanted, np.empty(wanted.shape), snapshot_of, snapshots
        )
        work = self._epoch_work()
        began = reporter.clock()
        ran = self._advance(record, epochs)
        seconds = max(reporter.clock() - began, 1e-9)
        self._pace.learn(seconds / ran / work)
        scores, stopping = self._validate(reporter.validator, self._epoch + ran - 1)
        self._report_logs(reporter, record, ran, ran / seconds, scores)
        if reporter.rates.adaptive:
            reporter.rates.learn(self._members, self._epoch, watched_losses(record.losses[0], scores))
        self._epoch += ran
        self._report_ends(reporter)
        self._leave(np.flatnonzero(stopping & self._state.alive), MemberState.FINISHED, reporter)

    def _validate(self, validator: Validator | None, epoch: int) -> tuple[Scores | None, NDArray[np.bool_]]:
        """Measures the lanes that are due after an epoch: what they reach [L], and which of them [L] shall leave."""
        lanes, stopping = len(self._members), np.zeros(len(self._members), np.bool_)
        if validator is None:
            return None, stopping
        scores = no_scores(lanes, len(self._task.metrics))
        state = self._state
        there = state.alive | ((state.ended == epoch + 1) & ~self._told)
        due = np.flatnonzero(there & validator.due(self._members, np.array(epoch)))
        if len(due):
            flat = np.ascontiguousarray(state.parameters[:, due].T, self._task.dtype)
            measured, stopping[due] = validator.observe(self._members[due], epoch, flat, self._forward)
            scores.put(due, measured)
        return scores, stopping

    def _lrs(self, rates: Rates, epochs: int) -> NDArray[np.float64]:
        """The learning rates of a chunk's epochs [E, L], or [0, L] where they do not change."""
        if rates.constant:
            return np.empty((0, len(self._members)))
        epoch = np.arange(self._epoch, self._epoch + epochs)[:, None]
        return np.ascontiguousarray(rates.at(self._members, epoch))

    def _next_chunk(self, reporter: Reporter) -> tuple[int, NDArray[np.bool_]]:
        """How many epochs to run next, and which of them [E, L] are logged by which lane."""
        state, validator = self._state, reporter.validator
        left = int(state.epochs[state.alive].max()) - self._epoch
        affordable = int(CHUNK_SECONDS / (self._pace.seconds * self._epoch_work()))
        epochs = max(1, min(left, CHUNK_EPOCHS, affordable))
        if validator is not None:
            epochs = min(epochs, validator.epochs_until_due(self._members[state.alive], self._epoch))
        if reporter.rates.adaptive:
            epochs = 1
        epoch = np.arange(self._epoch, self._epoch + epochs)[:, None]
        every = self._task.log_every[self._members]
        # of the last epoch the loss is always wanted: it is the member's final one
        wanted = ((epoch % every == 0) & (epoch < state.epochs)) | (epoch == state.epochs - 1)
        if validator is not None:  # an epoch after which early stopping decides may turn out to be the last
            wanted |= validator.due(self._members, epoch)
        wanted |= reporter.rates.adaptive
        return epochs, wanted & state.alive

    def _snapshot_space(self, wanted: NDArray[np.bool_]) -> tuple[Integers, Floats]:
        """Room for the parameters of the epochs that a lane logs with its parameters."""
        asking = self._task.log_parameters[self._members]
        epochs = np.flatnonzero((wanted & asking).any(1))
        snapshot_of = np.full(len(wanted), -1, np.int64)
        snapshot_of[epochs] = np.arange(len(epochs))
        parameters = self._state.parameters
        return snapshot_of, np.empty((len(epochs), *parameters.shape), parameters.dtype)

    def _report_logs(
        self,
        reporter: Reporter,
        record: Record,
        ran: int,
        epochs_per_second: float,
        scores: Scores | None,
    ) -> None:
        done = np.where(self._state.ended < 0, self._epoch + ran, self._state.ended)
        epochs = np.arange(self._epoch, self._epoch + ran)[:, None]
        lanes, offsets = np.nonzero((record.wanted[:ran] & (epochs < done)).T)
        members = self._members[lanes]
        asking = self._task.log_parameters[members]
        snapshots: list[Floats | None] | None = None
        if asking.any():
            snapshots = [
                record.snapshots[record.snapshot_of[offset], :, lane].astype(self._task.dtype)
                if ask
                else None
                for lane, offset, ask in zip(lanes, offsets, asking, strict=True)
            ]
        rates = self._counts[lanes] * epochs_per_second
        losses = record.losses[offsets, lanes]
        # with a validation, a chunk ends with the first epoch that any lane logs: its scores are those of that epoch
        scored = None if scores is None else scores.of(lanes)
        reporter.log(members, self._epoch + offsets, losses, rates, snapshots, scored)

    def _report_ends(self, reporter: Reporter) -> None:
        state = self._state
        lanes = np.flatnonzero((state.ended >= 0) & ~self._told)
        self._told[lanes] = True
        finished = state.ended[lanes] == state.epochs[lanes]
        states = np.where(finished, MemberState.FINISHED, MemberState.DIVERGED).astype(np.int64)
        reporter.end(self._members[lanes], states, state.ended[lanes], state.final[:, lanes].T)

    def _drop_ended(self) -> None:
        """Closes ranks once at most half of the lanes are still training."""
        alive = np.flatnonzero(self._state.alive)
        if 0 < len(alive) <= len(self._members) // 2:
            self._members, self._counts = self._members[alive], self._counts[alive]
            self._told = self._told[alive]
            self._state = State._make(take(array, alive) for array in self._state)
            self._keep(alive)


def _new_state(task: CohortTask, members: Integers, start: Floats) -> State:
    lanes, size = start.shape
    _, second, third = optimizers.moment_sizes(task.optimizer_kind, size)
    return State(
        parameters=np.ascontiguousarray(start.T),
        first=np.zeros((size, lanes), start.dtype),
        second=np.zeros((second, lanes), start.dtype),
        third=np.zeros((third, lanes), start.dtype),
        powers=np.ones((2, lanes)),
        table=optimizers.hyperparameter_table(task.hyperparameters, members),
        alive=np.ones(lanes, np.bool_),
        epochs=task.epochs[members].astype(np.int64),
        ended=np.full(lanes, -1, np.int64),
        final=np.zeros((size, lanes), start.dtype),
    )


_Array = TypeVar("_Array", bound=NDArray[Any])


def take(array: _Array, lanes: Integers) -> _Array:
    """Some lanes of an array whose last axis is lanes."""
    return cast("_Array", np.ascontiguousarray(array[..., lanes]))
