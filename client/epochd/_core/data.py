"""The rows of a training, in whichever form they are given and can be sent."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochd._core.uploading import FileSource, TableSource, Upload
from epochd._wire.columns import make_column
from epochd._wire.tables import Table, as_matrix, as_table, feature_names, is_table, matrix_table
from epochd._wire.tensors import as_array, encode_tensor
from epochd.errors import invalid
from epochd.v1 import spec_pb2, tensor_pb2
from epochd.values import Dataset

INLINE_BYTES = 3_500_000
"""Rows up to this size travel in a request, which gRPC limits to 4 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The fields of TrainingData; at most one of the sources is set, none while an upload has to come first."""

    table: tensor_pb2.Table | None = None
    tensors: spec_pb2.TensorData | None = None
    dataset: str | None = None
    upload: Upload | None = None
    feature_columns: Sequence[str] = ()
    target_columns: Sequence[str] = ()


def gather(
    data: Any, targets: Any, *, target: str | Sequence[str] | None, features: Sequence[str] | None, dtype: str
) -> Rows:
    """The rows of ``train``'s arguments; see there.

    Raises:
        InvalidArgument: When the arguments do not fit each other or a column cannot be sent.
    """
    names = [target] if isinstance(target, str) else list(target or ())
    if isinstance(data, Dataset | str | os.PathLike):
        _refuse_targets(targets, "a dataset or a file")
        return _stored_rows(data, names, features or ())
    if is_table(data):
        return _table_rows(as_table(data), targets, names, features)
    if names or features is not None:
        raise invalid("data", "target and features name columns of a table; give one in place of an array")
    return _array_rows(data, targets, dtype)


def source_of(data: Any) -> Upload:
    """The upload of a table or a file."""
    if isinstance(data, str | os.PathLike):
        return Upload(FileSource(Path(data)))
    return Upload(TableSource(as_table(data)))


def _stored_rows(data: Any, target: Sequence[str], features: Sequence[str]) -> Rows:
    dataset = data.name if isinstance(data, Dataset) else data
    if isinstance(dataset, str) and dataset.startswith("datasets/"):
        return Rows(dataset=dataset, feature_columns=features, target_columns=target)
    return Rows(upload=source_of(data), feature_columns=features, target_columns=target)


def _table_rows(table: Table, targets: Any, target: list[str], features: Sequence[str] | None) -> Rows:
    if targets is not None:
        _refuse_targets(target or None, "y")
        added = _target_table(targets)
        table, target = Table(table.columns + added.columns), added.names
    if not target:
        raise invalid(
            "data.target_columns", f"say which column to predict: target={table.names[-1:] or ['…']}"
        )
    if features is not None:
        table = table.select([*features, *(name for name in target if name not in features)])
    return _sendable(table, features or (), target)


def _array_rows(data: Any, targets: Any, dtype: str) -> Rows:
    if targets is None:
        raise invalid("data.tensors.targets", "give y, the targets, with an array of features")
    raw, wanted = as_array(data), as_array(targets)
    if wanted.dtype.kind in "OUS" or raw.dtype.kind in "OUS":
        matrix = as_matrix(raw, "data.tensors.features")
        table = matrix_table(matrix, feature_names(matrix.shape[1]))
        return _table_rows(table, targets, [], None)
    sent = _narrowed(raw, dtype)
    if sent.nbytes + wanted.nbytes <= INLINE_BYTES:
        tensors = spec_pb2.TensorData(features=encode_tensor(sent), targets=encode_tensor(wanted))
        return Rows(tensors=tensors)
    matrix = as_matrix(sent, "data.tensors.features")
    return _table_rows(matrix_table(matrix, feature_names(matrix.shape[1])), targets, [], None)


def _sendable(table: Table, features: Sequence[str], target: Sequence[str]) -> Rows:
    if table.nbytes <= INLINE_BYTES:
        message = table.encode()
        if message.ByteSize() <= INLINE_BYTES:  # text may take more bytes than it has characters
            return Rows(table=message, feature_columns=features, target_columns=target)
    return Rows(upload=Upload(TableSource(table)), feature_columns=features, target_columns=target)


def _target_table(targets: Any) -> Table:
    """Targets as columns: by their own names, else ``y``, or ``y0``, ``y1`` …, as the server names them."""
    if is_table(targets):
        return as_table(targets)
    array = as_array(targets)
    if array.ndim == 2 and array.shape[1] > 1:
        return matrix_table(array, [f"y{index}" for index in range(array.shape[1])])
    name = getattr(targets, "name", None)
    values = targets if array.ndim == 1 else array.reshape(-1)
    return Table((make_column(name if isinstance(name, str) and name else "y", values),))


def _narrowed(features: NDArray[Any], dtype: str) -> NDArray[Any]:
    """float64 features as float32 when they are trained in float32 anyway: half the bytes, the same bits."""
    if dtype != "float32" or features.dtype.name != "float64":
        return features
    with np.errstate(over="ignore"):  # the server says which value became infinite
        return features.astype(np.float32)


def _refuse_targets(targets: Any, what: str) -> None:
    if targets is not None:
        raise invalid("data.target_columns", f"give target, the name of a column, or y; with {what} not both")
