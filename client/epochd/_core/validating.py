"""The ``validation`` argument of ``train``, made into a request; cross-validations out of members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from epochd._core.data import gather
from epochd._core.uploading import Upload
from epochd._wire.keys import decode_key
from epochd._wire.validation import decode_metrics, encode_rules
from epochd.errors import FailedPrecondition, invalid
from epochd.keys import key_parts
from epochd.v1 import models_pb2, validation_pb2
from epochd.validation import Combination, CrossValidation, EarlyStopping, HoldOut, ranked

FOLD = "fold"


@dataclass(frozen=True, slots=True)
class ValidationPlan:
    """The message, and what has to be uploaded before it."""

    message: validation_pb2.Validation | None = None
    upload: Upload | None = None


def plan_validation(
    validation: Any,
    metrics: str | Sequence[str],
    early_stopping: EarlyStopping | int | None,
    columns: Mapping[str, Any],
    *,
    room: int,
    dtype: str,
    folds: bool,
) -> ValidationPlan:
    """What ``train`` holds out; see there.

    Args:
        validation: As given.
        metrics: As given.
        early_stopping: As given.
        columns: The arguments of the training that name columns: those of the held-out rows too.
        room: Bytes that held-out rows may take in the request.
        dtype: The training's.
        folds: Whether its sweep is over folds.

    Raises:
        InvalidArgument: When the arguments do not fit each other.
    """
    names = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    if isinstance(validation, bool):
        raise invalid("validation", "is a fraction, an epochd.HoldOut or rows, no truth value")
    if validation is None and not folds:
        if names or early_stopping is not None:
            raise invalid("validation", "metrics and early_stopping need held-out rows: validation=0.2, say")
        return ValidationPlan()
    if isinstance(validation, int | float):
        validation = HoldOut(float(validation))
    if validation is None or isinstance(validation, HoldOut):
        return ValidationPlan(encode_rules(validation, names, early_stopping, folds=folds))
    message = encode_rules(None, names, early_stopping, folds=folds)
    return ValidationPlan(message, _put_rows(validation, {**columns, "room": room, "dtype": dtype}, message))


def _put_rows(given: Any, arguments: Mapping[str, Any], message: validation_pb2.Validation) -> Upload | None:
    """Puts rows of their own into the message; returns what has to be uploaded instead."""
    pair = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    if any(not _names_columns(arguments[name]) for name in ("group_by", "weight")):
        raise invalid("validation", "rows of their own need keys and weights that are columns of a table")
    rows = gather(*pair, **arguments)
    if rows.table is not None:
        message.table.CopyFrom(rows.table)
    elif rows.tensors is not None:
        message.tensors.CopyFrom(rows.tensors)
    elif rows.dataset is not None:
        message.dataset = rows.dataset
    return rows.upload


def _names_columns(value: Any) -> bool:
    if value is None or isinstance(value, str):
        return True
    return isinstance(value, Sequence) and all(isinstance(one, str) for one in value)


def cross_validation_of(members: Sequence[models_pb2.Member], columns: Sequence[str]) -> CrossValidation:
    """The combinations of a cross-validation.

    Args:
        members: Of the sweep, by key.
        columns: Its key columns, the last of which is the fold.

    Raises:
        FailedPrecondition: When the sweep is none over folds.
    """
    if not columns or columns[-1] != FOLD:
        raise FailedPrecondition("The model is no sweep over folds.", reason="NO_CROSS_VALIDATION")
    groups: dict[tuple[Any, ...], list[models_pb2.Member]] = {}
    for member in members:
        groups.setdefault(key_parts(decode_key(member.key))[:-1], []).append(member)
    combinations = [
        Combination(
            values=dict(zip(columns, key, strict=False)), losses=_losses(folds), scores=_scores(folds)
        )
        for key, folds in groups.items()
    ]
    return CrossValidation(ranked(combinations), max(map(len, groups.values()), default=0))


def _losses(folds: Sequence[models_pb2.Member]) -> Any:
    return np.array([one.evaluation.loss if one.HasField("evaluation") else np.nan for one in folds])


def _scores(folds: Sequence[models_pb2.Member]) -> dict[str, Any]:
    measured = [decode_metrics(one.evaluation.metrics) for one in folds]
    names = max(measured, key=len, default={})
    return {name: np.array([values.get(name, np.nan) for values in measured]) for name in names}
