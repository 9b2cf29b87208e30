"""Which runs may be trained in one tensor program, and how long a run may take."""

from __future__ import annotations

import math
from collections.abc import Hashable

from epochd_server.domain.exact_fits import ExactFit
from epochd_server.domain.runs import Started
from epochd_server.domain.specs import (
    ActivationLayer,
    Fit,
    GradientFit,
    Layer,
    Model,
    ModuleModel,
    Precision,
    SequentialModel,
)

_SECONDS_PER_STEP = 1e-6
_SECONDS_PER_FLEET_STEP = 1e-7
_SECONDS_PER_PARAMETER_AND_ROW = 1e-9
_EFFORT_STEP = 4.0
_USUAL_ITERATIONS = 20
"""What an exact fit that iterates takes as a rule, however many it may."""
_ITEM_BYTES = {Precision.FLOAT32: 4, Precision.FLOAT64: 8}


def estimated_seconds(started: Started) -> float:
    """Rough seconds of training on one core: the measure of shares, cohorts and parts of fleets.

    Right within a factor of ten or so.
    """
    fit, members = started.spec.fit, max(started.members, 1)
    if not isinstance(fit, GradientFit):
        return _exact_seconds(fit, started, members)
    rows = started.rows if started.spec.sweep is None else started.rows * members
    batches = members if fit.batch_size is None else max(members, math.ceil(rows / fit.batch_size))
    arithmetic = float(fit.epochs) * rows * max(started.parameters, 1)
    step = _SECONDS_PER_FLEET_STEP if started.members else _SECONDS_PER_STEP
    return fit.epochs * batches * step + arithmetic * _SECONDS_PER_PARAMETER_AND_ROW


def _exact_seconds(fit: ExactFit, started: Started, members: int) -> float:
    """Of an exact fit: products of all pairs of coefficients a row, as many times as it may take."""
    iterations = min(fit.epochs, _USUAL_ITERATIONS)
    products = float(started.rows) * started.parameters * max(len(started.feature_columns) + 1, 1)
    return iterations * (products * _SECONDS_PER_PARAMETER_AND_ROW + members * _SECONDS_PER_STEP)


def rows_bytes(started: Started) -> int:
    """Bytes that a run's rows take in a worker."""
    columns = len(started.feature_columns) + len(started.target_columns)
    return started.rows * columns * _ITEM_BYTES[started.spec.data_precision]


def signature(started: Started) -> Hashable:
    """What runs must have in common to share a cohort.

    Learning rates, the optimizer's and the penalty's other numbers, epochs, seeds and logging may differ. Rows count
    by the power of two they fit in, and the expected effort by powers of four: a short run must not sit behind a long
    one.
    """
    spec, fit = started.spec, started.spec.fit
    return (
        _frozen_model(spec.model),
        spec.loss,
        _fit_signature(fit),
        None if spec.validation is None else (spec.validation.metrics, spec.validation.early_stopping),
        (spec.init, spec.precision),
        (len(started.feature_columns), len(started.target_columns)),
        None if started.classes is None else len(started.classes),
        max(started.rows - 1, 0).bit_length(),
        math.floor(math.log(estimated_seconds(started), _EFFORT_STEP)),
    )


def _fit_signature(fit: Fit) -> Hashable:
    if not isinstance(fit, GradientFit):
        return fit
    optimizer = fit.optimizer
    return (
        (optimizer.kind, optimizer.nesterov, optimizer.centered),
        (fit.batch_size, fit.shuffle, fit.accumulation_steps),
        (fit.schedule, fit.warmup, fit.clipping, fit.penalty is None),
    )


def _frozen_model(model: Model) -> Hashable:
    if isinstance(model, SequentialModel):
        return tuple(_frozen_layer(layer) for layer in model.layers)
    if isinstance(model, ModuleModel):
        # 1, 1.0 and True are equal in Python but not to a module
        return (model.name, *((k, type(v), v) for k, v in sorted(model.arguments.items())))
    return model


def _frozen_layer(layer: Layer) -> Hashable:
    if isinstance(layer, ActivationLayer):
        return (layer.function, layer.approximate, *sorted(layer.parameters.items()))
    return layer
