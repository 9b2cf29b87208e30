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
from epochd._wire.columns import Column, make_column
from epochd._wire.tables import Table, as_matrix, as_table, feature_names, is_table, matrix_table
from epochd._wire.tensors import as_array, encode_tensor
from epochd.errors import invalid
from epochd.v1 import spec_pb2, tensor_pb2
from epochd.values import Dataset

INLINE_BYTES = 3_500_000
"""Rows up to this size travel in a request, which gRPC limits to 4 MiB."""


_KEY_NAME = "group"
_WEIGHT_NAME = "weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The fields of TrainingData; at most one of the sources is set, none while an upload has to come first."""

    table: tensor_pb2.Table | None = None
    tensors: spec_pb2.TensorData | None = None
    dataset: str | None = None
    upload: Upload | None = None
    feature_columns: Sequence[str] = ()
    target_columns: Sequence[str] = ()
    group_columns: Sequence[str] = ()
    weight_column: str = ""

    @property
    def room_left(self) -> int:
        """Bytes that further rows may take in the same request."""
        sent = (message.ByteSize() for message in (self.table, self.tensors) if message is not None)
        return INLINE_BYTES - sum(sent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """What the columns are for; keys and weights may also be given as values, beside the data."""

    target: list[str]
    features: Sequence[str] | None
    groups: Sequence[str]
    weight: str
    added: tuple[Column, ...]
    """Columns of keys and weights that were given as values."""
    split: str = ""
    """The column that decides which rows are held out; of a table without such a column the server says so."""
    room: int = INLINE_BYTES
    """What the rows may take in the request; larger ones are uploaded first."""

    @classmethod
    def of(
        cls,
        target: Any,
        features: Sequence[str] | None,
        groups: Sequence[str | Column],
        weight: Any,
        split: str = "",
        room: int = INLINE_BYTES,
    ) -> Roles:
        """The roles of ``train``'s arguments; see there."""
        weights = () if weight is None or isinstance(weight, str) else (_named(weight, _WEIGHT_NAME),)
        return cls(
            target=_names(target),
            features=features,
            groups=[group if isinstance(group, str) else group.name for group in groups],
            weight=weight if isinstance(weight, str) else "".join(column.name for column in weights),
            added=(*(group for group in groups if isinstance(group, Column)), *weights),
            split=split,
            room=room,
        )

    @property
    def names_columns(self) -> bool:
        """Whether columns of the data are named, which only a table has."""
        given = {column.name for column in self.added}
        named = {*self.target, *self.groups, *([self.weight] if self.weight else [])}
        return self.features is not None or bool(named - given)

    def fields(self, target: Sequence[str]) -> dict[str, Any]:
        """The roles as fields of TrainingData."""
        return {
            "feature_columns": self.features or (),
            "target_columns": target,
            "group_columns": self.groups,
            "weight_column": self.weight,
        }


def gather(
    data: Any,
    targets: Any,
    *,
    target: str | Sequence[str] | None = None,
    features: Sequence[str] | None = None,
    group_by: Any = None,
    weight: Any = None,
    split: str = "",
    room: int = INLINE_BYTES,
    dtype: str = "float32",
) -> Rows:
    """The rows of ``train``'s arguments, see there.

    Args:
        data: Features, or a table.
        targets: Targets beside it.
        target: Their columns.
        features: The columns to learn from.
        group_by: Keys, or their columns.
        weight: Weights, or their column.
        split: The column that decides which rows are held out.
        room: Bytes that rows in the request may take; more are uploaded.
        dtype: The training's.

    Raises:
        InvalidArgument: When the arguments do not fit each other or a column cannot be sent.
    """
    is_stored = isinstance(data, Dataset | str | os.PathLike)
    groups = _groups(group_by, has_names=is_stored or is_table(data))
    roles = Roles.of(target, features, groups, weight, split, room)
    if is_stored:
        _refuse_values(targets, roles, "a dataset or a file")
        return _stored_rows(data, roles)
    if is_table(data):
        return _table_rows(as_table(data), targets, roles, dtype)
    if roles.names_columns:
        raise invalid(
            "data",
            "target, features, group_by and weight name columns of a table; give one in place of an array",
        )
    return _array_rows(data, targets, roles, dtype)


def source_of(data: Any) -> Upload:
    """The upload of a table or a file."""
    if isinstance(data, str | os.PathLike):
        return Upload(FileSource(Path(data)))
    return Upload(TableSource(as_table(data)))


def _stored_rows(data: Any, roles: Roles) -> Rows:
    dataset = data.name if isinstance(data, Dataset) else data
    fields = roles.fields(roles.target)
    if isinstance(dataset, str) and dataset.startswith("datasets/"):
        return Rows(dataset=dataset, **fields)
    return Rows(upload=source_of(data), **fields)


def _table_rows(table: Table, targets: Any, roles: Roles, dtype: str) -> Rows:
    target = roles.target
    if targets is not None:
        if target:
            raise invalid("data.target_columns", "give target, the name of a column, or y; not both")
        added = _target_table(targets)
        table, target = Table(table.columns + added.columns), added.names
    table = Table(table.columns + roles.added)
    if not target:
        raise invalid(
            "data.target_columns", f"say which column to predict: target={table.names[-1:] or ['…']}"
        )
    if roles.features is not None:
        split = [name for name in table.names if name == roles.split]
        table = table.select(_distinct([*roles.features, *target, *roles.groups, roles.weight, *split]))
    others = {*target, *roles.groups, roles.weight, roles.split}
    features = set(table.names if roles.features is None else roles.features) - others
    return _sendable(_with_narrow(table, features, dtype), roles.fields(target), roles.room)


def _array_rows(data: Any, targets: Any, roles: Roles, dtype: str) -> Rows:
    if targets is None:
        raise invalid("data.tensors.targets", "give y, the targets, with an array of features")
    raw, wanted = as_array(data), as_array(targets)
    is_text = wanted.dtype.kind in "OUS" or raw.dtype.kind in "OUS"
    sent = raw if is_text else _narrowed(raw, dtype)
    if not is_text and not roles.added and sent.nbytes + wanted.nbytes <= roles.room:
        tensors = spec_pb2.TensorData(features=encode_tensor(sent), targets=encode_tensor(wanted))
        return Rows(tensors=tensors)
    matrix = as_matrix(sent, "data.tensors.features")
    return _table_rows(matrix_table(matrix, feature_names(matrix.shape[1])), targets, roles, dtype)


def _sendable(table: Table, fields: dict[str, Any], room: int) -> Rows:
    if table.nbytes <= room:
        message = table.encode()
        if message.ByteSize() <= room:  # text may take more bytes than it has characters
            return Rows(table=message, **fields)
    return Rows(upload=Upload(TableSource(table)), **fields)


def _groups(group_by: Any, *, has_names: bool) -> Sequence[str | Column]:
    """Names of key columns, or key columns of values: of a table, or of one array of keys.

    A list of texts names columns where the data has names (``has_names``), else it is keys.
    """
    if group_by is None:
        return ()
    if isinstance(group_by, str):
        return (group_by,)
    if has_names and isinstance(group_by, list | tuple) and all(isinstance(name, str) for name in group_by):
        return group_by
    return as_table(group_by).columns if is_table(group_by) else (_named(group_by, _KEY_NAME),)


def _named(values: Any, default: str) -> Column:
    """Values as a column, by their own name if they have one."""
    name = getattr(values, "name", None)
    return make_column(name if isinstance(name, str) and name else default, values)


def _names(given: str | Sequence[str] | None) -> list[str]:
    return [given] if isinstance(given, str) else list(given or ())


def _distinct(names: Sequence[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name]


def _target_table(targets: Any) -> Table:
    """Targets as columns: by their own names, else ``y``, or ``y0``, ``y1`` …, as the server names them."""
    if is_table(targets):
        return as_table(targets)
    array = as_array(targets)
    if array.ndim == 2 and array.shape[1] > 1:
        return matrix_table(array, [f"y{index}" for index in range(array.shape[1])])
    return Table((_named(targets if array.ndim == 1 else array.reshape(-1), "y"),))


def _with_narrow(table: Table, features: set[str], dtype: str) -> Table:
    return Table(
        tuple(
            Column(column.name, _narrowed(column.values, dtype)) if column.name in features else column
            for column in table.columns
        )
    )


def _narrowed(features: NDArray[Any], dtype: str) -> NDArray[Any]:
    """float64 features as float32 when they are trained in float32 anyway: half the bytes, the same bits."""
    if dtype != "float32" or features.dtype.name != "float64":
        return features
    with np.errstate(over="ignore"):
        narrow = features.astype(np.float32)
    # What float32 cannot hold is sent as it is, so that the server can say which value that was.
    overflowed = np.isinf(narrow).any() and not np.isinf(features).any()
    return features if overflowed else narrow


def _refuse_values(targets: Any, roles: Roles, what: str) -> None:
    if targets is not None:
        raise invalid("data.target_columns", f"give target, the name of a column, or y; with {what} not both")
    if roles.added:
        raise invalid("data", f"with {what}, group_by and weight name columns")
