"""Logged epochs of one run as columns: a thousand strangers log twenty thousand epochs a second.

Legend: P epochs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.runs import EpochLog


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpochColumns(Sequence[EpochLog]):
    """Epochs in order. Each is made an EpochLog only where somebody looks at it.

    Attributes:
        epochs: Their numbers, ascending.
        losses: As in :class:`EpochLog`, like the other columns.
        parameters: [P, …] each, in PyTorch's order; empty where they were not asked for.
    """

    epochs: Sequence[int]
    losses: Sequence[float]
    lrs: Sequence[float]
    rows_per_second: Sequence[float]
    parameters: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.epochs)

    @overload
    def __getitem__(self, index: int) -> EpochLog: ...

    @overload
    def __getitem__(self, index: slice) -> EpochColumns: ...

    def __getitem__(self, index: int | slice) -> EpochLog | EpochColumns:
        if isinstance(index, slice):
            return self._part(index)
        # copies: one epoch that is kept must not keep those of a whole cohort
        values = {name: array[index].copy() for name, array in self.parameters.items()}
        return EpochLog(
            epoch=self.epochs[index],
            loss=self.losses[index],
            lr=self.lrs[index],
            rows_per_second=self.rows_per_second[index],
            parameters=values or None,
        )

    def _part(self, part: slice) -> EpochColumns:
        return EpochColumns(
            epochs=self.epochs[part],
            losses=self.losses[part],
            lrs=self.lrs[part],
            rows_per_second=self.rows_per_second[part],
            parameters={name: array[part] for name, array in self.parameters.items()},
        )
