"""What a worker does before it is ready: one tiny training of each common kind, so that no user's run waits for it."""

from __future__ import annotations

import itertools
from collections.abc import Collection

import numpy as np

from epochd_server.domain.data import TrainingArrays
from epochd_server.domain.specs import (
    ActivationLayer,
    GradientFit,
    Init,
    LinearLayer,
    LinearModel,
    Logging,
    Loss,
    LossKind,
    Model,
    Optimizer,
    OptimizerKind,
    Precision,
    SequentialModel,
    TrainingSpec,
)
from epochd_server.domain.work import CohortWork, RunWork
from epochd_server.engine.cohort import EndBatch, LogBatch, train_cohort
from epochd_server.executor.packing import pack
from epochd_server.executor.tasks import cohort_task

_MODELS: tuple[Model, ...] = (
    LinearModel(in_features=1, out_features=1),
    SequentialModel(
        layers=(
            LinearLayer(in_features=1, out_features=2),
            ActivationLayer(function="relu"),
            LinearLayer(in_features=2, out_features=1),
        )
    ),
)
_OPTIMIZERS = (OptimizerKind.SGD, OptimizerKind.ADAM)


class _Deaf:
    """An observer that wants to know nothing."""

    def logs(self, batch: LogBatch) -> None:
        """Passes over log points."""

    def ended(self, batch: EndBatch) -> None:
        """Passes over ends."""

    def stopped_members(self) -> Collection[int]:
        """Nobody."""
        return ()


def warm_up() -> None:
    """Trains the common kinds once; takes long only where the engine's kernels are not in the cache on disk."""
    for model, kind in itertools.product(_MODELS, _OPTIMIZERS):
        run = RunWork(run_id="warm-up", spec=_spec(model, kind), data=_rows())
        task = cohort_task(pack(CohortWork(cohort_id="warm-up", runs=(run,))), np.array([0]))
        train_cohort(task, _Deaf())


def _spec(model: Model, kind: OptimizerKind) -> TrainingSpec:
    return TrainingSpec(
        model=model,
        loss=Loss(kind=LossKind.MSE),
        fit=GradientFit(optimizer=Optimizer(kind=kind, lr=0.01), epochs=2),
        init=Init.DEFAULT,
        precision=Precision.FLOAT32,
        seed=0,
        logging=Logging(every=1, parameters=True),
    )


def _rows() -> TrainingArrays:
    return TrainingArrays(
        features=np.ones((3, 1), np.float32),
        targets=np.ones((3, 1), np.float32),
        feature_columns=("x0",),
        target_columns=("y",),
    )
