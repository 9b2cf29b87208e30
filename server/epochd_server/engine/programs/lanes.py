"""Small members: blocks of them, one in each lane, run all their epochs inside the cache before the next block.

Which members share a block, and how many, is only a matter of speed: no lane's numbers depend on another's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from epochd_server.engine import optimizers
from epochd_server.engine.chain import Chain
from epochd_server.engine.programs import lane_losses
from epochd_server.engine.programs.lane_kernel import Recipe, Record, Scratch, State, run_epochs
from epochd_server.engine.programs.lane_kernel import Rows as LaneRows
from epochd_server.engine.programs.lane_layers import network_of
from epochd_server.engine.reporting import Reporter
from epochd_server.engine.rows import Rows
from epochd_server.engine.task import CohortTask, Floats, Integers, MemberState

MOST_LANES = 64
"""Enough for the vector units to outweigh the loops around them."""
BLOCK_BYTES = 1 << 20
"""What a block may occupy, about: half of a usual second-level cache."""
CHUNK_SECONDS = 0.012
"""How long one call of the kernel should last: logs, stops and cancels are handled between calls."""
CHUNK_EPOCHS = 4096


def train(
    task: CohortTask, chain: Chain, rows: Rows, members: Integers, start: Floats, reporter: Reporter
) -> None:
    """Trains ``members``; arguments as in :func:`epochd_server.engine.programs.solo.train`."""
    plan = _Plan(task, chain, rows)
    # Neighbours of one size waste no lane on padding, and those of one seed share their permutations.
    keys = (task.seeds[members], task.epochs[members], rows.counts[members])
    ordered = members[np.lexsort(keys)]
    for lanes in _blocks(plan, ordered):
        _Block(plan, lanes, start).run(reporter)


class _Plan:
    """What all blocks of a task share."""

    def __init__(self, task: CohortTask, chain: Chain, rows: Rows) -> None:
        self.task = task
        self.size = chain.size
        self.network = network_of(chain)
        self.rows = rows
        targets = rows.targets
        self.targets: Floats = targets[:, None] if rows.classes else targets  # type: ignore[assignment]
        self.targets = np.ascontiguousarray(self.targets, task.dtype)
        self.weights = np.empty(0, task.dtype) if rows.weights is None else rows.weights
        self.pace = 1e-9
        """Seconds for each unit of :meth:`epoch_work`, as measured last."""

    def learn_pace(self, seconds: float) -> None:
        """Takes a measurement of ``pace``; a single hiccup of the machine must not shrink all chunks to come."""
        self.pace = min(max(seconds, self.pace / 4), self.pace * 4)

    def epoch_work(self, counts: Integers) -> float:
        """Multiplications of an epoch, about."""
        return float(counts.max()) * (self.size + 2 * self.network.positions) * 3 * (len(counts) + 8)

    def lane_bytes(self, count: int) -> int:
        """What a lane of ``count`` rows occupies."""
        batch = count if self.task.batch_size is None else min(count, self.task.batch_size)
        row = self.rows.features.shape[1] + self.targets.shape[1] + 1 + 2 * self.network.positions
        return int((4 * self.size + batch * row) * self.task.dtype.itemsize)


def _blocks(plan: _Plan, members: Integers) -> Iterator[Integers]:
    """Cuts members, in order of their row counts, into blocks that fit the cache."""
    begin = 0
    while begin < len(members):
        reach = members[begin : begin + MOST_LANES]
        bytes_each = plan.lane_bytes(int(plan.rows.counts[reach[-1]]))
        lanes = min(MOST_LANES, max(8, BLOCK_BYTES // bytes_each // 8 * 8))
        yield members[begin : begin + lanes]
        begin += lanes


class _Block:
    """L members on their way through all their epochs."""

    def __init__(self, plan: _Plan, members: Integers, start: Floats) -> None:
        self._plan = plan
        self._members = members
        self._epoch = 0
        task, rows = plan.task, plan.rows
        counts = rows.counts[members]
        most = int(counts.max())
        batch = most if task.batch_size is None else min(task.batch_size, most)
        self._recipe = Recipe(
            loss=lane_losses.CODES[task.loss.kind],
            delta=task.loss.delta,
            optimizer=optimizers.CODES[task.optimizer_kind],
            nesterov=task.hyperparameters.nesterov,
            batch=batch,
            full=batch == most,
            shuffle=task.shuffle,
            accumulation=task.accumulation_steps,
            width=plan.targets.shape[1],
        )
        self._rows = LaneRows(
            features=rows.features,
            targets=plan.targets,
            weights=plan.weights,
            starts=rows.starts[members],
            counts=counts,
            seeds=task.seeds[members].astype(np.uint64),
        )
        self._told = np.zeros(len(members), np.bool_)
        self._losses = np.full(len(members), np.nan)
        self._state = self._new_state(start)
        self._scratch = self._new_scratch(batch, most)

    def _new_state(self, start: Floats) -> State:
        task, members, size = self._plan.task, self._members, self._plan.size
        lanes = len(members)
        second = 0 if self._recipe.optimizer == optimizers.SGD else size
        return State(
            parameters=np.ascontiguousarray(start[members].T),
            first=np.zeros((size, lanes), task.dtype),
            second=np.zeros((second, lanes), task.dtype),
            powers=np.ones((2, lanes)),
            table=optimizers.hyperparameter_table(task.hyperparameters, members),
            alive=np.ones(lanes, np.bool_),
            epochs=task.epochs[members].astype(np.int64),
            ended=np.full(lanes, -1, np.int64),
            final=np.zeros((size, lanes), task.dtype),
        )

    def _new_scratch(self, batch: int, most: int) -> Scratch:
        plan, lanes, dtype = self._plan, len(self._members), self._plan.task.dtype
        permuted = most if self._recipe.shuffle and not self._recipe.full else 0
        return Scratch(
            gradients=np.zeros((plan.size, lanes), dtype),
            scales=np.zeros((optimizers.SCALES, lanes), dtype),
            values=np.zeros((batch * plan.network.positions, lanes), dtype),
            slopes=np.zeros((batch * plan.network.positions, lanes), dtype),
            inputs=np.zeros((batch * self._rows.features.shape[1], lanes), dtype),
            targets=np.zeros((batch * self._recipe.width, lanes), dtype),
            weights=np.zeros((batch, lanes), dtype),
            order=np.zeros((lanes, permuted), np.int64),
            row_scales=np.zeros(lanes, dtype),
            partial=np.zeros(lanes, dtype),
            totals=np.zeros((6, lanes)),
            weighted=np.zeros(lanes, np.bool_),
            stepping=np.zeros(lanes, np.bool_),
        )

    def run(self, reporter: Reporter) -> None:
        """Trains to the end of the last member."""
        while self._state.alive.any():
            self._stop(reporter)
            if self._state.alive.any():
                self._run_chunk(reporter)
                reporter.flush_if_due()
                self._drop_ended()

    def _stop(self, reporter: Reporter) -> None:
        """Ends the members that the observer wants stopped."""
        wanted = reporter.stopped()
        if not wanted:
            return
        lanes = np.flatnonzero(self._state.alive & np.isin(self._members, list(wanted)))
        self._state.alive[lanes] = False
        self._state.ended[lanes] = self._epoch
        self._told[lanes] = True
        states = np.full(len(lanes), MemberState.STOPPED, np.int64)
        flat = self._state.parameters[:, lanes].T
        reporter.end(self._members[lanes], states, self._state.ended[lanes], self._losses[lanes], flat)

    def _run_chunk(self, reporter: Reporter) -> None:
        first = self._epoch
        epochs, wanted = self._next_chunk()
        snapshot_of, snapshots = self._snapshot_space(wanted)
        record = Record(np.empty((epochs, len(self._members))), snapshot_of, snapshots)
        began = reporter.clock()
        ran = run_epochs(
            self._plan.network, self._recipe, self._rows, self._state, self._scratch, record, first, epochs
        )
        seconds = max(reporter.clock() - began, 1e-9)
        self._plan.learn_pace(seconds / ran / self._plan.epoch_work(self._rows.counts))
        self._epoch += ran
        self._report_logs(reporter, record, wanted[:ran], ran / seconds)
        self._report_ends(reporter, first, record.losses)
        self._losses = record.losses[ran - 1]

    def _next_chunk(self) -> tuple[int, NDArray[np.bool_]]:
        """How many epochs to run next, and which of them [E, L] are logged by which lane."""
        state = self._state
        left = int(state.epochs[state.alive].max()) - self._epoch
        pace = self._plan.pace * self._plan.epoch_work(self._rows.counts)
        epochs = max(1, min(left, CHUNK_EPOCHS, int(CHUNK_SECONDS / pace)))
        epoch = np.arange(self._epoch, self._epoch + epochs)[:, None]
        every = self._plan.task.log_every[self._members]
        wanted = (epoch % every == 0) | (epoch == state.epochs - 1)
        return epochs, wanted & state.alive

    def _snapshot_space(self, wanted: NDArray[np.bool_]) -> tuple[Integers, Floats]:
        """Room for the parameters of the epochs that a lane logs with its parameters."""
        asking = self._plan.task.log_parameters[self._members]
        epochs = np.flatnonzero((wanted & asking).any(1))
        snapshot_of = np.full(len(wanted), -1, np.int64)
        snapshot_of[epochs] = np.arange(len(epochs))
        return snapshot_of, np.empty((len(epochs), *self._state.parameters.shape), self._plan.task.dtype)

    def _report_logs(
        self, reporter: Reporter, record: Record, wanted: NDArray[np.bool_], epochs_per_second: float
    ) -> None:
        offsets = np.arange(len(wanted))[:, None]
        done = np.where(self._state.ended < 0, self._epoch, self._state.ended)
        lanes, offsets = np.nonzero((wanted & (self._epoch - len(wanted) + offsets < done)).T)
        if not len(lanes):
            return
        members = self._members[lanes]
        snapshots: list[Floats | None] | None = None
        asking = self._plan.task.log_parameters[members]
        if asking.any():
            snapshots = [
                record.snapshots[record.snapshot_of[offset], :, lane].copy() if ask else None
                for lane, offset, ask in zip(lanes, offsets, asking, strict=True)
            ]
        epochs = self._epoch - len(wanted) + offsets
        rates = self._rows.counts[lanes] * epochs_per_second
        reporter.log(members, epochs, record.losses[offsets, lanes], rates, snapshots)

    def _report_ends(self, reporter: Reporter, first: int, losses: NDArray[np.float64]) -> None:
        state = self._state
        lanes = np.flatnonzero((state.ended >= 0) & ~self._told)
        self._told[lanes] = True
        finished = state.ended[lanes] == state.epochs[lanes]
        states = np.where(finished, MemberState.FINISHED, MemberState.DIVERGED).astype(np.int64)
        last = losses[state.ended[lanes] - finished - first, lanes]
        reporter.end(self._members[lanes], states, state.ended[lanes], last, state.final[:, lanes].T)

    def _drop_ended(self) -> None:
        """Closes ranks once at most half of the lanes are still training."""
        alive = np.flatnonzero(self._state.alive)
        if 0 < len(alive) <= len(self._members) // 2:
            self._members = self._members[alive]
            self._told, self._losses = self._told[alive], self._losses[alive]
            self._state = State._make(_take(array, alive) for array in self._state)
            order = np.ascontiguousarray(self._scratch.order[alive])
            kept = {
                name: _take(array, alive)
                for name, array in self._scratch._asdict().items()
                if name != "order"
            }
            self._scratch = Scratch(order=order, **kept)
            self._rows = self._rows._replace(
                starts=self._rows.starts[alive],
                counts=self._rows.counts[alive],
                seeds=self._rows.seeds[alive],
            )


_Array = TypeVar("_Array", bound=NDArray[Any])


def _take(array: _Array, lanes: Integers) -> _Array:
    """Some lanes of an array whose last axis is lanes."""
    return cast("_Array", np.ascontiguousarray(array[..., lanes]))
