"""Two versions side by side, field by field of their messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.message import Message

from epochd.v1 import models_pb2 as pb
from epochd.v1 import validation_pb2
from epochd_server.codec.evaluations import METRICS

_Scalar = float | str
_METRIC = validation_pb2.MetricValue.DESCRIPTOR.full_name
# A field descriptor is Any below: the stubs know two classes of it, and only one of them has what both have.
_NAMES_AND_TIMES = frozenset({"name", "create_time", "run", "weights_digest"})
_DETAILS = ("evaluation.classes", "evaluation.confusion", "evaluation.calibration")
"""Tables of their own, which are not compared cell by cell."""
_RESULTS = (
    "final_loss",
    "evaluation",
    "statistics",
    "rows",
    "epochs",
    "parameters",
    "members",
    "failed_members",
    "weights_bytes",
)
"""Shown first, and where both versions have the same, too."""


def compare_versions(base: pb.ModelVersion, other: pb.ModelVersion) -> list[pb.FieldComparison]:
    """The fields that differ, and all results."""
    ours, theirs = dict(_flat(base)), dict(_flat(other))
    paths = list(dict.fromkeys([*ours, *theirs]))
    compared = [
        _compared(path, ours, theirs)
        for path in sorted(paths, key=_rank)
        if _rank(path) < len(_RESULTS) or ours.get(path) != theirs.get(path)
    ]
    return [comparison for comparison in compared if not _is_empty(comparison)]


def _rank(path: str) -> int:
    """Results by their order, all else after them."""
    top = path.partition(".")[0].partition("[")[0]
    return _RESULTS.index(top) if top in _RESULTS else len(_RESULTS)


def _is_empty(comparison: pb.FieldComparison) -> bool:
    """Whether it only says that neither version is a fleet."""
    return comparison.same and comparison.base.number == 0 and comparison.field.endswith("members")


def _compared(path: str, ours: Mapping[str, _Scalar], theirs: Mapping[str, _Scalar]) -> pb.FieldComparison:
    base, other = ours.get(path), theirs.get(path)
    # NaN, which a version without a loss has, is the same as NaN here.
    same = base == other or (base != base and other != other)
    return pb.FieldComparison(field=path, base=_value(base), other=_value(other), same=same)


def _value(value: _Scalar | None) -> pb.ComparedValue | None:
    if value is None:
        return None
    return pb.ComparedValue(text=value) if isinstance(value, str) else pb.ComparedValue(number=value)


def _flat(version: pb.ModelVersion) -> Iterator[tuple[str, _Scalar]]:
    for path, value in _leaves(version, ""):
        if path.partition(".")[0] not in _NAMES_AND_TIMES and not path.startswith(_DETAILS):
            yield path, value


def _leaves(message: Message, prefix: str) -> Iterator[tuple[str, _Scalar]]:
    """Paths and values of all that a message holds; a scalar that cannot be unset is held always."""
    for field in message.DESCRIPTOR.fields:
        path, value = prefix + field.name, getattr(message, field.name)
        if field.is_repeated:
            yield from _entries(field, value, path)
        elif field.has_presence and not message.HasField(field.name):
            continue
        elif field.message_type is not None:
            yield from _leaves(value, f"{path}.")
        else:
            yield path, _scalar(field, value)


def _entries(field: Any, values: Any, path: str) -> Iterator[tuple[str, _Scalar]]:
    entry = field.message_type
    if entry is None:
        if values:
            yield path, ", ".join(f"{_scalar(field, value)}" for value in values)
    elif entry.GetOptions().map_entry:
        for key in sorted(values):
            yield f"{path}.{key}", _scalar(entry.fields_by_name["value"], values[key])
    elif entry.full_name == _METRIC:
        for value in values:
            yield f"{path}.{_metric_name(value.metric)}", value.value
    else:
        for index, value in enumerate(values):
            yield from _leaves(value, f"{path}[{index}].")


def _metric_name(number: int) -> str:
    metric = METRICS.get(number)
    return f"metric {number}" if metric is None else metric.value


def _scalar(field: Any, value: Any) -> _Scalar:
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return str(value) if known is None else known.name
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else float(value)
