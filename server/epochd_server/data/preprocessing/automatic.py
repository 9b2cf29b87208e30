"""Steps chosen by a column's type and its training rows; docs/preprocessing.md states the rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

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
_COUNTED = 1_000_000
"""Further distinct texts are not counted."""


def choose_steps(
    block: Block, kind: ColumnKind, *, independent: bool = False
) -> tuple[tuple[Step, ...], str]:
    """The steps for a column, and a note where its owner should know why.

    Args:
        block: The column in the training rows; at least one.
        kind: What it holds.
        independent: Whether features must not add up to a constant.
    """
    traits = Traits()
    traits.add(block)
    return traits.steps(kind, independent=independent)


@dataclass(slots=True, eq=False)
class Traits:
    """What decides the steps of a column, of some rows after the others; at least one."""

    lacks: bool = False
    known: bool = False
    constant: bool = True
    hours: set[float] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)
    _first: object = None
    _type: type[Block] = Numbers

    def add(self, block: Block) -> None:
        """Takes rows of the column."""
        if not len(block):
            return
        missing = missing_rows(block)
        self.lacks, self.known = self.lacks or bool(missing.any()), self.known or not missing.all()
        self._type = type(block)
        match block:
            case Numbers(values=values):
                first, same = values[0, 0], bool((values == values[0]).all())
            case Texts(codes=codes):
                used = np.unique(codes[codes >= 0])
                self._add_labels(block.distinct[used].tolist())
                first, same = (
                    block.distinct[codes[0]] if codes[0] >= 0 else None,
                    bool((codes == codes[0]).all()),
                )
            case Times(micros=micros):
                self.hours.update(np.unique(part_of(TimePart.HOUR, micros[~missing])).tolist())
                first, same = int(micros[0]), bool((micros == micros[0]).all())
        if self._first is None:
            self._first = first
        self.constant = self.constant and same and bool(first == self._first)

    def _add_labels(self, labels: Sequence[str]) -> None:
        if len(self.labels) <= _COUNTED:
            self.labels.update(labels)

    def steps(self, kind: ColumnKind, *, independent: bool = False) -> tuple[tuple[Step, ...], str]:
        """The steps for the column, and a note; arguments as for :func:`choose_steps`."""
        if not self.known:
            return (Drop(),), "dropped: it has no value in any training row"
        if not self.lacks and self.constant:
            return (Drop(),), "dropped: it has the same value in every training row"
        if self._type is Numbers:
            return _for_numbers(kind, lacks=self.lacks), ""
        if self._type is Texts:
            return _for_texts(len(self.labels), drop_first=independent)
        return _for_times(lacks=self.lacks, hours=len(self.hours) > 1)


def _for_numbers(kind: ColumnKind, *, lacks: bool) -> tuple[Step, ...]:
    if kind is not ColumnKind.BOOLEAN:
        return Impute(fill=Fill.MEDIAN, indicator=lacks), Standardize()
    return (Impute(fill=Fill.MOST_FREQUENT, indicator=True),) if lacks else (Passthrough(),)


def _for_texts(count: int, *, drop_first: bool) -> tuple[tuple[Step, ...], str]:
    if count <= MAX_ONE_HOT:
        return (OneHot(unseen=Unseen.IGNORE, drop_first=drop_first),), ""
    shown = f"more than {_COUNTED:,}" if count > _COUNTED else f"{count:,}"
    return (Hashing(features=HASHED_FEATURES),), f"hashed: it has {shown} categories"


def _for_times(*, lacks: bool, hours: bool) -> tuple[tuple[Step, ...], str]:
    parts = [TimePart.WEEKDAY, TimePart.DAY_OF_YEAR]
    if hours:
        parts.insert(0, TimePart.HOUR)
    return (TimeParts(parts=tuple(parts)), Impute(fill=Fill.CONSTANT, number=0.0, indicator=lacks)), ""
