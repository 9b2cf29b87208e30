"""Fleets in parts: contiguous runs of members, in the order of keys, that any worker may train.

What a member becomes does not depend on the part it is in, so parts are chosen by cost alone. A part takes its own
rows along, or says which rows of a dataset they are.

Legend: K members.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np

from epochd_server.domain.data import TrainingArrays
from epochd_server.domain.fleets import Groups, Keys
from epochd_server.domain.work import DatasetFile, RowChoice, RunWork
from epochd_server.executor.wire import TrainFleet

WORTH_SPLITTING_SECONDS = 0.04
PART_SECONDS = 2.0
"""Of a part, estimated: after each of them other runs may have the worker."""
_MEMBER_ROWS = 8
"""What a member costs besides its rows, in rows."""


def fleet_parts(run: RunWork, workers: int) -> list[TrainFleet]:
    """The parts of a fleet: one where it is small, else as many for each worker."""
    parts = 1
    if run.seconds > WORTH_SPLITTING_SECONDS:
        parts = min(max(run.members, 1), workers * math.ceil(run.seconds / (workers * PART_SECONDS)))
    if run.data.groups is None:
        return [_part(run, run.data, (part, parts)) for part in range(parts)]
    return [_part(run, data, (0, 1)) for data in shares_of(run.data, run.data.groups, parts)]


def _part(run: RunWork, data: TrainingArrays | DatasetFile, share: tuple[int, int]) -> TrainFleet:
    return TrainFleet(run_id=run.run_id, spec=run.spec, data=data, share=share)


def shares_of(
    data: TrainingArrays | DatasetFile, groups: Groups, parts: int
) -> Iterator[TrainingArrays | DatasetFile]:
    """The members of each part and their rows, as views; parts have about equally many rows each."""
    costs = groups.offsets + _MEMBER_ROWS * np.arange(len(groups.offsets))
    cuts = np.searchsorted(costs, costs[-1] * np.arange(parts + 1) / parts).tolist()
    unfit = iter(sorted(groups.unfit.items()))
    counts = np.diff(np.searchsorted(sorted(groups.unfit), cuts)).tolist()
    for (first, last), failed in zip(pairwise(cuts), counts, strict=True):
        begin, end = groups.offsets[[first, last]].tolist()
        mine = Groups(
            keys=keys_of_share(groups.keys, first, last),
            offsets=groups.offsets[first : last + 1] - begin,
            unfit={member - first: reason for member, reason in islice(unfit, failed)},
        )
        yield _share_of(data, mine, slice(begin, end))


def keys_of_share(keys: Keys, first: int, last: int) -> Keys:
    """The keys of the members from ``first`` up to ``last``, which is not among them."""
    return Keys(keys.names, tuple(column[first:last] for column in keys.columns))


def _share_of(
    data: TrainingArrays | DatasetFile, groups: Groups, rows: slice
) -> TrainingArrays | DatasetFile:
    if isinstance(data, DatasetFile):
        return replace(data, groups=groups, rows=_rows_of_share(data.rows, rows))
    return replace(
        data,
        features=data.features[rows],
        targets=data.targets[rows],
        weights=None if data.weights is None else data.weights[rows],
        groups=groups,
    )


def _rows_of_share(chosen: RowChoice, rows: slice) -> RowChoice:
    return chosen[rows] if isinstance(chosen, np.ndarray) else rows
