"""Loads, or compiles once for a machine, every kernel that trainings and predictions use."""

from __future__ import annotations

import numpy as np

from epochd_server.domain.specs import Init, LinearModel, Loss, LossKind, OptimizerKind, Precision
from epochd_server.engine.chain import Slot
from epochd_server.engine.cohort import CohortData, CohortTask, Hyperparameters, train_cohort
from epochd_server.engine.exact.warmup import warm_up_exact
from epochd_server.engine.inference import Predictor
from epochd_server.engine.observers import SilentObserver
from epochd_server.engine.programs.gram import LEAST_ROWS
from epochd_server.engine.row_optimizer import RowOptimizer
from epochd_server.engine.shuffling import epoch_permutation


def warm_up(precision: Precision) -> None:
    """Makes the first training and the first prediction of this process as fast as all others.

    Takes well under a second where the kernels are in the cache (see
    :func:`epochd_server.engine.compiling.kernel`), and some tens of seconds the first time on a machine. Every
    kernel has one set of argument types in each precision, so nothing is left to be compiled later.
    """
    epoch_permutation(0, 0, 2)
    for rows in (2, LEAST_ROWS):  # lanes, then Gram matrices
        task = _task(precision, rows)
        train_cohort(task, SilentObserver())
    warm_up_prediction(precision)
    if precision is Precision.FLOAT64:
        warm_up_exact()
    one, slots = np.ones((1, 1), task.dtype), [Slot("weight", (1, 1), 0)]
    RowOptimizer(task, np.zeros(1, np.int64), slots).step(one, one.copy(), np.ones(1, np.bool_))


def warm_up_prediction(precision: Precision) -> None:
    """Makes the first prediction of this process as fast as all others; part of :func:`warm_up`."""
    dtype = np.dtype(precision.value)
    parameters = {"linear.weight": np.ones((1, 1), dtype), "linear.bias": np.ones(1, dtype)}
    Predictor(LinearModel(in_features=1, out_features=1), parameters).predict(np.ones((1, 1), dtype))


def _task(precision: Precision, rows: int) -> CohortTask:
    dtype = np.dtype(precision.value)
    zero = np.zeros(1)
    data = CohortData(
        features=np.ones((rows, 1), dtype),
        targets=np.ones(rows, dtype),
        offsets=np.array([0, rows], np.int64),
    )
    return CohortTask(
        model=LinearModel(in_features=1, out_features=1),
        loss=Loss(kind=LossKind.MSE),
        optimizer_kind=OptimizerKind.SGD,
        batch_size=None,
        shuffle=True,
        accumulation_steps=1,
        init=Init.ZEROS,
        precision=precision,
        data=data,
        validation=data,
        epochs=np.ones(1, np.int64),
        seeds=np.zeros(1, np.int64),
        hyperparameters=Hyperparameters(
            lr=zero,
            weight_decay=zero,
            momentum=zero,
            dampening=zero,
            beta1=zero,
            beta2=zero,
            eps=zero,
            alpha=zero,
            l1=zero,
            l2=zero,
        ),
        log_every=np.ones(1, np.int64),
        log_parameters=np.zeros(1, np.bool_),
    )
