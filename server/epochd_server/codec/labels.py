"""Class labels: ClassLabels ↔ domain."""

from __future__ import annotations

from collections.abc import Sequence

from epochd.v1 import tensor_pb2 as pb
from epochd_server.domain.data import Classes


def encode_labels(labels: Sequence[str] | Sequence[int] | None) -> pb.ClassLabels | None:
    """The message of labels, all text or all integers; None for None (a regression)."""
    if labels is None:
        return None
    if len(labels) and isinstance(labels[0], str):
        return pb.ClassLabels(strings=pb.Strings(values=labels))  # type: ignore[arg-type]
    return pb.ClassLabels(integers=pb.IntegerLabels(values=labels))  # type: ignore[arg-type]


def decode_labels(message: pb.ClassLabels) -> Classes | None:
    """The labels, or None where the oneof is unset (a regression)."""
    match message.WhichOneof("labels"):
        case "strings":
            return tuple(message.strings.values)
        case "integers":
            return tuple(message.integers.values)
        case None:
            return None
