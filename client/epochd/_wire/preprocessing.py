"""Preprocessing as messages, and what was fitted back again."""

from __future__ import annotations

from typing import Any

from epochd._wire.tensors import decode_tensor
from epochd.coefficients import Coefficients
from epochd.errors import FailedPrecondition
from epochd.preprocessing import (
    BY_NAME,
    Bucketize,
    FittedColumn,
    Hash,
    Impute,
    MinMax,
    OneHot,
    Ordinal,
    Preprocess,
    Standardize,
    Step,
    TimeParts,
)
from epochd.v1 import models_pb2
from epochd.v1 import preprocessing_pb2 as pb

_NAMES: dict[type[Step], str] = {kind: name for name, kind in BY_NAME.items()} | {
    Bucketize: "bucketize",
    Hash: "hashing",
    TimeParts: "time_parts",
}
_EMPTY: dict[str, Any] = {
    "auto": pb.AutoStep,
    "passthrough": pb.PassthroughStep,
    "drop": pb.DropStep,
    "log1p": pb.Log1pStep,
}


def encode_preprocess(preprocess: Preprocess) -> pb.Preprocessing:
    """The message of a preprocessing."""
    entries = [
        pb.ColumnSteps(columns=names, steps=[_encode_step(step) for step in steps])
        for names, steps in preprocess.columns
    ]
    return pb.Preprocessing(
        columns=entries, remainder=pb.Remainder.Value(f"REMAINDER_{preprocess.others.upper()}")
    )


def decode_fitted(message: pb.FittedPreprocessing) -> tuple[FittedColumn, ...]:
    """What became of each feature column; steps that this client does not know are left out."""
    return tuple(
        FittedColumn(
            name=column.name,
            kind=pb.ColumnKind.Name(column.kind).removeprefix("COLUMN_KIND_").lower(),
            steps=tuple(step for fitted in column.steps if (step := _decode_step(fitted.step)) is not None),
            features=tuple(column.outputs),
            note=column.note,
        )
        for column in message.columns
    )


def decode_coefficients(
    message: models_pb2.GetParametersResponse | models_pb2.GetMemberResponse,
) -> Coefficients:
    """The coefficients in an answer; one output has no axis of its own.

    Raises:
        FailedPrecondition: When there are none.
    """
    if not message.HasField("coefficients"):
        raise FailedPrecondition(
            f"{message.model_version} has no coefficients: only linear models have, and fleets that fit one message.",
            reason="NOT_LINEAR",
        )
    found = message.coefficients
    values, intercept = decode_tensor(found.values), decode_tensor(found.intercepts)
    if values.shape[-2] == 1:
        values, intercept = values[..., 0, :], intercept[..., 0]
    return Coefficients(tuple(found.names), values, intercept)


def _encode_step(step: Step) -> pb.PreprocessingStep:
    name = _NAMES[type(step)]
    message = _EMPTY[name]() if name in _EMPTY else _encode_body(step)
    return pb.PreprocessingStep(**{name: message})


def _encode_body(step: Step) -> Any:
    match step:
        case Standardize(with_mean=with_mean, with_std=with_std, per_member=per_member):
            return pb.StandardizeStep(with_mean=with_mean, with_std=with_std, per_member=per_member)
        case MinMax(low=low, high=high, per_member=per_member):
            return pb.MinMaxStep(low=low, high=high, per_member=per_member)
        case Impute():
            return _encode_impute(step)
        case OneHot(unseen=unseen, max_categories=most, drop_first=drop_first):
            return pb.OneHotStep(unseen=_unseen(unseen), max_categories=most, drop_first=drop_first)
        case Ordinal(unseen=unseen, categories=categories):
            return pb.OrdinalStep(unseen=_unseen(unseen), categories=categories)
        case Bucketize(edges, buckets=buckets, one_hot=one_hot):
            return pb.BucketizeStep(edges=edges, buckets=buckets, one_hot=one_hot)
        case Hash(features):
            return pb.HashingStep(features=features)
        case TimeParts():
            parts = [pb.TimePart.Value(f"TIME_PART_{part.upper()}") for part in step.parts]
            return pb.TimePartsStep(parts=parts, cyclic=step.cyclic)
    raise TypeError(f"a step of epochd.preprocessing is needed, not {step!r}")


def _encode_impute(step: Impute) -> pb.ImputeStep:
    message = pb.ImputeStep(
        strategy=pb.ImputeStrategy.Value(f"IMPUTE_STRATEGY_{step.fill.upper()}"),
        indicator=step.indicator,
        per_member=step.per_member,
    )
    if isinstance(step.value, str):
        message.text = step.value
    elif step.value is not None:
        message.number = step.value
    return message


def _decode_step(message: pb.PreprocessingStep) -> Step | None:
    kind = message.WhichOneof("kind")
    body: Any = None if kind is None else getattr(message, kind)
    match kind:
        case "standardize":
            return Standardize(with_mean=body.with_mean, with_std=body.with_std, per_member=body.per_member)
        case "min_max":
            return MinMax(low=body.low, high=body.high, per_member=body.per_member)
        case "impute":
            return _decode_impute(body)
        case "one_hot":
            most = body.max_categories if body.HasField("max_categories") else None
            return OneHot(unseen=_seen(body), max_categories=most, drop_first=body.drop_first)
        case "ordinal":
            return Ordinal(unseen=_seen(body), categories=tuple(body.categories))
        case "bucketize":
            buckets = body.buckets if body.HasField("buckets") else None
            return Bucketize(tuple(body.edges), buckets=buckets, one_hot=body.one_hot)
        case "hashing":
            return Hash(body.features)
        case "time_parts":
            return TimeParts(
                *(_lower(pb.TimePart, part, "TIME_PART_") for part in body.parts), cyclic=body.cyclic
            )
    return BY_NAME[kind]() if kind is not None and kind in _EMPTY else None


def _decode_impute(body: pb.ImputeStep) -> Impute:
    constant = body.WhichOneof("constant")
    return Impute(
        _lower(pb.ImputeStrategy, body.strategy, "IMPUTE_STRATEGY_"),
        value=None if constant is None else getattr(body, constant),
        indicator=body.indicator,
        per_member=body.per_member,
    )


def _unseen(unseen: str) -> pb.Unseen.ValueType:
    return pb.Unseen.Value(f"UNSEEN_{unseen.upper()}")


def _seen(body: pb.OneHotStep | pb.OrdinalStep) -> Any:
    return _lower(pb.Unseen, body.unseen, "UNSEEN_")


def _lower(enum: Any, number: int, prefix: str) -> Any:
    return str(enum.Name(number)).removeprefix(prefix).lower()
