"""Small members of any network: see :mod:`.blocks`. Their data are copied into lanes batch by batch."""

from __future__ import annotations

import numpy as np

from epochd_server.engine import optimizers
from epochd_server.engine.chain import Chain
from epochd_server.engine.programs import lane_losses
from epochd_server.engine.programs.blocks import Block, Pace, in_blocks, take
from epochd_server.engine.programs.lane_kernel import Recipe, Scratch, load_all_rows, run_epochs
from epochd_server.engine.programs.lane_kernel import Rows as LaneRows
from epochd_server.engine.programs.lane_layers import network_of
from epochd_server.engine.programs.lane_state import Record
from epochd_server.engine.reporting import Reporter
from epochd_server.engine.rows import Rows
from epochd_server.engine.task import CohortTask, Floats, Integers


def train(
    task: CohortTask, chain: Chain, rows: Rows, members: Integers, start: Floats, reporter: Reporter
) -> None:
    """Trains ``members``; arguments as in :func:`epochd_server.engine.programs.solo.train`."""
    plan = _Plan(task, chain, rows)
    for lanes in in_blocks(task, rows, members, reporter.begun, plan.lane_bytes):
        _LaneBlock(plan, lanes, start[lanes]).run(reporter)


class _Plan:
    """What all blocks of a task share."""

    def __init__(self, task: CohortTask, chain: Chain, rows: Rows) -> None:
        self.task = task
        self.chain = chain
        self.size = chain.size
        self.network = network_of(chain)
        self.rows = rows
        self.pace = Pace()
        targets = rows.targets[:, None] if rows.classes else rows.targets
        self.targets: Floats = np.ascontiguousarray(targets, task.dtype)
        self.weights = np.empty(0, task.dtype) if rows.weights is None else rows.weights

    def lane_bytes(self, count: int) -> int:
        """What a lane of ``count`` rows occupies."""
        batch = count if self.task.batch_size is None else min(count, self.task.batch_size)
        row = self.rows.features.shape[1] + self.targets.shape[1] + 1 + 2 * self.network.positions
        return int((4 * self.size + batch * row) * self.task.dtype.itemsize)


class _LaneBlock(Block):
    def __init__(self, plan: _Plan, members: Integers, start: Floats) -> None:
        super().__init__(plan.task, plan.chain, plan.rows, members, start, plan.pace)
        self._plan = plan
        task, rows = plan.task, plan.rows
        most = int(self._counts.max())
        batch = most if task.batch_size is None else min(task.batch_size, most)
        self._recipe = Recipe(
            loss=lane_losses.CODES[task.loss.kind],
            parameter=lane_losses.parameter_of(task.loss),
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
            counts=self._counts,
            seeds=task.seeds[members].astype(np.uint64),
        )
        self._scratch = self._new_scratch(batch, most)
        if self._recipe.full:
            load_all_rows(self._recipe, self._rows, self._state, self._scratch)

    def _new_scratch(self, batch: int, most: int) -> Scratch:
        plan, lanes, dtype = self._plan, len(self._members), self._task.dtype
        permuted = most if self._recipe.shuffle and not self._recipe.full else 0
        return Scratch(
            gradients=np.zeros((plan.size, lanes), dtype),
            scales=np.zeros((optimizers.SCALES, lanes), dtype),
            norms=np.zeros(lanes),
            values=np.zeros((batch * plan.network.positions, lanes), dtype),
            slopes=np.zeros((batch * plan.network.positions, lanes), dtype),
            inputs=np.zeros((batch * self._rows.features.shape[1], lanes), dtype),
            targets=np.zeros((batch * self._recipe.width, lanes), dtype),
            weights=np.zeros((batch, lanes), dtype),
            order=np.zeros((lanes, permuted), np.int64),
            row_scales=np.zeros(lanes, dtype),
            partial=np.zeros(lanes, dtype),
            loss=np.zeros((2, lanes), dtype),
            totals=np.zeros((5, lanes)),
            weighted=np.zeros(lanes, np.bool_),
            stepping=np.zeros(lanes, np.bool_),
        )

    def _advance(self, record: Record, epochs: int) -> int:
        return run_epochs(
            self._plan.network,
            self._recipe,
            self._method,
            self._rows,
            self._state,
            self._scratch,
            record,
            self._epoch,
            epochs,
        )

    def _epoch_work(self) -> float:
        row = self._plan.size + 2 * self._plan.network.positions
        return float(self._counts.max()) * row * 3 * (len(self._counts) + 8)

    def _keep(self, lanes: Integers) -> None:
        scratch = self._scratch._asdict()
        order = np.ascontiguousarray(scratch.pop("order")[lanes])
        kept = {name: take(array, lanes) for name, array in scratch.items()}
        self._scratch = Scratch(order=order, **kept)
        self._rows = self._rows._replace(
            starts=self._rows.starts[lanes], counts=self._counts, seeds=self._rows.seeds[lanes]
        )
