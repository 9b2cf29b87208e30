"""How columns become features: the steps that were asked for, and what they learned from the training rows.

Legend: n rows, m columns that one column has become so far, K members of a fleet, S numbers kept a member.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.data import ColumnKind


class Unseen(enum.Enum):
    """What becomes of a category that the training rows do not have."""

    ERROR = "error"
    """The request is refused, naming it."""
    IGNORE = "ignore"
    """Zeros in every feature of the column; ordinal: -1."""
    OTHER = "other"
    """A feature of its own, ``city=<other>``; ordinal: a number of its own, the last."""


class Fill(enum.Enum):
    """What takes the place of missing values."""

    MEAN = "mean"
    MEDIAN = "median"
    MOST_FREQUENT = "most_frequent"
    """The smallest of those that are equally frequent."""
    CONSTANT = "constant"


class TimePart(enum.Enum):
    """A part of a time."""

    MINUTE = "minute"
    HOUR = "hour"
    WEEKDAY = "weekday"
    """Monday is 0."""
    DAY = "day"
    """Of the month, from 1."""
    DAY_OF_YEAR = "day_of_year"
    """From 1."""
    MONTH = "month"
    """From 1."""
    YEAR = "year"
    """Never cyclic."""
    ELAPSED_DAYS = "elapsed_days"
    """Days since 1970, with their fraction; never cyclic."""


class Remainder(enum.Enum):
    """What becomes of feature columns that no entry names."""

    AUTO = "auto"
    PASSTHROUGH = "passthrough"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Auto:
    """Steps chosen by the column's type and values."""


@dataclass(frozen=True, slots=True)
class Passthrough:
    """Numbers as they are."""


@dataclass(frozen=True, slots=True)
class Drop:
    """No feature at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standardize:
    """(x - mean) / deviation; the deviation over n, not n - 1, and 1 where all values are equal."""

    with_mean: bool = True
    with_std: bool = True
    per_member: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MinMax:
    """The smallest value becomes ``low`` and the largest ``high``, others in between; all equal become ``low``."""

    low: float = 0.0
    high: float = 1.0
    per_member: bool = False


@dataclass(frozen=True, slots=True)
class Log1p:
    """log(1 + x) of numbers > -1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Impute:
    """Fills in what is missing; ``number`` or ``text`` is for CONSTANT, ``indicator`` adds a feature: 1 there."""

    fill: Fill = Fill.MEAN
    number: float | None = None
    text: str | None = None
    indicator: bool = False
    per_member: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OneHot:
    """A feature of 0 and 1 for each category; missing is a category too where the training rows have it."""

    unseen: Unseen = Unseen.ERROR
    max_categories: int | None = None
    """Only so many of the most frequent ones have a feature; the others count as unseen."""
    drop_first: bool = False
    """Leaves out the first category's feature, so that the others do not add up to a bias."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordinal:
    """The position of the category: 0, 1, 2 …, in ascending order or in that of ``categories``."""

    unseen: Unseen = Unseen.ERROR
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucketize:
    """The interval that a number is in: between given ``edges``, or ``buckets`` of about equally many values."""

    edges: tuple[float, ...] = ()
    buckets: int | None = None
    one_hot: bool = True
    """A feature for each interval; otherwise one, its position."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashing:
    """+1 or -1 in one of so many features, which the category's MurmurHash3 chooses; missing are zeros."""

    features: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeParts:
    """Parts of a timestamp or an ISO 8601 text; cyclic ones as sine and cosine."""

    parts: tuple[TimePart, ...]
    cyclic: bool = True


