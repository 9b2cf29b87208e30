"""When rows are too many to be held in memory, and what is done by pieces then.

All of it follows from a member's own rows and their width, never from the machine: a table is read, split and shuffled
in the same way wherever it is trained, alone or in company.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.validation import HoldOut

LARGE_BYTES = 256 * 2**20
"""Rows that take more than so many bytes, in the precision of their training, are large: they stay on the disk."""

HELD_OUT_BYTES = 64 * 2**20
"""Held-out rows beside large ones are measured in memory, and thus take at most so many bytes."""

_PIECE_BYTES = 8 * 2**20
_LEAST_PIECE_ROWS = 32
_MOST_PIECE_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class RowSize:
    """How wide rows are.

    Attributes:
        nbytes: Of features, targets and weight of one row, in the precision of the training.
    """

    nbytes: int

    @classmethod
    def of(cls, features: int, targets: int, item_bytes: int, *, weighted: bool) -> RowSize:
        """That of rows with so many numbers of ``item_bytes`` each."""
        return cls(max(features + targets + weighted, 1) * item_bytes)

    @property
    def most_rows(self) -> int:
        """The most rows that are not large."""
        return LARGE_BYTES // self.nbytes

    def is_large(self, rows: int) -> bool:
        """Whether so many rows are large."""
        return rows > self.most_rows

    @property
    def piece_rows(self) -> int:
        """Rows of a piece, in which large tables are read, checked and split: about 8 MiB, from 32 to 65,536 rows."""
        return min(max(_PIECE_BYTES // self.nbytes, _LEAST_PIECE_ROWS), _MOST_PIECE_ROWS)


@dataclass(frozen=True, slots=True)
class TimeBound:
    """Where the held-out rows of a split by time begin: at a value, of equal ones at a row of the table."""

    value: str | float
    row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnRows:
    """Rows that are held out of a large table, drawn from each piece by itself: whoever reads it draws them again.

    Attributes:
        hold_out: How.
        seed: The training's.
        piece_rows: Rows of a piece; the last one may have fewer.
        count: How many are held out.
        bound: TIME: where they begin.
        groups: GROUP: the values of those that are held out; texts, or numbers float64 in ascending order.
    """

    hold_out: HoldOut
    seed: int
    piece_rows: int
    count: int
    bound: TimeBound | None = None
    groups: frozenset[str] | NDArray[np.float64] | None = field(default=None, compare=False)
