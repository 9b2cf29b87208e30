"""Which rows of a large table are held out, piece by piece.

Legend: n rows of a piece.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.columns import Columns
from epochd_server.data.drawing_by_column import later_rows, rows_of_groups
from epochd_server.data.splitting import Traits, held_out_rows, shares
from epochd_server.domain.large_tables import DrawnRows, RowSize
from epochd_server.domain.validation import HoldOut, Split


def draw(hold_out: HoldOut, seed: int, rows: int, size: RowSize) -> DrawnRows:
    """How rows are held out of a table of so many ``rows``, RANDOM or STRATIFIED."""
    full, rest = divmod(rows, size.piece_rows)
    sizes = np.array([size.piece_rows, rest], np.int64)
    in_full, in_rest = shares(hold_out.fraction, sizes).tolist()
    return DrawnRows(hold_out=hold_out, seed=seed, piece_rows=size.piece_rows, count=full * in_full + in_rest)


def drawn_rows(drawn: DrawnRows, part: Columns, label: int, first: int) -> NDArray[np.bool_]:
    """Bool [n]: the rows of a piece that are held out.

    Args:
        drawn: How.
        part: The piece.
        label: Its column of classes, where the split is stratified.
        first: The place of its first row in the table.
    """
    column = drawn.hold_out.column
    if column is not None and drawn.bound is not None:
        return later_rows(drawn.bound, part, part.names.index(column), first)
    if column is not None and drawn.groups is not None:
        return rows_of_groups(drawn.groups, part, part.names.index(column))
    codes = _strata(part, label) if drawn.hold_out.split is Split.STRATIFIED else None
    traits = Traits(np.zeros(part.rows, np.int64), codes, first=first)
    return held_out_rows(drawn.hold_out, traits, drawn.seed)


def _strata(part: Columns, label: int) -> NDArray[np.int64]:
    """The classes of rows as numbers, in the order of the labels."""
    if part.is_text(label):
        return part.codes(label)[1]
    return part.values(label).astype(np.int64)
