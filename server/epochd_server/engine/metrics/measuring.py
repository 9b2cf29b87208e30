"""Metrics by name, and what a trained model is told of its held-out rows.

Legend: n rows, t targets, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.specs import Loss, LossKind
from epochd_server.domain.validation import ClassEvaluation, Evaluation, Metric
from epochd_server.engine.metrics import labels, probabilities, ranking, regression
from epochd_server.engine.metrics.predictions import (
    Array,
    ClassSample,
    Floats,
    RegressionSample,
    Sample,
    sample_of,
)
from epochd_server.engine.metrics.segments import Segments

_MEDIAN = 0.5
_PRECISION, _RECALL, _F1 = range(3)

_OF_REGRESSIONS: Mapping[Metric, Callable[[RegressionSample, Segments], Floats]] = MappingProxyType(
    {
        Metric.MSE: regression.mse,
        Metric.RMSE: regression.rmse,
        Metric.MAE: regression.mae,
        Metric.MAPE: regression.mape,
        Metric.R2: regression.r2,
    }
)

_OF_CLASSES: Mapping[Metric, Callable[[ClassSample, Segments], Floats]] = MappingProxyType(
    {
        Metric.ACCURACY: labels.accuracy,
        Metric.LOG_LOSS: probabilities.log_loss,
        Metric.BRIER: probabilities.brier,
    }
)
"""Of all members at once."""

_OF_RANKS: Mapping[Metric, Callable[[ClassSample], float]] = MappingProxyType(
    {
        Metric.ROC_AUC: ranking.roc_auc,
        Metric.AVERAGE_PRECISION: ranking.average_precision,
        Metric.CALIBRATION_ERROR: probabilities.calibration_error,
    }
)
"""Member by member."""

_OF_LABELS: Mapping[Metric, Callable[[ClassSample, Floats], float]] = MappingProxyType(
    {
        Metric.BALANCED_ACCURACY: lambda _, confusion: labels.balanced_accuracy(confusion),
        Metric.PRECISION: partial(labels.binary_or_macro, score=_PRECISION),
        Metric.RECALL: partial(labels.binary_or_macro, score=_RECALL),
        Metric.F1: partial(labels.binary_or_macro, score=_F1),
        Metric.PRECISION_MACRO: partial(labels.macro, score=_PRECISION),
        Metric.RECALL_MACRO: partial(labels.macro, score=_RECALL),
        Metric.F1_MACRO: partial(labels.macro, score=_F1),
        Metric.PRECISION_MICRO: lambda _, confusion: labels.micro(confusion),
        Metric.RECALL_MICRO: lambda _, confusion: labels.micro(confusion),
        Metric.F1_MICRO: lambda _, confusion: labels.micro(confusion),
    }
)
"""Member by member, from its confusion matrix."""


def measure(
    metrics: Sequence[Metric], loss: Loss, outputs: Array, targets: Array, weights: Array | None = None
) -> NDArray[np.float64]:
    """Metrics of one model on some rows; as :func:`measure_members`.

    Returns:
        float64 [metrics].
    """
    counts = np.array([len(outputs)])
    values: NDArray[np.float64] = measure_members(metrics, loss, outputs, targets, weights, counts)[0]
    return values


def measure_members(
    metrics: Sequence[Metric],
    loss: Loss,
    outputs: Array,
    targets: Array,
    weights: Array | None,
    counts: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Metrics of many models, each on its own rows; none depends on the rows of another.

    Args:
        metrics: Which ones; those of regressions or those of classifiers, as the loss is for.
        loss: What the models were trained with: it says what outputs mean.
        outputs: [n, outputs], as the models compute them (logits of classifiers), of any float type; one model's rows
            after the other's.
        targets: As the loss takes them: [n, t]; int64 [n] for cross_entropy, [n, 1] of 0 and 1 for bce_with_logits.
        weights: [n], ≥ 0; None where all rows count alike.
        counts: int64 [M], rows of each model; they add up to n.

    Returns:
        float64 [M, metrics]; NaN where a metric is not defined on a model's rows, there are none, or its outputs are
        not finite.
    """
    found = np.full((len(counts), len(metrics)), np.nan)
    usable = _usable(outputs, counts)
    if not metrics or not usable.any():
        return found
    rows = slice(None) if usable.all() else np.repeat(usable, counts)
    own_weights = None if weights is None else weights[rows]
    sample = sample_of(loss, outputs[rows], targets[rows], own_weights)
    found[usable] = _columns(metrics, loss, sample, Segments(counts[usable]))
    return found


