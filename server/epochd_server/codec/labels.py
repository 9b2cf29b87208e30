"""Class labels: ClassLabels ↔ domain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from epochd.v1 import tensor_pb2 as pb
from epochd_server.domain.data import Classes


def encode_classes(classes: Classes | None) -> pb.ClassLabels | None:
    """The message of a classifier's classes; None for None (a regression)."""
    if classes is None:
        return None
    if isinstance(classes[0], str):
        return _texts(classes)
    return pb.ClassLabels(integers=pb.IntegerLabels(values=classes))


def encode_label_array(labels: NDArray[np.generic]) -> pb.ClassLabels:
    """The message of labels: int64, or Python strings (dtype object)."""
    if labels.dtype == object:
        return _texts(labels.tolist())
    return pb.ClassLabels(integers=pb.IntegerLabels(values=labels.tolist()))


def decode_classes(message: pb.ClassLabels) -> Classes | None:
    """The classes, or None where the oneof is unset (a regression)."""
    match message.WhichOneof("labels"):
        case "strings":
            return tuple(message.strings.values)
        case "integers":
            return tuple(message.integers.values)
        case None:
            return None


def _texts(labels: tuple[str, ...] | list[str]) -> pb.ClassLabels:
    return pb.ClassLabels(strings=pb.Strings(values=labels))
