"""Preprocessing: requests → domain; what was fitted both ways, for events and for storage."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from epochd.v1 import preprocessing_pb2 as pb
from epochd_server.codec.steps import decode_step, encode_step
from epochd_server.domain.data import ColumnKind
from epochd_server.domain.errors import EpochdError, Reason, Violations
from epochd_server.domain.preprocessing import (
    Affine,
    Auto,
    Categories,
    ColumnSteps,
    Drop,
    Edges,
    Filled,
    FittedColumn,
    FittedPreprocessing,
    FittedStep,
    Passthrough,
    Preprocessing,
    Remainder,
    State,
    Step,
)

MAX_STEPS = 16
_SHOWN = 64
_ALONE = (Auto, Passthrough, Drop)
_REMAINDERS: Mapping[int, Remainder] = MappingProxyType(
    {
        pb.REMAINDER_UNSPECIFIED: Remainder.AUTO,
        pb.REMAINDER_AUTO: Remainder.AUTO,
        pb.REMAINDER_PASSTHROUGH: Remainder.PASSTHROUGH,
        pb.REMAINDER_DROP: Remainder.DROP,
    }
)
_KINDS: Mapping[int, ColumnKind] = MappingProxyType(
    {int(pb.ColumnKind.Value(f"COLUMN_KIND_{kind.name}")): kind for kind in ColumnKind}
)


def decode_preprocessing(message: pb.Preprocessing, violations: Violations) -> Preprocessing:
    """What a request asks for; field paths are relative to the Preprocessing."""
    remainder = _REMAINDERS.get(message.remainder)
    if remainder is None:
        violations.add("remainder", f"{message.remainder} is no known Remainder")
    owners: dict[str, int] = {}
    entries = []
    for index, entry in enumerate(message.columns):
        with violations.within(f"columns[{index}]"):
            _check_columns(entry, index, owners, violations)
            entries.append(ColumnSteps(columns=tuple(entry.columns), steps=_decode_steps(entry, violations)))
    return Preprocessing(columns=tuple(entries), remainder=remainder or Remainder.AUTO)


def encode_preprocessing(preprocessing: Preprocessing) -> pb.Preprocessing:
    """The message of what was asked for."""
    entries = [
        pb.ColumnSteps(columns=entry.columns, steps=map(encode_step, entry.steps))
        for entry in preprocessing.columns
    ]
    remainder = pb.Remainder.Value(f"REMAINDER_{preprocessing.remainder.name}")
    return pb.Preprocessing(columns=entries, remainder=remainder)


def encode_kind(kind: ColumnKind) -> pb.ColumnKind.ValueType:
    """The number of a column's kind."""
    return pb.ColumnKind.Value(f"COLUMN_KIND_{kind.name}")


def encode_fitted(fitted: FittedPreprocessing | None) -> pb.FittedPreprocessing | None:
    """The message of what was fitted, without the members' own numbers and without the folds."""
    if fitted is None:
        return None
    return pb.FittedPreprocessing(columns=map(_encode_column, fitted.columns))


def encode_stored_fitted(fitted: FittedPreprocessing | None) -> pb.FittedPreprocessing | None:
    """The message of what was fitted with that of all folds, for storage: it may be large."""
    message = encode_fitted(fitted)
    if fitted is not None and message is not None:
        message.folds.extend(one for fold in fitted.folds if (one := encode_fitted(fold)) is not None)
    return message


def decode_fitted(message: pb.FittedPreprocessing) -> FittedPreprocessing:
    """What :func:`encode_fitted` or :func:`encode_stored_fitted` wrote.

    Raises:
        EpochdError: ARTIFACT_CORRUPT.
    """
    columns = tuple(map(_decode_column, message.columns))
    folds = tuple(
        FittedPreprocessing(columns=tuple(map(_decode_column, fold.columns))) for fold in message.folds
    )
    outputs = [column.outputs for column in columns]
    if any([column.outputs for column in fold.columns] != outputs for fold in folds):
        raise EpochdError(Reason.ARTIFACT_CORRUPT)
    return FittedPreprocessing(columns=columns, folds=folds)


