"""Tables and the arrays that trainings read from them.

Legend: N rows, d features, t targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.fleets import Groups


@dataclass(slots=True, eq=False)  # not frozen: a small Predict makes one for each feature
class Column:
    """A named column: a one-dimensional numeric or boolean array, or an array of Python strings (dtype object)."""

    name: str
    values: NDArray[np.generic]

    @property
    def is_text(self) -> bool:
        """Whether the column holds strings."""
        return self.values.dtype == object


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
    """

    features: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    weight: str | None = None


DataSource = Table | TensorPair | DatasetReference

Classes = tuple[str, ...] | tuple[int, ...]
"""Class labels in the order of a classifier's outputs: sorted, all text or all integers."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingArrays:
    """Data ready to be trained on.

    Attributes:
        features: [N, d], the training's precision, C-contiguous.
        targets: [N, t] of the training's precision; for cross_entropy int64 [N], indices into ``classes``; for
            bce_with_logits [N, 1] of 0 and 1 where ``classes[1]`` is 1.
        feature_columns: d names.
        target_columns: t names.
        classes: None for regression.
        groups: How the rows, then sorted by member, belong to the members of a fleet; None for one model.
        weights: [N] of the training's precision, ≥ 0; None where all rows count alike.
    """

    features: NDArray[np.floating]
    targets: NDArray[np.generic]
    feature_columns: tuple[str, ...]
    target_columns: tuple[str, ...]
    classes: Classes | None = None
    groups: Groups | None = None
    weights: NDArray[np.floating] | None = None

    @property
    def rows(self) -> int:
        """Number of rows N."""
        return len(self.features)

    @property
    def nbytes(self) -> int:
        """Bytes that features and targets take."""
        return self.features.nbytes + self.targets.nbytes


def default_names(prefix: str, count: int) -> tuple[str, ...]:
    """Names of a tensor's columns: ``y`` for one target, else ``x0``, ``x1`` and so on."""
    if prefix == "y" and count == 1:
        return ("y",)
    return tuple(f"{prefix}{index}" for index in range(count))


def quoted(names: Sequence[str], limit: int = 5) -> str:
    """``'a', 'b' and 3 more``, for messages."""
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
