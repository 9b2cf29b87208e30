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

_MEDIAN = 0.5
_PRECISION, _RECALL, _F1 = range(3)

_OF_REGRESSIONS: Mapping[Metric, Callable[[RegressionSample], float]] = MappingProxyType(
    {
        Metric.MSE: regression.mse,
        Metric.RMSE: regression.rmse,
        Metric.MAE: regression.mae,
        Metric.MAPE: regression.mape,
        Metric.R2: regression.r2,
    }
)

_OF_PROBABILITIES: Mapping[Metric, Callable[[ClassSample], float]] = MappingProxyType(
    {
        Metric.ROC_AUC: ranking.roc_auc,
        Metric.AVERAGE_PRECISION: ranking.average_precision,
        Metric.LOG_LOSS: probabilities.log_loss,
        Metric.BRIER: probabilities.brier,
        Metric.CALIBRATION_ERROR: probabilities.calibration_error,
    }
)

_OF_LABELS: Mapping[Metric, Callable[[ClassSample, Floats], float]] = MappingProxyType(
    {
        Metric.ACCURACY: lambda _, confusion: labels.accuracy(confusion),
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


def measure(
    metrics: Sequence[Metric], loss: Loss, outputs: Array, targets: Array, weights: Array | None = None
) -> NDArray[np.float64]:
    """Metrics of one model on some rows.

    Args:
        metrics: Which ones; those of regressions or those of classifiers, as the loss is for.
        loss: What the model was trained with: it says what outputs mean.
        outputs: [n, outputs], as the model computes them (logits of a classifier), of any float type.
        targets: As the loss takes them: [n, t]; int64 [n] for cross_entropy, [n, 1] of 0 and 1 for bce_with_logits.
        weights: [n], ≥ 0; None where all rows count alike.

    Returns:
        float64 [metrics]; NaN where a metric is not defined on these rows, there are none, or outputs are not finite.
    """
    if not len(outputs) or not np.isfinite(outputs).all():
        return np.full(len(metrics), np.nan)
    sample = sample_of(loss, outputs, targets, weights)
    return np.array(_values(metrics, loss, sample), np.float64)


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


def _values(metrics: Sequence[Metric], loss: Loss, sample: Sample) -> list[float]:
    if isinstance(sample, RegressionSample):
        return [_of_regression(metric, loss, sample) for metric in metrics]
    confusion = labels.confusion_matrix(sample)
    return [
        _OF_LABELS[metric](sample, confusion) if metric in _OF_LABELS else _OF_PROBABILITIES[metric](sample)
        for metric in metrics
    ]


def _of_regression(metric: Metric, loss: Loss, sample: RegressionSample) -> float:
    if metric is Metric.PINBALL:
        return regression.pinball(sample, _quantile(loss))
    return _OF_REGRESSIONS[metric](sample)


def _quantile(loss: Loss) -> float:
    """That of a quantile loss; the median for the others."""
    return loss.quantile if loss.kind is LossKind.QUANTILE else _MEDIAN
