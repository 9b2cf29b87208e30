"""Tables and the arrays that trainings read from them.

Legend: N rows, d features, t targets, F folds.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.fleets import Groups


class ColumnKind(enum.Enum):
    """What a column holds."""

    NUMBER = "number"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    TEXT = "text"
    TIMESTAMP = "timestamp"


@dataclass(slots=True, eq=False)  # not frozen: a small Predict makes one for each feature
class Column:
    """A named column of one dimension.

    Numbers and truth values have a dtype of their own, missing numbers being NaN. Text is an array of Python strings
    (dtype object), None where it is missing; times are datetime64[us] in UTC, NaT where they are missing.
    """

    name: str
    values: NDArray[np.generic]

    @property
    def is_text(self) -> bool:
        """Whether the column holds strings."""
        return self.values.dtype == object

    @property
    def kind(self) -> ColumnKind:
        """What the column holds."""
        return kind_of_dtype(self.values.dtype)


def kind_of_dtype(dtype: np.dtype[Any]) -> ColumnKind:
    """What a column of a dtype holds."""
    return _KINDS[dtype.kind]


_KINDS = {
    "f": ColumnKind.NUMBER,
    "i": ColumnKind.INTEGER,
    "u": ColumnKind.INTEGER,
    "b": ColumnKind.BOOLEAN,
    "O": ColumnKind.TEXT,
    "M": ColumnKind.TIMESTAMP,
}


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Columns of one length with unique names."""

    columns: tuple[Column, ...]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.columns[0].values) if self.columns else 0

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in order."""
        return tuple(column.name for column in self.columns)


@dataclass(frozen=True, slots=True, eq=False)
class TensorPair:
    """Features [N, d] and targets [N] or [N, t], of any numeric dtype."""

    features: NDArray[np.generic]
    targets: NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class DatasetReference:
    """An uploaded dataset, by its digest."""

    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnRoles:
    """Which columns are learned from and which are predicted; empty features means all without another role.

    Attributes:
        groups: Columns that name the member a row belongs to; empty where one model is trained.
        weight: Column of row weights, or None.
        split: Column that decides which rows are held out, or None; no feature unless listed.
    """

    features: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    weight: str | None = None
    split: str | None = None


DataSource = Table | TensorPair | DatasetReference

Classes = tuple[str, ...] | tuple[int, ...]
"""Class labels in the order of a classifier's outputs: sorted, all text or all integers."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingArrays:
    """Data ready to be trained on.

    Attributes:
        features: [N, d], the training's precision, C-contiguous; of a cross-validation with preprocessing [F, N, d],
            what the training rows of each fold made of them.
        targets: [N, t] of the training's precision; for cross_entropy int64 [N], indices into ``classes``; for
            bce_with_logits [N, 1] of 0 and 1 where ``classes[1]`` is 1.
        feature_columns: d names.
        target_columns: t names.
        classes: None for regression.
        groups: How the rows, then sorted by member, belong to the members of a fleet; None for one model.
        weights: [N] of the training's precision, ≥ 0; None where all rows count alike.
        validation: Held-out rows, of the same columns, classes and members; None where there are none.
        folds: Cross-validation: int16 [N], the fold that holds out each row (−1: none does); None otherwise.
    """

    features: NDArray[np.floating]
    targets: NDArray[np.generic]
    feature_columns: tuple[str, ...]
    target_columns: tuple[str, ...]
    classes: Classes | None = None
    groups: Groups | None = None
    weights: NDArray[np.floating] | None = None
    validation: TrainingArrays | None = None
    folds: NDArray[np.int16] | None = None

    @property
    def rows(self) -> int:
        """Number of rows N."""
        return int(self.features.shape[-2])

    def of_fold(self, fold: int) -> TrainingArrays:
        """The same with the features that a fold's member sees."""
        return replace(self, features=self.features[fold]) if self.features.ndim == 3 else self

    @property
    def nbytes(self) -> int:
        """Bytes that features and targets take, held-out rows included."""
        held_out = 0 if self.validation is None else self.validation.nbytes
        return self.features.nbytes + self.targets.nbytes + held_out


def default_names(prefix: str, count: int) -> tuple[str, ...]:
    """Names of a tensor's columns: ``y`` for one target, else ``x0``, ``x1`` and so on."""
    if prefix == "y" and count == 1:
        return ("y",)
    return tuple(f"{prefix}{index}" for index in range(count))


def quoted(names: Sequence[str], limit: int = 5) -> str:
    """``'a', 'b' and 3 more``, for messages."""
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
