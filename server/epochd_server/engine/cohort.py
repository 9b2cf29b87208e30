"""The entry to training: every run, lone or in a fleet, is a cohort that comes through here.

A member's bits depend on its own rows, spec and seed only. Each member therefore takes a program that is chosen
by its own size (:func:`_program_of`), and no program lets one member's numbers meet another's.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.specs import LinearModel, SequentialModel
from epochd_server.engine.chain import Chain, chain_of
from epochd_server.engine.initialisation import initial_parameters
from epochd_server.engine.programs import lanes, solo
from epochd_server.engine.reporting import Reporter
from epochd_server.engine.rows import Rows, rows_of
from epochd_server.engine.task import (
    CohortData,
    CohortResult,
    CohortTask,
    EndBatch,
    Hyperparameters,
    LogBatch,
    MemberState,
    Observer,
)

__all__ = [
    "CohortData",
    "CohortResult",
    "CohortTask",
    "EndBatch",
    "Hyperparameters",
    "LogBatch",
    "MemberState",
    "Observer",
    "train_cohort",
]

SMALL_WORK = 32768
"""Multiplications of a forward step up to which a member is small."""


def train_cohort(
    task: CohortTask, observer: Observer, *, clock: Callable[[], float] = time.monotonic
) -> CohortResult:
    """Trains all members of a cohort.

    Args:
        task: What to train.
        observer: Is told logs and ends as they come, on this thread.
        clock: Seconds, monotonic.
    """
    if not isinstance(task.model, LinearModel | SequentialModel):
        raise TypeError(f"cannot train a {type(task.model).__name__}")
    rows = rows_of(task)
    chain = chain_of(task.model, rows.features.shape[1])
    reporter = Reporter(task, chain.slots, observer, clock)
    start = initial_parameters(task, chain)
    small = _is_small(chain, rows)
    lanes.train(task, chain, rows, np.flatnonzero(small), start, reporter)
    solo.train(task, chain, rows, np.flatnonzero(~small), start, reporter)
    reporter.flush()
    return reporter.result()


def _is_small(chain: Chain, rows: Rows) -> NDArray[np.bool_]:
    """[K] whether a member's steps are so short that PyTorch's overhead for an operation would dominate."""
    return chain.size * rows.batch <= SMALL_WORK
