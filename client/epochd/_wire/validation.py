"""Validation as messages, and evaluations back again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochd._wire.keys import decode_key
from epochd.errors import invalid
from epochd.v1 import validation_pb2
from epochd.validation import METRICS, CalibrationBin, ClassEvaluation, EarlyStopping, Evaluation, HoldOut

_DEFAULT_FRACTION = 0.2


def encode_rules(
    hold_out: HoldOut | None, metrics: Sequence[str], stopping: EarlyStopping | int | None, *, folds: bool
) -> validation_pb2.Validation:
    """The message of what is held out and measured, without rows of their own.

    Args:
        hold_out: How rows are held out; None: they are rows of their own, or folds.
        metrics: Names of what is measured.
        stopping: When training stops early; a number is its patience.
        folds: Whether a sweep over folds says which rows are held out.

    Raises:
        InvalidArgument: When a metric has no such name.
    """
    message = validation_pb2.Validation(
        metrics=[_metric(name, f"validation.metrics[{index}]") for index, name in enumerate(metrics)]
    )
    if stopping is not None:
        rule = EarlyStopping(patience=stopping) if isinstance(stopping, int) else stopping
        message.early_stopping.CopyFrom(_stopping(rule))
    if hold_out is not None:
        if hold_out.fraction is not None or not folds:
            message.fraction = _DEFAULT_FRACTION if hold_out.fraction is None else hold_out.fraction
        _split(hold_out, message)
    return message


def decode_metrics(messages: Iterable[validation_pb2.MetricValue]) -> dict[str, float]:
    """Values by the metrics' names, in the order they came."""
    return {_name(message.metric): message.value for message in messages}


def decode_evaluation(message: validation_pb2.Evaluation, classes: NDArray[Any] | None) -> Evaluation:
    """The evaluation of a message; ``classes`` are the model's labels."""
    labels = [] if classes is None else classes.tolist()
    count = len(message.classes)
    return Evaluation(
        rows=message.rows,
        loss=message.loss,
        metrics=decode_metrics(message.metrics),
        best_epoch=message.best_epoch if message.HasField("best_epoch") else None,
        classes=_classes(message, labels or range(count)),
        confusion=np.array(message.confusion).reshape(count, count) if count else None,
        calibration=tuple(
            CalibrationBin(confidence=one.confidence, accuracy=one.accuracy, weight=one.weight)
            for one in message.calibration
        ),
        loss_deviation=message.loss_deviation if message.HasField("loss_deviation") else None,
        deviations={_name(one.metric): one.deviation for one in message.metrics if one.HasField("deviation")},
        best=decode_key(message.best) if message.HasField("best") else None,
    )


def _classes(
    message: validation_pb2.Evaluation, labels: Iterable[str | int]
) -> Mapping[str | int, ClassEvaluation]:
    return {
        label: ClassEvaluation(precision=one.precision, recall=one.recall, f1=one.f1, support=one.support)
        for label, one in zip(labels, message.classes, strict=False)
    }


def _split(hold_out: HoldOut, message: validation_pb2.Validation) -> None:
    if hold_out.time is not None:
        message.split.time_column = hold_out.time
    elif hold_out.group is not None:
        message.split.group_column = hold_out.group
    elif hold_out.stratify is not None:
        setattr(message.split, "stratified" if hold_out.stratify else "random", True)


def _stopping(rule: EarlyStopping) -> validation_pb2.EarlyStopping:
    metric = validation_pb2.METRIC_UNSPECIFIED
    if rule.metric is not None:
        metric = _metric(rule.metric, "validation.early_stopping.metric")
    return validation_pb2.EarlyStopping(
        metric=metric,
        patience=rule.patience,
        min_delta=rule.min_delta,
        restore_best=rule.restore_best,
        every=rule.every,
    )


def _metric(name: str, field: str) -> validation_pb2.Metric.ValueType:
    if name not in METRICS:
        raise invalid(field, f"is {name!r}; there are {', '.join(METRICS)}")
    return validation_pb2.Metric.Value(f"METRIC_{name.upper()}")


def _name(metric: validation_pb2.Metric.ValueType) -> str:
    if metric not in validation_pb2.Metric.values():
        return f"metric {metric}"
    return validation_pb2.Metric.Name(metric).removeprefix("METRIC_").lower()