def _usable(outputs: Array, counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Bool [M]: models with rows, all of whose outputs are finite."""
    usable: NDArray[np.bool_] = counts > 0
    finite = np.isfinite(outputs).all(axis=1)
    if not finite.all():
        owners = np.repeat(np.arange(len(counts)), counts)
        usable[owners[~finite]] = False
    return usable


def _columns(metrics: Sequence[Metric], loss: Loss, sample: Sample, members: Segments) -> Floats:
    """[M, metrics]"""
    if isinstance(sample, RegressionSample):
        columns = [_of_regressions(metric, loss, sample, members) for metric in metrics]
        return np.stack(columns, axis=1)
    found = {metric: _OF_CLASSES[metric](sample, members) for metric in metrics if metric in _OF_CLASSES}
    others = [metric for metric in metrics if metric not in _OF_CLASSES]
    if others:
        each = np.array([_of_one(others, sample.part(rows)) for rows in members.slices()])
        found.update(zip(others, each.T, strict=True))
    return np.stack([found[metric] for metric in metrics], axis=1)


def _of_one(metrics: Sequence[Metric], sample: ClassSample) -> list[float]:
    """Metrics that are measured member by member."""
    confusion = labels.confusion_matrix(sample) if _OF_LABELS.keys() & set(metrics) else np.empty((0, 0))
    return [
        _OF_LABELS[metric](sample, confusion) if metric in _OF_LABELS else _OF_RANKS[metric](sample)
        for metric in metrics
    ]


def _of_regressions(metric: Metric, loss: Loss, sample: RegressionSample, members: Segments) -> Floats:
    if metric is Metric.PINBALL:
        return regression.pinball(sample, members, _quantile(loss))
    return _OF_REGRESSIONS[metric](sample, members)


def evaluate(
    metrics: Sequence[Metric],
    loss: Loss,
    value: float,
    outputs: Array,
    targets: Array,
    weights: Array | None = None,
) -> Evaluation:
    """All that is known of a trained model's outputs on its held-out rows.

    Args:
        metrics: As for :func:`measure`.
        loss: As for :func:`measure`.
        value: The loss on these rows.
        outputs: As for :func:`measure`.
        targets: As for :func:`measure`.
        weights: As for :func:`measure`.
    """
    measured = measure(metrics, loss, outputs, targets, weights).tolist()
    pairs = tuple(zip(metrics, measured, strict=True))
    if not len(outputs) or not np.isfinite(outputs).all():
        return Evaluation(rows=len(outputs), loss=value, metrics=pairs)
    sample = sample_of(loss, outputs, targets, weights)
    if isinstance(sample, RegressionSample):
        return Evaluation(rows=len(outputs), loss=value, metrics=pairs)
    confusion = labels.confusion_matrix(sample)
    return Evaluation(
        rows=len(outputs),
        loss=value,
        metrics=pairs,
        classes=_classes(confusion),
        confusion=tuple(map(tuple, confusion.tolist())),
        calibration=probabilities.calibration_bins(sample),
    )


def _classes(confusion: Floats) -> tuple[ClassEvaluation, ...]:
    columns = (*labels.class_scores(confusion).tolist(), confusion.sum(1).tolist())
    return tuple(
        ClassEvaluation(precision=precision, recall=recall, f1=f1, support=support)
        for precision, recall, f1, support in zip(*columns, strict=True)
    )


def _quantile(loss: Loss) -> float:
    """That of a quantile loss; the median for the others."""
    return loss.quantile if loss.kind is LossKind.QUANTILE else _MEDIAN
