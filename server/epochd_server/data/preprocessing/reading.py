"""Columns of a training's or a prediction's rows as blocks."""

from __future__ import annotations

import numpy as np

from epochd_server.data.columns import Columns
from epochd_server.data.preprocessing.blocks import Block, Numbers, Times, drop_empty
from epochd_server.domain.data import ColumnKind


def read_block(columns: Columns, index: int) -> Block:
    """A column as a block; NaN, None, NaT and empty texts are missing."""
    name, kind = columns.names[index], columns.kind(index)
    if kind is ColumnKind.TEXT:
        return drop_empty(*columns.codes(index), name)
    values = columns.values(index)
    if kind is ColumnKind.TIMESTAMP:
        return Times(values.astype("M8[us]", copy=False).view(np.int64), name)
    return Numbers(values.astype(np.float64, copy=False).reshape(-1, 1), (name,))