def _check_columns(entry: pb.ColumnSteps, index: int, owners: dict[str, int], violations: Violations) -> None:
    if not entry.columns:
        violations.add("columns", "must name one column or more")
    for position, name in enumerate(entry.columns):
        owner = owners.setdefault(name, index)
        if owner != index or name in entry.columns[:position]:
            violations.add(
                f"columns[{position}]", f"{name[:_SHOWN]!r} has steps already, in columns[{owner}]"
            )


def _decode_steps(entry: pb.ColumnSteps, violations: Violations) -> tuple[Step, ...]:
    count = len(entry.steps)
    if not 1 <= count <= MAX_STEPS:
        violations.add("steps", f"must be 1 to {MAX_STEPS}, are {count}")
    steps: list[Step] = []
    for index, message in enumerate(entry.steps[:MAX_STEPS]):
        with violations.within(f"steps[{index}]"):
            step = decode_step(message, violations)
            if isinstance(step, _ALONE) and count > 1:
                violations.add("", "must be the only step")
            if step is not None:
                steps.append(step)
    return tuple(steps)


def _encode_column(column: FittedColumn) -> pb.FittedColumn:
    return pb.FittedColumn(
        name=column.name,
        kind=encode_kind(column.kind),
        steps=map(_encode_fitted_step, column.steps),
        outputs=column.outputs,
        note=column.note,
        places=None if column.places is None else pb.FeaturePlaces(places=column.places),
    )


def _encode_fitted_step(fitted: FittedStep) -> pb.FittedStep:
    message = pb.FittedStep(step=encode_step(fitted.step))
    match fitted.state:
        case Affine(center=center, scale=scale, low=low, slot=slot):
            message.affine.CopyFrom(pb.AffineState(center=center, scale=scale, low=low, slot=slot))
        case Filled(numbers=numbers, text=text, slot=slot):
            message.filled.CopyFrom(pb.FilledState(numbers=numbers, text=text, slot=slot))
        case Categories(labels=labels, missing=missing):
            message.categories.CopyFrom(pb.CategoriesState(labels=labels, missing=missing))
        case Edges(edges):
            message.edges.CopyFrom(pb.EdgesState(edges=edges))
    return message


def _decode_column(message: pb.FittedColumn) -> FittedColumn:
    kind = _KINDS.get(message.kind)
    if kind is None:
        raise EpochdError(Reason.ARTIFACT_CORRUPT)
    return FittedColumn(
        name=message.name,
        kind=kind,
        steps=tuple(map(_decode_fitted_step, message.steps)),
        outputs=tuple(message.outputs),
        note=message.note,
        places=_decode_places(message),
    )


def _decode_places(message: pb.FittedColumn) -> tuple[int, ...] | None:
    if not message.HasField("places"):
        return None
    places = tuple(message.places.places)
    if len({*places} & {*range(len(message.outputs))}) < len(places):
        raise EpochdError(Reason.ARTIFACT_CORRUPT)
    return places


def _decode_fitted_step(message: pb.FittedStep) -> FittedStep:
    violations = Violations()
    step = decode_step(message.step, violations)
    if step is None or violations:
        raise EpochdError(Reason.ARTIFACT_CORRUPT)
    return FittedStep(step, _decode_state(message))


def _decode_state(message: pb.FittedStep) -> State | None:
    match message.WhichOneof("state"):
        case "affine":
            affine = message.affine
            return Affine(
                center=tuple(affine.center), scale=tuple(affine.scale), low=affine.low, slot=_slot(affine)
            )
        case "filled":
            filled = message.filled
            text = filled.text if filled.HasField("text") else None
            return Filled(numbers=tuple(filled.numbers), text=text, slot=_slot(filled))
        case "categories":
            categories = message.categories
            return Categories(labels=tuple(categories.labels), missing=categories.missing)
        case "edges":
            return Edges(tuple(message.edges.edges))
    return None


def _slot(message: Any) -> int | None:
    return message.slot if message.HasField("slot") else None
