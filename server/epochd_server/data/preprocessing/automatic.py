"""Steps chosen by a column's type and its training rows; docs/preprocessing.md states the rule."""

from __future__ import annotations

import numpy as np

from epochd_server.data.preprocessing.blocks import Block, Numbers, Texts, Times, missing_rows
from epochd_server.data.preprocessing.times import part_of
from epochd_server.domain.data import ColumnKind
from epochd_server.domain.preprocessing import (
    Drop,
    Fill,
    Hashing,
    Impute,
    OneHot,
    Passthrough,
    Standardize,
    Step,
    TimePart,
    TimeParts,
    Unseen,
)

MAX_ONE_HOT = 50
HASHED_FEATURES = 64


def choose_steps(
    block: Block, kind: ColumnKind, *, independent: bool = False
) -> tuple[tuple[Step, ...], str]:
    """The steps for a column, and a note where its owner should know why.

    Args:
        block: The column in the training rows; at least one.
        kind: What it holds.
        independent: Whether features must not add up to a constant.
    """
    missing = missing_rows(block)
    if missing.all():
        return (Drop(),), "dropped: it has no value in any training row"
    lacks = bool(missing.any())
    if not lacks and _is_constant(block):
        return (Drop(),), "dropped: it has the same value in every training row"
    match block:
        case Numbers():
            return _for_numbers(kind, lacks=lacks), ""
        case Texts():
            return _for_texts(block, drop_first=independent)
        case Times():
            return _for_times(block, lacks=lacks), ""


def _for_numbers(kind: ColumnKind, *, lacks: bool) -> tuple[Step, ...]:
    if kind is not ColumnKind.BOOLEAN:
        return Impute(fill=Fill.MEDIAN, indicator=lacks), Standardize()
    return (Impute(fill=Fill.MOST_FREQUENT, indicator=True),) if lacks else (Passthrough(),)


def _for_texts(block: Texts, *, drop_first: bool) -> tuple[tuple[Step, ...], str]:
    count = len(np.unique(block.codes[block.codes >= 0]))
    if count <= MAX_ONE_HOT:
        return (OneHot(unseen=Unseen.IGNORE, drop_first=drop_first),), ""
    return (Hashing(features=HASHED_FEATURES),), f"hashed: it has {count:,} categories"


def _for_times(block: Times, *, lacks: bool) -> tuple[Step, ...]:
    known = block.micros[~missing_rows(block)]
    parts = [TimePart.WEEKDAY, TimePart.DAY_OF_YEAR]
    hours = part_of(TimePart.HOUR, known)
    if hours.min() != hours.max():
        parts.insert(0, TimePart.HOUR)
    return TimeParts(parts=tuple(parts)), Impute(fill=Fill.CONSTANT, number=0.0, indicator=lacks)


def _is_constant(block: Block) -> bool:
    match block:
        case Numbers(values=values):
            return bool((values == values[0]).all())
        case Texts(codes=codes):
            return bool((codes == codes[0]).all())
        case Times(micros=micros):
            return bool((micros == micros[0]).all())
