"""Linear models under mse on full batches with rows enough: see :mod:`.gram_kernel` and :mod:`.blocks`."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.specs import LossKind
from epochd_server.engine import optimizers
from epochd_server.engine.chain import Affine, Chain
from epochd_server.engine.programs.blocks import Block, Pace, in_blocks, take
from epochd_server.engine.programs.gram_kernel import Problem, Work, fill_problem, run_gram_epochs
from epochd_server.engine.programs.lane_state import Record
from epochd_server.engine.reporting import Reporter
from epochd_server.engine.rows import Rows
from epochd_server.engine.task import CohortTask, Floats, Integers

LEAST_ROWS = 16
"""Fewer rows stay in the task's precision, so that short float32 trainings print PyTorch's digits."""
MOST_FEATURES = 127
"""With more, a Gram matrix no longer fits the cache."""


def eligible(task: CohortTask, chain: Chain, rows: Rows) -> NDArray[np.bool_]:
    """[K] whether a member is trained here; depends on the member alone.

    It is where an epoch over the Gram matrix costs less than one over the rows: with at least twice as many rows
    as parameters of a target.
    """
    step = chain.steps[0] if len(chain.steps) == 1 else None
    if (
        not isinstance(step, Affine)
        or task.loss.kind is not LossKind.MSE
        or chain.in_features > MOST_FEATURES
    ):
        return np.zeros(task.members, np.bool_)
    enough = max(LEAST_ROWS, 2 * (chain.in_features + 1))
    chosen: NDArray[np.bool_] = (rows.batch == rows.counts) & (rows.counts >= enough)
    return chosen


def train(
    task: CohortTask, chain: Chain, rows: Rows, members: Integers, start: Floats, reporter: Reporter
) -> None:
    """Trains ``members``; arguments as in :func:`epochd_server.engine.programs.solo.train`."""
    width = chain.in_features + chain.has_bias
    lane_bytes = (width * width + 5 * chain.size) * 8
    pace = Pace()
    for lanes in in_blocks(task, rows, members, reporter.begun, lambda _: lane_bytes):
        _GramBlock(task, chain, rows, lanes, start[lanes].astype(np.float64), pace).run(reporter)


class _GramBlock(Block):
    def __init__(
        self, task: CohortTask, chain: Chain, rows: Rows, members: Integers, start: Floats, pace: Pace
    ) -> None:
        super().__init__(task, chain, rows, members, start, pace)
        lanes, width = len(members), chain.in_features + chain.has_bias
        self._largest = float(np.finfo(task.dtype).max)
        self._work = Work(
            gradients=np.zeros((chain.size, lanes)),
            scales=np.zeros((optimizers.SCALES, lanes)),
            norms=np.zeros(lanes),
            blemish=np.zeros(lanes),
            vector=np.zeros(max(chain.size, width * width)),
        )
        self._problem = Problem(
            features=rows.features,
            targets=cast("Floats", rows.targets),  # because the loss is mse
            weights=np.empty(0, task.dtype) if rows.weights is None else rows.weights,
            starts=rows.starts[members],
            counts=self._counts,
            gram=np.zeros((width * width, lanes)),
            moments=np.zeros((chain.out_features * width, lanes)),
            total_weight=np.zeros(lanes),
            bias=chain.has_bias,
        )
        fill_problem(self._problem, self._work.vector)

    def _advance(self, record: Record, epochs: int) -> int:
        return run_gram_epochs(
            self._problem,
            self._state,
            self._work,
            record,
            self._method,
            self._largest,
            self._epoch,
            epochs,
        )

    def _epoch_work(self) -> float:
        return float(len(self._problem.gram) * len(self._counts) + 100)

    def _keep(self, lanes: Integers) -> None:
        problem = self._problem
        self._problem = problem._replace(
            starts=problem.starts[lanes],
            counts=self._counts,
            gram=take(problem.gram, lanes),
            moments=take(problem.moments, lanes),
            total_weight=problem.total_weight[lanes],
        )
        self._work = Work(
            take(self._work.gradients, lanes),
            take(self._work.scales, lanes),
            self._work.norms[lanes],
            self._work.blemish[lanes],
            self._work.vector,
        )
