"""The entry to training: every run, lone or in a fleet, is a cohort that comes through here.

A member's bits depend on its own rows, spec and seed only. Each member therefore takes a program that is chosen
by its own size (:func:`_program_of`), and no program lets one member's numbers meet another's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from epochd_server.domain.specs import ModuleModel
from epochd_server.engine.chain import Chain, chain_of
from epochd_server.engine.initialisation import initial_module, initial_parameters
from epochd_server.engine.inspection import construct
from epochd_server.engine.modules import ModuleRegistry
from epochd_server.engine.programs import gram, lanes, solo
from epochd_server.engine.programs import module as called
from epochd_server.engine.reporting import Reporter
from epochd_server.engine.rows import Rows, rows_of
from epochd_server.engine.task import (
    CohortData,
    CohortResult,
    CohortTask,
    EndBatch,
    Floats,
    Hyperparameters,
    Integers,
    LogBatch,
    MemberState,
    Observer,
    ProgressBatch,
)
from epochd_server.engine.tracing import chain_of_module

__all__ = [
    "CohortData",
    "CohortResult",
    "CohortTask",
    "EndBatch",
    "Hyperparameters",
    "LogBatch",
    "MemberState",
    "Observer",
    "ProgressBatch",
    "train_cohort",
]

SMALL_WORK = 32768
"""Multiplications of a forward step up to which a member is small: below it PyTorch's overhead for each operation
would dominate."""

Program = Callable[[CohortTask, Chain, Rows, Integers, Floats, Reporter], None]


def train_cohort(
    task: CohortTask,
    observer: Observer,
    *,
    modules: ModuleRegistry | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> CohortResult:
    """Trains all members of a cohort.

    Args:
        task: What to train.
        observer: Is told logs and ends as they come, on this thread.
        modules: Where a registered module is found.
        clock: Seconds, monotonic.

    Raises:
        EpochdError: MODULE_NOT_FOUND, or the module cannot be constructed (InvalidInput).
    """
    rows = rows_of(task)
    chain: Chain | None
    if isinstance(task.model, ModuleModel):
        model = task.model
        module, slots, start = initial_module(task, lambda: construct(model, modules))
        chain = chain_of_module(module)
        reporter = Reporter(task, slots, observer, clock)
        if chain is None or chain.in_features != rows.features.shape[1]:
            called.train(task, module, slots, rows, start, reporter)
            chain = None
    else:
        chain = chain_of(task.model, rows.features.shape[1])
        start = initial_parameters(task, chain)
        reporter = Reporter(task, chain.slots, observer, clock)
    if chain is not None:
        for program, members in _programs(task, chain, rows):
            program(task, chain, rows, members, start, reporter)
    reporter.flush()
    return reporter.result()


def _programs(task: CohortTask, chain: Chain, rows: Rows) -> Iterator[tuple[Program, Integers]]:
    """Which program trains which members, by what each member is for itself."""
    by_gram = gram.eligible(task, chain, rows)
    small = (chain.size * rows.batch <= SMALL_WORK) & chain.plain & ~rows.large
    for program, chosen in (
        (gram.train, by_gram),
        (lanes.train, small & ~by_gram),
        (solo.train, ~small & ~by_gram),
    ):
        members = np.flatnonzero(chosen)
        if len(members):
            yield program, members
