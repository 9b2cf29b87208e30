"""The folds of a cross-validation: the rows of their members, as the engine takes them.

Legend: M members of a part of a fleet, N rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.splitting import trained_rows
from epochd_server.domain.data import TrainingArrays
from epochd_server.domain.fleets import Sweep
from epochd_server.domain.validation import Folds
from epochd_server.engine.cohort import CohortData
from epochd_server.executor.narrowing import Narrowing, narrowing_of
from epochd_server.executor.wire import TrainFleet

_COPIED_BYTES = 64 * 2**20
"""Rows of all folds' members together are copied into one task up to so many bytes; else each fold has its own."""

OfFold = Callable[[int], TrainingArrays]
"""All rows with the features that the member of a fold sees."""


class Folding:
    """Which rows the members of a part are trained and measured on.

    Args:
        work: The part.
        sweep: With folds.
        numbers: int16 [N], the fold of each row.
    """

    def __init__(self, work: TrainFleet, sweep: Sweep, numbers: NDArray[np.int16]) -> None:
        validation = work.spec.validation
        if validation is None or not isinstance(validation.rows, Folds):
            raise ValueError("folds are held out by a validation")
        self._split = validation.rows.split
        self._numbers = numbers
        self.spec = work.spec
        first, last = work.share
        self.of_members: NDArray[np.int64] = sweep.keys().columns[-1][first:last].astype(np.int64)
        """[M] the fold of each member."""

    def trained(self, fold: int) -> NDArray[np.bool_]:
        """Bool [N]: the rows that a fold's members are trained on."""
        return trained_rows(self._numbers, fold, self._split)

    def held(self, fold: int) -> NDArray[np.bool_]:
        """Bool [N]: the rows that a fold's members are measured on."""
        return np.asarray(self._numbers == fold)


@dataclass(frozen=True, slots=True, eq=False)
class FoldBatch:
    """Members that one task trains.

    Attributes:
        members: Their numbers in the part.
        data: What they are trained on.
        held_out: What they are measured on.
        shared: Whether all of them have the same rows, which are there once.
        narrowing: What they are fitted without; None: nothing.
    """

    members: NDArray[np.int64]
    data: CohortData
    held_out: CohortData
    shared: bool
    narrowing: Narrowing | None


def fold_batches(folding: Folding, of_fold: OfFold, members: NDArray[np.int64]) -> Iterator[FoldBatch]:
    """The batches in which some members of a part, one at least, are trained, one after the other."""
    folds = folding.of_members[members]
    distinct: list[int] = np.unique(folds).tolist()
    rows = {distinct[0]: of_fold(distinct[0])}
    if rows[distinct[0]].nbytes * len(members) <= _COPIED_BYTES:
        rows |= {fold: of_fold(fold) for fold in distinct[1:]}
        yield from _together(folding, rows, members)
        return
    for fold in distinct:
        one = rows.pop(fold) if rows else of_fold(fold)
        narrowing = narrowing_of(folding.spec, one, folding.trained(fold))
        yield _batch(folding, {fold: one}, members[folds == fold], [fold], narrowing)


def _together(
    folding: Folding, rows: Mapping[int, TrainingArrays], members: NDArray[np.int64]
) -> Iterator[FoldBatch]:
    """Batches of members that are fitted with the same features; rows of each are copied."""
    narrowed = {fold: narrowing_of(folding.spec, one, folding.trained(fold)) for fold, one in rows.items()}
    batches: dict[bytes, list[int]] = {}
    for fold, narrowing in narrowed.items():
        batches.setdefault(b"" if narrowing is None else narrowing.places.tobytes(), []).append(fold)
    for folds in batches.values():
        chosen = members[np.isin(folding.of_members[members], folds)]
        each = folding.of_members[chosen].tolist()
        yield _batch(folding, rows, chosen, each, narrowed[folds[0]], shared=False)


def _batch(
    folding: Folding,
    rows: Mapping[int, TrainingArrays],
    members: NDArray[np.int64],
    folds: Sequence[int],
    narrowing: Narrowing | None,
    *,
    shared: bool = True,
) -> FoldBatch:
    """A batch with the rows of ``folds``: one for each member, or the one of all."""
    data = _copies([rows[fold] for fold in folds], [folding.trained(fold) for fold in folds])
    held_out = _copies([rows[fold] for fold in folds], [folding.held(fold) for fold in folds])
    if narrowing is not None:
        data, held_out = narrowing.rows(data), narrowing.rows(held_out)
    return FoldBatch(members, data, held_out, shared, narrowing)


def _copies(rows: Sequence[TrainingArrays], chosen: Sequence[NDArray[np.bool_]]) -> CohortData:
    """Some rows for each of several members, one member after the other."""
    weights = [one.weights[those] for one, those in zip(rows, chosen, strict=True) if one.weights is not None]
    return CohortData(
        features=np.concatenate([one.features[those] for one, those in zip(rows, chosen, strict=True)]),
        targets=np.concatenate([one.targets[those] for one, those in zip(rows, chosen, strict=True)]),
        offsets=np.cumsum([0, *(np.count_nonzero(those) for those in chosen)]).astype(np.int64),
        weights=np.concatenate(weights) if weights else None,
    )
