"""Measured values: messages ↔ domain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from types import MappingProxyType

from epochd.v1 import validation_pb2 as pb
from epochd_server.codec.members import encode_key, stored_key
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.validation import CalibrationBin, ClassEvaluation, Evaluation, Metric

METRIC_NUMBERS: Mapping[Metric, pb.Metric.ValueType] = MappingProxyType(
    {metric: pb.Metric.Value(f"METRIC_{metric.name}") for metric in Metric}
)
METRICS: Mapping[int, Metric] = MappingProxyType(
    {int(number): metric for metric, number in METRIC_NUMBERS.items()}
)

MetricPairs = tuple[tuple[Metric, float], ...]


def encode_metrics(metrics: MetricPairs, deviations: Sequence[float] = ()) -> list[pb.MetricValue]:
    """The messages of measured values, and of their deviations over folds where there are any."""
    messages = [pb.MetricValue(metric=METRIC_NUMBERS[metric], value=value) for metric, value in metrics]
    for message, deviation in zip(messages, deviations, strict=False):
        message.deviation = deviation
    return messages


def decode_metrics(messages: Iterable[pb.MetricValue]) -> MetricPairs:
    """The measured values of messages that this server made.

    Raises:
        EpochdError: ARTIFACT_CORRUPT.
    """
    pairs = tuple((METRICS.get(message.metric), message.value) for message in messages)
    known = tuple((metric, value) for metric, value in pairs if metric is not None)
    if len(known) < len(pairs):
        raise EpochdError(Reason.ARTIFACT_CORRUPT)
    return known


def encode_evaluation(evaluation: Evaluation | None) -> pb.Evaluation | None:
    """The message of an evaluation; None for None."""
    if evaluation is None:
        return None
    return pb.Evaluation(
        rows=evaluation.rows,
        loss=evaluation.loss,
        metrics=encode_metrics(evaluation.metrics, evaluation.deviations),
        best_epoch=evaluation.best_epoch,
        classes=[
            pb.ClassEvaluation(precision=one.precision, recall=one.recall, f1=one.f1, support=one.support)
            for one in evaluation.classes
        ],
        confusion=chain.from_iterable(evaluation.confusion),
        calibration=[
            pb.CalibrationBin(confidence=one.confidence, accuracy=one.accuracy, weight=one.weight)
            for one in evaluation.calibration
        ],
        loss_deviation=evaluation.loss_deviation,
        best=None if evaluation.best is None else encode_key(evaluation.best),
    )


def stored_evaluation(message: pb.Evaluation) -> Evaluation:
    """The evaluation of a message that this server made.

    Raises:
        EpochdError: ARTIFACT_CORRUPT.
    """
    return Evaluation(
        rows=message.rows,
        loss=message.loss,
        metrics=decode_metrics(message.metrics),
        best_epoch=message.best_epoch if message.HasField("best_epoch") else None,
        loss_deviation=message.loss_deviation if message.HasField("loss_deviation") else None,
        deviations=tuple(one.deviation for one in message.metrics if one.HasField("deviation")),
        best=stored_key(message.best) if message.HasField("best") else None,
        classes=tuple(
            ClassEvaluation(precision=one.precision, recall=one.recall, f1=one.f1, support=one.support)
            for one in message.classes
        ),
        confusion=_confusion(message),
        calibration=tuple(
            CalibrationBin(confidence=one.confidence, accuracy=one.accuracy, weight=one.weight)
            for one in message.calibration
        ),
    )


def _confusion(message: pb.Evaluation) -> tuple[tuple[float, ...], ...]:
    classes = len(message.classes)
    if len(message.confusion) != classes * classes:
        raise EpochdError(Reason.ARTIFACT_CORRUPT)
    cells = iter(message.confusion)
    return tuple(tuple(islice(cells, classes)) for _ in range(classes))
