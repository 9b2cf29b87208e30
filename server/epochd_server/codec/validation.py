"""What is held out, and what is measured on it: messages ↔ domain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from epochd.v1 import validation_pb2 as pb
from epochd_server.codec.checks import bounded_integer, not_negative
from epochd_server.codec.evaluations import METRIC_NUMBERS, METRICS
from epochd_server.domain.errors import EpochdError, Reason, Violations
from epochd_server.domain.resources import dataset_name, parse_dataset
from epochd_server.domain.specs import CLASSIFICATION_LOSSES, Loss
from epochd_server.domain.validation import (
    EarlyStopping,
    Folds,
    GivenRows,
    HoldOut,
    Metric,
    Split,
    Validation,
)

_MAX_INT64 = 2**63 - 1
_SHOWN = 80
_DEFAULT = EarlyStopping()
_SPLITS: Mapping[str, Split] = MappingProxyType(
    {
        "random": Split.RANDOM,
        "stratified": Split.STRATIFIED,
        "time_column": Split.TIME,
        "group_column": Split.GROUP,
    }
)
_FIELDS: Mapping[Split, str] = MappingProxyType({split: field for field, split in _SPLITS.items()})


def decode_validation(
    message: pb.Validation, loss: Loss | None, folds: int, violations: Violations
) -> Validation | None:
    """What a request holds out; field paths are relative to ``validation``.

    Args:
        message: The request's; empty where it has none.
        loss: The training's; None where that is invalid.
        folds: Of its sweep; 0 is none.
        violations: Takes everything wrong.

    Returns:
        None where ``rows`` is missing.
    """
    is_classifier = loss is not None and loss.kind in CLASSIFICATION_LOSSES
    rows = _decode_rows(message, folds, is_classifier, violations)
    if isinstance(rows, HoldOut | Folds) and rows.split is Split.STRATIFIED and loss and not is_classifier:
        violations.add("split.stratified", "is for classifiers: a regression has no classes")
    metrics = _decode_metrics(message.metrics, loss, is_classifier, violations)
    stopping = None
    if message.HasField("early_stopping"):
        with violations.within("early_stopping"):
            stopping = _decode_stopping(message.early_stopping, loss, is_classifier, violations)
    if rows is None:
        return None
    return Validation(rows=rows, metrics=metrics, early_stopping=stopping)


def encode_validation(validation: Validation | None) -> pb.Validation | None:
    """The message of what is held out, without rows that came with a request; None for None."""
    if validation is None:
        return None
    message = pb.Validation(metrics=[METRIC_NUMBERS[metric] for metric in validation.metrics])
    if validation.early_stopping is not None:
        message.early_stopping.CopyFrom(_encode_stopping(validation.early_stopping))
    rows = validation.rows
    if isinstance(rows, GivenRows):
        if rows.dataset is None:
            message.table.SetInParent()
        else:
            message.dataset = dataset_name(rows.dataset)
        return message
    if isinstance(rows, HoldOut):
        message.fraction = rows.fraction
    else:
        message.folds = rows.count
    setattr(message.split, _FIELDS[rows.split], rows.column or True)
    return message


def stored_validation(message: pb.Validation, loss: Loss) -> Validation:
    """What this server once wrote into a message.

    Raises:
        EpochdError: ARTIFACT_CORRUPT.
    """
    violations = Violations()
    folds = message.folds if message.WhichOneof("rows") == "folds" else 0
    validation = decode_validation(message, loss, folds, violations)
    if violations or validation is None:
        raise EpochdError(Reason.ARTIFACT_CORRUPT)
    return validation


def _decode_rows(
    message: pb.Validation, folds: int, is_classifier: bool, violations: Violations
) -> HoldOut | Folds | GivenRows | None:
    kind = message.WhichOneof("rows")
    if folds:
        if kind not in (None, "folds"):
            violations.add(str(kind), "is not for a sweep over folds, which are held out in turn")
        split, column = _decode_split(message, is_classifier, violations)
        return Folds(count=folds, split=split, column=column)
    if kind == "fraction":
        if not 0 < message.fraction < 1:
            violations.add("fraction", f"must be > 0 and < 1, is {message.fraction:g}")
        split, column = _decode_split(message, is_classifier, violations)
        return HoldOut(fraction=message.fraction, split=split, column=column)
    if kind == "folds":
        violations.add("folds", "is for answers; give sweep.folds")
        return None
    if message.HasField("split"):
        violations.add("split", "is for a fraction or folds")
    if kind is None:
        violations.add("rows", "must be set: fraction, dataset, tensors or table")
        return None
    if kind != "dataset":
        return GivenRows()
    digest = parse_dataset(message.dataset)
    if digest is None:
        shown = message.dataset[:_SHOWN]
        violations.add("dataset", f"must be datasets/ and 64 lower-case hex digits, is {shown!r}")
    return GivenRows(dataset=digest)


def _decode_split(
    message: pb.Validation, is_classifier: bool, violations: Violations
) -> tuple[Split, str | None]:
    kind = message.split.WhichOneof("kind")
    if kind is None:
        return (Split.STRATIFIED if is_classifier else Split.RANDOM), None
    value = getattr(message.split, kind)
    if not value:
        rule = "must name a column" if isinstance(value, str) else "must be true where it is set"
        violations.add(f"split.{kind}", rule)
    return _SPLITS[kind], value if isinstance(value, str) else None


def _decode_metrics(
    numbers: Iterable[int], loss: Loss | None, is_classifier: bool, violations: Violations
) -> tuple[Metric, ...]:
    metrics: dict[Metric, None] = {}
    for index, number in enumerate(numbers):
        with violations.within(f"metrics[{index}]"):
            metric = _decode_metric(number, loss, is_classifier, violations)
            if metric in metrics:
                violations.add("", "is listed twice")
        if metric is not None:
            metrics[metric] = None
    return tuple(metrics)


def _decode_metric(
    number: int, loss: Loss | None, is_classifier: bool, violations: Violations
) -> Metric | None:
    metric = METRICS.get(number)
    if metric is None:
        violations.add("", f"{number} is no known Metric")
    elif loss is not None and metric.of_classes != is_classifier:
        whom, what = ("classifiers", "a regression") if metric.of_classes else ("regressions", "a classifier")
        violations.add("", f"{metric.value} measures {whom}; {loss.kind.value} trains {what}")
    return metric


def _decode_stopping(
    message: pb.EarlyStopping, loss: Loss | None, is_classifier: bool, violations: Violations
) -> EarlyStopping:
    metric = None
    if message.metric:
        with violations.within("metric"):
            metric = _decode_metric(message.metric, loss, is_classifier, violations)
    patience, every = _DEFAULT.patience, _DEFAULT.every
    if message.HasField("patience"):
        patience = bounded_integer(message.patience, 1, _MAX_INT64, "patience", violations)
    if message.HasField("every"):
        every = bounded_integer(message.every, 1, _MAX_INT64, "every", violations)
    return EarlyStopping(
        metric=metric,
        patience=patience,
        min_delta=not_negative(message.min_delta, "min_delta", violations),
        restore_best=message.restore_best if message.HasField("restore_best") else True,
        every=every,
    )


def _encode_stopping(stopping: EarlyStopping) -> pb.EarlyStopping:
    return pb.EarlyStopping(
        metric=pb.METRIC_UNSPECIFIED if stopping.metric is None else METRIC_NUMBERS[stopping.metric],
        patience=stopping.patience,
        min_delta=stopping.min_delta,
        restore_best=stopping.restore_best,
        every=stopping.every,
    )
