"""Class labels as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochd.v1 import tensor_pb2


def decode_labels(labels: tensor_pb2.ClassLabels) -> NDArray[Any] | None:
    """The labels as an array of str or int64; None where there are none."""
    match labels.WhichOneof("labels"):
        case "strings":
            return np.asarray(labels.strings.values, dtype=np.str_)
        case "integers":
            return np.asarray(labels.integers.values, dtype=np.int64)
    return None
