"""The registry's messages as plain values."""

from __future__ import annotations

from datetime import UTC
from typing import cast

from epochd.registry import AliasMove, Canary, Comparison, FieldComparison, Lineage, ParentKindName
from epochd.v1 import models_pb2, run_pb2


def decode_canary(message: models_pb2.Alias | models_pb2.AliasMove) -> Canary | None:
    """The canary of an alias, or of a move of it."""
    if not message.HasField("canary"):
        return None
    return Canary(version=message.canary.version, percent=message.canary.percent)


def decode_move(message: models_pb2.AliasMove) -> AliasMove:
    """A move of an alias."""
    return AliasMove(
        version=message.version,
        canary=decode_canary(message),
        time=message.time.ToDatetime(tzinfo=UTC),
    )


def decode_lineage(message: run_pb2.Lineage) -> Lineage:
    """Where a version comes from."""
    kind = ""
    if message.parent_kind in run_pb2.ParentKind.values() and message.parent_kind:
        kind = run_pb2.ParentKind.Name(message.parent_kind).removeprefix("PARENT_KIND_")
    return Lineage(
        dataset=message.dataset,
        data_digest=message.data_digest,
        parent=message.parent,
        parent_kind=cast("ParentKindName", kind),
        libraries=dict(sorted(message.libraries.items())),
    )


def decode_comparison(message: models_pb2.DiffVersionsResponse) -> Comparison:
    """Two versions side by side."""
    fields = [
        FieldComparison(
            field=field.field,
            base=_value(field.base) if field.HasField("base") else None,
            other=_value(field.other) if field.HasField("other") else None,
            same=field.same,
        )
        for field in message.fields
    ]
    return Comparison(base=message.base.name, other=message.other.name, fields=fields)


def _value(message: models_pb2.ComparedValue) -> float | str:
    return message.text if message.WhichOneof("value") == "text" else message.number
