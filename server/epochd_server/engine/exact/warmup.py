"""Loads, or compiles once for a machine, the kernels of exact fits."""

from __future__ import annotations

import numpy as np

from epochd_server.domain.exact_fits import ExactFit, LbfgsFit, LeastSquaresFit, NewtonFit
from epochd_server.domain.specs import Init, LinearModel, Loss, LossKind, Precision
from epochd_server.engine.exact.task import ExactTask
from epochd_server.engine.fitting import fit_members
from epochd_server.engine.observers import SilentObserver
from epochd_server.engine.task import CohortData


def warm_up_exact() -> None:
    """Makes the first exact fit of this process as fast as all others; they all compute in float64."""
    for fit, kind in (
        (LeastSquaresFit(), LossKind.MSE),
        (NewtonFit(), LossKind.BCE_WITH_LOGITS),
        (NewtonFit(), LossKind.CROSS_ENTROPY),
        (LbfgsFit(l2=1.0), LossKind.MSE),
    ):
        fit_members(_task(fit, kind), SilentObserver())


def _task(fit: ExactFit, kind: LossKind) -> ExactTask:
    softmax = kind is LossKind.CROSS_ENTROPY
    one = np.ones(1, np.int64)
    data = CohortData(
        features=np.array([[0.0], [1.0], [2.0], [3.0]]),
        targets=np.array([0, 1, 0, 1], np.int64 if softmax else np.float64),
        offsets=np.array([0, 4]),
    )
    return ExactTask(
        model=LinearModel(in_features=1, out_features=2 if softmax else 1),
        loss=Loss(kind=kind),
        fit=fit,
        init=Init.ZEROS,
        precision=Precision.FLOAT64,
        data=data,
        seeds=one,
        log_every=one,
        log_parameters=one > 1,
    )