Step = (
    Auto
    | Passthrough
    | Drop
    | Standardize
    | MinMax
    | Log1p
    | Impute
    | OneHot
    | Ordinal
    | Bucketize
    | Hashing
    | TimeParts
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnSteps:
    """Steps, in order, for some columns, each by itself."""

    columns: tuple[str, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """What is asked for."""

    columns: tuple[ColumnSteps, ...] = ()
    remainder: Remainder = Remainder.AUTO

    @property
    def is_per_member(self) -> bool:
        """Whether a step learns from each member's rows by themselves."""
        return any(getattr(step, "per_member", False) for entry in self.columns for step in entry.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """(x - center) / scale + low.

    Attributes:
        center: m of them; empty where each member has its own.
        scale: m of them, none 0; empty where each member has its own.
        slot: Where a member's own center is in ``statistics``, its scale being the next; m is 1 then.
    """

    center: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    low: float = 0.0
    slot: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What takes the place of missing values.

    Attributes:
        numbers: m of them; empty for text, and where each member has its own.
        slot: Where a member's own is in ``statistics``; m is 1 then.
    """

    numbers: tuple[float, ...] = ()
    text: str | None = None
    slot: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Categories:
    """The categories in the order of their features or positions; ``missing``: and after them, the missing ones."""

    labels: tuple[str, ...]
    missing: bool = False

    @property
    def count(self) -> int:
        """How many there are, missing ones included."""
        return len(self.labels) + self.missing


@dataclass(frozen=True, slots=True)
class Edges:
    """Where intervals begin that are not the first, ascending; a number on an edge is above it."""

    edges: tuple[float, ...]


State = Affine | Filled | Categories | Edges


@dataclass(frozen=True, slots=True)
class FittedStep:
    """A step and what it learned; None where there is nothing to learn."""

    step: Step
    state: State | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedColumn:
    """What becomes of a column.

    Attributes:
        name: The column.
        kind: What it held in training.
        steps: In order; ``Auto`` is replaced by the steps it chose.
        outputs: The names of its features; empty where it was dropped.
        note: Something that its owner should know, such as why it was dropped; may be empty.
        places: Where among ``outputs`` the features are that its steps make; all others are 0 in every row.
            None: they make all of them. So the folds of a cross-validation have the same features, though not every
            category is in the training rows of each.
    """

    name: str
    kind: ColumnKind
    steps: tuple[FittedStep, ...]
    outputs: tuple[str, ...]
    note: str = ""
    places: tuple[int, ...] | None = None

    @property
    def is_read(self) -> bool:
        """Whether any feature comes from its values."""
        return bool(self.outputs) and self.places != ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedPreprocessing:
    """What the training rows made of a Preprocessing.

    Attributes:
        columns: In the order of the feature columns. Of a cross-validation, as all rows make them: no member's.
        statistics: float64 [K, S]: what each member of a fleet learned by itself; None where none did. It is kept
            with the members, not with the rest.
        folds: Cross-validation: what the training rows of each fold made of it, with the same outputs; member k has
            that of fold ``k % len(folds)``.
    """

    columns: tuple[FittedColumn, ...]
    statistics: NDArray[np.float64] | None = field(default=None, compare=False)
    folds: tuple[FittedPreprocessing, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that are read: those that were not dropped."""
        return tuple(column.name for column in self.columns if column.is_read)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The features."""
        return tuple(name for column in self.columns for name in column.outputs)

    @property
    def is_per_member(self) -> bool:
        """Whether members have numbers of their own, in ``statistics`` or where those are kept."""
        return any(
            isinstance(fitted.state, Affine | Filled) and fitted.state.slot is not None
            for column in self.columns
            for fitted in column.steps
        )

    def of_member(self, statistics: NDArray[np.float64] | None, member: int) -> FittedPreprocessing:
        """What one member's rows go through by themselves.

        Args:
            statistics: float64 [K, S], or None where no member has numbers of its own.
            member: Which one.
        """
        if self.folds:
            return self.folds[member % len(self.folds)]
        if statistics is None:
            return self
        own = statistics[member]
        columns = tuple(
            replace(
                column,
                steps=tuple(FittedStep(fitted.step, _own(fitted.state, own)) for fitted in column.steps),
            )
            for column in self.columns
        )
        return FittedPreprocessing(columns=columns)


def _own(state: State | None, own: NDArray[np.float64]) -> State | None:
    """A state with one member's numbers [S]."""
    if isinstance(state, Affine) and state.slot is not None:
        center, scale = own[state.slot : state.slot + 2].tolist()
        return Affine(center=(center,), scale=(scale,), low=state.low)
    if isinstance(state, Filled) and state.slot is not None:
        return Filled(numbers=(float(own[state.slot]),))
    return state
