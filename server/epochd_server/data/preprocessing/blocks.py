"""What a column is while it goes through its steps: numbers, texts or times.

Legend: n rows, m columns that one column has become, C distinct texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.data import ColumnKind

Rows = slice | NDArray[np.integer]
NO_TIME = np.iinfo(np.int64).min
"""NaT, as numpy has it."""
_EXACT = 2.0**53


class StepProblem(Exception):
    """Values that a step can do nothing with.

    Args:
        text: What is wrong, to follow the column's name; with ``row``, up to ``in row``.
        row: The first row where it is so, counting from 0.
        count: How many rows there are like it.
        remedy: What would be right.
    """

    def __init__(self, text: str, row: int | None = None, count: int = 1, remedy: str = "") -> None:
        self._text = text
        self._row = row
        self._more = f" and {count - 1:,} more" if count > 1 else ""
        self._remedy = remedy
        super().__init__(text)

    def told(self, first_row: int = 0, rows: NDArray[np.int64] | None = None) -> str:
        """The whole sentence.

        Args:
            first_row: The number of the block's first row.
            rows: Where the block has some rows of a table only: their numbers in it, in the order of the numbers above.
        """
        if self._row is None:
            return self._text
        row = self._row + first_row
        number = row if rows is None else int(rows[row])
        return f"{self._text} in row {number}{self._more}, counting from 0{self._remedy}"


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """Numbers [n, m], float64, NaN where they are missing, and the names of the m columns."""

    values: NDArray[np.float64]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: Rows) -> Numbers:
        """Some of the rows."""
        return Numbers(self.values[rows], self.names)


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """Texts as their distinct values [C] (dtype object), ascending, and each row's position among them.

    Attributes:
        codes: int64 [n]; -1 where a text is missing or empty.
    """

    distinct: NDArray[np.generic]
    codes: NDArray[np.int64]
    name: str

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: Rows) -> Texts:
        """Some of the rows; the distinct texts stay."""
        return Texts(self.distinct, self.codes[rows], self.name)


@dataclass(frozen=True, slots=True, eq=False)
class Times:
    """Microseconds since 1970 UTC, int64 [n]; NO_TIME where they are missing."""

    micros: NDArray[np.int64]
    name: str

    def __len__(self) -> int:
        return len(self.micros)

    def take(self, rows: Rows) -> Times:
        """Some of the rows."""
        return Times(self.micros[rows], self.name)


Block = Numbers | Texts | Times


def missing_rows(block: Block) -> NDArray[np.bool_]:
    """Bool [n]: rows without a value; of several columns, those where any is missing."""
    match block:
        case Numbers(values=values):
            return np.asarray(np.isnan(values).any(axis=1))
        case Texts(codes=codes):
            return np.asarray(codes < 0)
        case Times(micros=micros):
            return np.asarray(micros == NO_TIME)


def described(block: Block) -> str:
    """What the values are, for messages."""
    return {Numbers: "numbers", Texts: "text", Times: "timestamps"}[type(block)]


def as_numbers(block: Block, step: str) -> Numbers:
    """The block, where it is numbers.

    Raises:
        StepProblem: It is not.
    """
    if isinstance(block, Numbers):
        return block
    raise StepProblem(f"is {described(block)}, but {step} takes numbers")


def as_labels(block: Block, step: str) -> Texts:
    """Categories as texts: those of numbers are decimals in ascending order of the numbers.

    Raises:
        StepProblem: The block is times, or more than one column.
    """
    if isinstance(block, Texts):
        return block
    if isinstance(block, Times) or block.values.shape[1] != 1:
        raise StepProblem(f"is {described(block)}, but {step} takes one column of text, integers or booleans")
    values = block.values[:, 0]
    missing = np.isnan(values)
    distinct, found = np.unique(values[~missing], return_inverse=True)
    codes = np.full(len(values), -1, np.int64)
    codes[~missing] = found
    return Texts(object_array([_decimal(value) for value in distinct.tolist()]), codes, block.names[0])


def drop_empty(distinct: NDArray[np.generic], codes: NDArray[np.int64], name: str) -> Texts:
    """Texts of which empty ones count as missing; ``distinct`` is ascending."""
    if len(distinct) and distinct[0] == "":
        return Texts(distinct[1:], np.maximum(codes, 0) - 1, name)
    return Texts(distinct, codes, name)


def fits_kind(block: Block, kind: ColumnKind) -> bool:
    """Whether the values are of the kind that a column had in training; texts may be times, times texts."""
    if kind in (ColumnKind.TEXT, ColumnKind.TIMESTAMP):
        return not isinstance(block, Numbers) or bool(np.isnan(block.values).all())
    return isinstance(block, Numbers)


def nothing_of(kind: ColumnKind, rows: int, name: str) -> Block:
    """A column of text or times that are all missing."""
    if kind is ColumnKind.TIMESTAMP:
        return Times(np.full(rows, NO_TIME), name)
    return Texts(object_array([]), np.full(rows, -1, np.int64), name)


def object_array(values: Sequence[Any]) -> NDArray[np.generic]:
    """Python objects as an array of dtype object."""
    array: NDArray[np.generic] = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _decimal(value: float) -> str:
    whole = value == np.floor(value) and abs(value) < _EXACT
    return str(int(value)) if whole else repr(value)
