"""Fleets: versions with many members, one for each key (or each combination of a sweep).

Legend: K members. Members are in the ascending order of their keys.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.validation import Metric

Key = tuple[str | int | float, ...]
"""A member's key: one value for each key column."""


@dataclass(frozen=True, slots=True, eq=False)
class Keys:
    """The keys of K members, as columns.

    Attributes:
        names: The key columns' names.
        columns: One array [K] a name: int64, float64 (sweeps only), or Python strings (dtype object).
    """

    names: tuple[str, ...]
    columns: tuple[NDArray[np.generic], ...]

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0

    def key(self, member: int) -> Key:
        """The key of one member."""
        return tuple(
            column[member].item() if column.dtype != object else column[member] for column in self.columns
        )


class MemberState(enum.IntEnum):
    """How a member's training ended."""

    SUCCEEDED = 1
    FAILED = 2


class MemberOrder(enum.IntEnum):
    """In which order members are listed."""

    BY_KEY = 0
    BY_LOSS = 1
    BY_VALIDATION_LOSS = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Groups:
    """How rows belong to members: rows are sorted by member, in the order of the table within each.

    Attributes:
        keys: The members' keys, ascending.
        offsets: int64 [K + 1]; member k owns rows ``offsets[k]:offsets[k + 1]``.
        unfit: Members that cannot be trained, with a reason in UPPER_SNAKE (``TARGET_NOT_FINITE``,
            ``FEATURE_NOT_FINITE``, ``ONE_CLASS_ONLY``, ``NO_WEIGHT`` …); they keep their rows but are not trained.
    """

    keys: Keys
    offsets: NDArray[np.int64]
    unfit: Mapping[int, str]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Members:
    """What became of K members, as columns [K].

    Attributes:
        keys: Their keys.
        states: uint8, :class:`MemberState` values.
        rows: int64.
        epochs: int64.
        final_losses: float64; NaN where there is none.
        reasons: Failed members → reason in UPPER_SNAKE.
        held_out: How they do on their held-out rows; None where there are none.
        statistics: Exact fits: by the names of :mod:`epochd_server.domain.statistics`, float64 [K, …] each.
        learned: Preprocessing: what each member learned of its columns by itself, float64 [K, S]; None where none did.
    """

    keys: Keys
    states: NDArray[np.uint8]
    rows: NDArray[np.int64]
    epochs: NDArray[np.int64]
    final_losses: NDArray[np.float64]
    reasons: Mapping[int, str]
    held_out: HeldOut | None = None
    statistics: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)
    learned: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldOut:
    """How K members do on their held-out rows, as columns; NaN where a member was not trained.

    Attributes:
        metrics: What was measured.
        rows: int64 [K], held-out rows of each.
        losses: float64 [K].
        values: float64 [K, metrics].
        best_epochs: int64 [K]: the epoch whose parameters a member has; −1 where that is its last one.
    """

    metrics: tuple[Metric, ...]
    rows: NDArray[np.int64]
    losses: NDArray[np.float64]
    values: NDArray[np.float64]
    best_epochs: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Lists of hyperparameters, of which every combination is a member; an empty list is not swept."""

    lr: tuple[float, ...] = ()
    weight_decay: tuple[float, ...] = ()
    momentum: tuple[float, ...] = ()
    seed: tuple[int, ...] = ()
    folds: int = 0
    """Cross-validation: each combination is a member for each of so many folds; 0 is none."""

    @property
    def names(self) -> tuple[str, ...]:
        """What is swept, in the order of the fields: the fleet's key columns."""
        return (*(name for name in SWEPT if getattr(self, name)), *((FOLD,) if self.folds else ()))

    @property
    def size(self) -> int:
        """Number of combinations K, folds included."""
        return math.prod(map(len, self._values()))

    def keys(self) -> Keys:
        """The K combinations as the members' keys: float64 columns, int64 for seeds and folds."""
        grids = np.meshgrid(*self._values(), indexing="ij")
        return Keys(self.names, tuple(grid.ravel() for grid in grids))

    def _values(self) -> list[NDArray[np.generic]]:
        """The values of each name, ascending."""
        swept = [(name, getattr(self, name)) for name in SWEPT if getattr(self, name)]
        lists: list[NDArray[np.generic]] = [
            np.array(sorted(values), _SWEPT_TYPES[name]) for name, values in swept
        ]
        return [*lists, np.arange(self.folds)] if self.folds else lists


_SWEPT_TYPES: Mapping[str, type[np.generic]] = MappingProxyType(
    {"lr": np.float64, "weight_decay": np.float64, "momentum": np.float64, "seed": np.int64}
)
SWEPT = tuple(_SWEPT_TYPES)
"""What can be swept, in the order of key columns."""
FOLD = "fold"
"""The last key column of a cross-validation: the fold that a member is measured on."""
