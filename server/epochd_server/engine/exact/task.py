"""What is fitted exactly, as columns over the members.

Shapes: K members, N rows in all, d features, t targets or classes, p coefficients of one output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.checkpoints import MemberCheckpoint
from epochd_server.domain.exact_fits import ExactFit
from epochd_server.domain.specs import (
    Init,
    LinearLayer,
    LinearModel,
    Loss,
    LossKind,
    Precision,
    SequentialModel,
)
from epochd_server.domain.validation import Metric
from epochd_server.engine.arrays import kernel_array
from epochd_server.engine.class_weights import class_weighted
from epochd_server.engine.task import CohortData, Integers

Doubles = NDArray[np.float64]
Statistics = Mapping[str, Doubles]
"""By the names of :mod:`epochd_server.domain.statistics`, [M, …] each."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExactTask:
    """K fits of one signature. Everything in it is validated and resolved: no size is None."""

    model: LinearModel | SequentialModel
    loss: Loss
    fit: ExactFit
    init: Init
    """Where L-BFGS starts; the others have one optimum and start at 0."""
    precision: Precision
    """Of the result."""
    data: CohortData
    """In float64."""
    seeds: Integers
    """[K]"""
    log_every: Integers
    """[K], ≥ 1: iterations 0, every, 2·every … are logged."""
    log_parameters: NDArray[np.bool_]
    """[K]"""
    validation: CohortData | None = None
    """Held-out rows of every member, with offsets of their own; they are measured at the end only."""
    metrics: tuple[Metric, ...] = ()
    """Measured on the held-out rows."""
    resume: Mapping[int, MemberCheckpoint] = field(default_factory=dict)
    """Members that go on from where they were between two iterations, to the same bits as if never interrupted."""
    checkpoint_seconds: float = math.inf
    """How often the observer is told where members are."""

    @property
    def members(self) -> int:
        """K."""
        return len(self.seeds)

    @property
    def shared_data(self) -> bool:
        """Whether every member is fitted to all rows: each has its own."""
        return False

    @property
    def model_outputs(self) -> int:
        """Outputs of the model."""
        linears = self.model.layers if isinstance(self.model, SequentialModel) else (self.model,)
        sizes = [layer.out_features for layer in linears if isinstance(layer, LinearLayer | LinearModel)]
        return sizes[-1] or 1

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The numpy dtype of the result."""
        return np.dtype(self.precision.value)


@dataclass(frozen=True, slots=True, eq=False)
class ExactRows:
    """The rows of all members as kernels take them.

    Attributes:
        features: [N, d].
        targets: [N, t] float64, or int64 [N] class indices.
        weights: [N], those of classes included, or [0] where every row counts alike.
        starts: [K] first row of each member.
        counts: [K] its number of rows.
    """

    features: Doubles
    targets: NDArray[np.generic]
    weights: Doubles
    starts: Integers
    counts: Integers

    @property
    def numbers(self) -> Doubles:
        """The targets, where they are no class indices."""
        return cast("Doubles", self.targets)

    @property
    def labels(self) -> Integers:
        """[N] the targets as classes, where they are class indices or 0 and 1."""
        if self.targets.ndim == 1:
            return cast("Integers", self.targets)
        return (self.numbers[:, 0] > 0.5).astype(np.int64)


def exact_rows(task: ExactTask) -> ExactRows:
    """The rows of a task's members; copied only where their types must be, and weights where classes have some."""
    data = task.data
    targets = data.targets
    if task.loss.kind is LossKind.CROSS_ENTROPY:
        targets = kernel_array(targets, np.int64)
    else:
        targets = kernel_array(targets.reshape(len(targets), -1), np.float64)
    offsets = np.asarray(data.offsets, np.int64)
    weights = class_weighted(task, data, np.dtype(np.float64))
    return ExactRows(
        features=kernel_array(data.features, np.float64),
        targets=targets,
        weights=np.empty(0) if weights is None else kernel_array(weights, np.float64),
        starts=offsets[:-1].copy(),
        counts=np.diff(offsets),
    )
