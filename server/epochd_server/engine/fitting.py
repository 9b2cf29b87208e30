"""The entry to fitting: gradient descent and exact fits, told apart by their tasks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

from epochd_server.domain.exact_fits import LeastSquaresFit, NewtonFit
from epochd_server.engine.chain import chain_of
from epochd_server.engine.cohort import train_cohort
from epochd_server.engine.evaluating import EvaluatingObserver
from epochd_server.engine.exact.lbfgs import fit_lbfgs
from epochd_server.engine.exact.least_squares import fit_least_squares
from epochd_server.engine.exact.newton import fit_newton
from epochd_server.engine.exact.reporting import ExactReporter
from epochd_server.engine.exact.task import ExactTask
from epochd_server.engine.modules import ModuleRegistry
from epochd_server.engine.task import CohortTask, Observer

Task: TypeAlias = CohortTask | ExactTask


def fit_members(
    task: Task,
    observer: Observer,
    *,
    modules: ModuleRegistry | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Trains all members of a task; the observer learns what becomes of them.

    Args:
        task: What to train.
        observer: Is told logs and ends as they come, on this thread.
        modules: Where a registered module is found.
        clock: Seconds, monotonic.

    Raises:
        EpochdError: MODULE_NOT_FOUND, or the module cannot be constructed (InvalidInput).
    """
    if isinstance(task, CohortTask):
        train_cohort(task, observer, modules=modules, clock=clock)
        return
    chain = chain_of(task.model, task.data.features.shape[1])
    if task.validation is not None:
        observer = EvaluatingObserver(task, task.validation, observer)
    reporter = ExactReporter(task, chain, observer, clock)
    if isinstance(task.fit, LeastSquaresFit):
        fit_least_squares(task, task.fit, chain.has_bias, reporter)
    elif isinstance(task.fit, NewtonFit):
        fit_newton(task, task.fit, chain.has_bias, reporter)
    else:
        fit_lbfgs(task, task.fit, chain, reporter)
    reporter.flush()
