"""Steps of preprocessing: messages ↔ domain. Field paths are relative to a PreprocessingStep."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any, TypeVar

from epochd.v1 import preprocessing_pb2 as pb
from epochd_server.domain import preprocessing as domain
from epochd_server.domain.errors import Violations

MAX_CATEGORIES = 10_000
MAX_EDGES = 1_000
MAX_HASHED = 65_536
MAX_TEXT = 1_024
_SHOWN = 40
E = TypeVar("E")


def _numbers_of(prefix: str, enum: Any, members: Any) -> Mapping[int, Any]:
    return MappingProxyType({int(enum.Value(f"{prefix}_{member.name}")): member for member in members})


_UNSEEN: Mapping[int, domain.Unseen] = _numbers_of("UNSEEN", pb.Unseen, domain.Unseen)
_FILLS: Mapping[int, domain.Fill] = _numbers_of("IMPUTE_STRATEGY", pb.ImputeStrategy, domain.Fill)
_PARTS: Mapping[int, domain.TimePart] = _numbers_of("TIME_PART", pb.TimePart, domain.TimePart)


def decode_step(message: pb.PreprocessingStep, violations: Violations) -> domain.Step | None:
    """A step; None, or a harmless one, and violations where anything is wrong with it."""
    kind = message.WhichOneof("kind")
    if kind is None:
        violations.add("kind", f"must be set: {', '.join(_DECODERS)}")
        return None
    with violations.within(kind):
        return _DECODERS[kind](getattr(message, kind), violations)


def encode_step(step: domain.Step) -> pb.PreprocessingStep:
    """The message of a step."""
    field, message = _ENCODERS[type(step)](step)
    return pb.PreprocessingStep(**{field: message})


def _standardize(message: pb.StandardizeStep, violations: Violations) -> domain.Step:
    return domain.Standardize(
        with_mean=message.with_mean if message.HasField("with_mean") else True,
        with_std=message.with_std if message.HasField("with_std") else True,
        per_member=message.per_member,
    )


def _min_max(message: pb.MinMaxStep, violations: Violations) -> domain.Step:
    low = message.low if message.HasField("low") else 0.0
    high = message.high if message.HasField("high") else 1.0
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        violations.add("low", f"low and high must be finite and low < high, are {low:g} and {high:g}")
    return domain.MinMax(low=low, high=high, per_member=message.per_member)


def _impute(message: pb.ImputeStep, violations: Violations) -> domain.Step:
    fill = _chosen(_FILLS, message.strategy, domain.Fill.MEAN, "strategy", violations)
    given = message.WhichOneof("constant")
    if fill is domain.Fill.CONSTANT and given is None:
        violations.add("constant", "must be set with CONSTANT: number or text")
    elif fill is not domain.Fill.CONSTANT and given is not None:
        violations.add(given, "is for CONSTANT only")
    if given == "number" and not math.isfinite(message.number):
        violations.add("number", f"must be finite, is {message.number}")
    if len(message.text) > MAX_TEXT:
        violations.add("text", f"must have at most {MAX_TEXT:,} characters, has {len(message.text):,}")
    if message.per_member and fill not in (domain.Fill.MEAN, domain.Fill.MEDIAN):
        violations.add("per_member", "is for MEAN and MEDIAN")
    return domain.Impute(
        fill=fill,
        number=message.number if given == "number" else None,
        text=message.text if given == "text" else None,
        indicator=message.indicator,
        per_member=message.per_member,
    )


def _one_hot(message: pb.OneHotStep, violations: Violations) -> domain.Step:
    unseen = _chosen(_UNSEEN, message.unseen, domain.Unseen.ERROR, "unseen", violations)
    most = message.max_categories if message.HasField("max_categories") else None
    if most is not None and not 1 <= most <= MAX_CATEGORIES:
        violations.add("max_categories", f"must be 1 to {MAX_CATEGORIES:,}, is {most}")
    if most is not None and unseen is domain.Unseen.ERROR:
        violations.add("max_categories", "needs unseen IGNORE or OTHER: training rows have such categories")
    return domain.OneHot(unseen=unseen, max_categories=most, drop_first=message.drop_first)


def _ordinal(message: pb.OrdinalStep, violations: Violations) -> domain.Step:
    categories = tuple(message.categories)
    if len(categories) > MAX_CATEGORIES:
        violations.add("categories", f"must be at most {MAX_CATEGORIES:,}, are {len(categories):,}")
    seen: set[str] = set()
    for index, label in enumerate(categories[:MAX_CATEGORIES]):
        if label in seen:
            violations.add(f"categories[{index}]", f"{label[:_SHOWN]!r} is listed twice")
        seen.add(label)
    unseen = _chosen(_UNSEEN, message.unseen, domain.Unseen.ERROR, "unseen", violations)
    return domain.Ordinal(unseen=unseen, categories=categories)


def _bucketize(message: pb.BucketizeStep, violations: Violations) -> domain.Step:
    edges = tuple(message.edges)
    buckets = message.buckets if message.HasField("buckets") else None
    if bool(edges) == (buckets is not None):
        violations.add("edges", "must be set, or buckets; not both")
    if len(edges) > MAX_EDGES:
        violations.add("edges", f"must be at most {MAX_EDGES:,}, are {len(edges):,}")
    if not all(map(math.isfinite, edges)) or any(low >= high for low, high in pairwise(edges)):
        violations.add("edges", "must be finite and ascending, each above the one before")
    if buckets is not None and not 2 <= buckets <= MAX_EDGES:
        violations.add("buckets", f"must be 2 to {MAX_EDGES:,}, is {buckets}")
    one_hot = message.one_hot if message.HasField("one_hot") else True
    return domain.Bucketize(edges=edges, buckets=buckets, one_hot=one_hot)


def _hashing(message: pb.HashingStep, violations: Violations) -> domain.Step:
    if not 1 <= message.features <= MAX_HASHED:
        violations.add("features", f"must be 1 to {MAX_HASHED:,}, is {message.features}")
    return domain.Hashing(features=message.features)


def _time_parts(message: pb.TimePartsStep, violations: Violations) -> domain.Step:
    if not message.parts:
        violations.add("parts", "must name one part or more")
    parts = [
        _chosen(_PARTS, number, None, f"parts[{index}]", violations)
        for index, number in enumerate(message.parts[: len(_PARTS) + 1])
    ]
    known = tuple(part for part in parts if part is not None)
    if len(set(known)) < len(known):
        violations.add("parts", "names a part twice")
    cyclic = message.cyclic if message.HasField("cyclic") else True
    return domain.TimeParts(parts=known, cyclic=cyclic)


def _chosen(known: Mapping[int, E], number: int, default: E, field: str, violations: Violations) -> E:
    if number == 0 and default is not None:
        return default
    found = known.get(number)
    if found is None:
        violations.add(field, "must be set" if number == 0 else f"{number} is not known")
        return default
    return found


_DECODERS: Mapping[str, Callable[[Any, Violations], domain.Step]] = MappingProxyType(
    {
        "auto": lambda message, violations: domain.Auto(),
        "passthrough": lambda message, violations: domain.Passthrough(),
        "drop": lambda message, violations: domain.Drop(),
        "standardize": _standardize,
        "min_max": _min_max,
        "log1p": lambda message, violations: domain.Log1p(),
        "impute": _impute,
        "one_hot": _one_hot,
        "ordinal": _ordinal,
        "bucketize": _bucketize,
        "hashing": _hashing,
        "time_parts": _time_parts,
    }
)


def _encode_impute(step: domain.Impute) -> pb.ImputeStep:
    message = pb.ImputeStep(
        strategy=pb.ImputeStrategy.Value(f"IMPUTE_STRATEGY_{step.fill.name}"),
        indicator=step.indicator,
        per_member=step.per_member,
    )
    if step.number is not None:
        message.number = step.number
    elif step.text is not None:
        message.text = step.text
    return message


def _unseen(unseen: domain.Unseen) -> pb.Unseen.ValueType:
    return pb.Unseen.Value(f"UNSEEN_{unseen.name}")


_ENCODERS: Mapping[type, Callable[[Any], tuple[str, Any]]] = MappingProxyType(
    {
        domain.Auto: lambda step: ("auto", pb.AutoStep()),
        domain.Passthrough: lambda step: ("passthrough", pb.PassthroughStep()),
        domain.Drop: lambda step: ("drop", pb.DropStep()),
        domain.Standardize: lambda step: (
            "standardize",
            pb.StandardizeStep(with_mean=step.with_mean, with_std=step.with_std, per_member=step.per_member),
        ),
        domain.MinMax: lambda step: (
            "min_max",
            pb.MinMaxStep(low=step.low, high=step.high, per_member=step.per_member),
        ),
        domain.Log1p: lambda step: ("log1p", pb.Log1pStep()),
        domain.Impute: lambda step: ("impute", _encode_impute(step)),
        domain.OneHot: lambda step: (
            "one_hot",
            pb.OneHotStep(
                unseen=_unseen(step.unseen), max_categories=step.max_categories, drop_first=step.drop_first
            ),
        ),
        domain.Ordinal: lambda step: (
            "ordinal",
            pb.OrdinalStep(unseen=_unseen(step.unseen), categories=step.categories),
        ),
        domain.Bucketize: lambda step: (
            "bucketize",
            pb.BucketizeStep(edges=step.edges, buckets=step.buckets, one_hot=step.one_hot),
        ),
        domain.Hashing: lambda step: ("hashing", pb.HashingStep(features=step.features)),
        domain.TimeParts: lambda step: (
            "time_parts",
            pb.TimePartsStep(
                parts=[pb.TimePart.Value(f"TIME_PART_{part.name}") for part in step.parts],
                cyclic=step.cyclic,
            ),
        ),
    }
)
