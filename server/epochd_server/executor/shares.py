"""Fleets in parts: contiguous runs of members, in the order of keys, that any worker may train.

What a member becomes does not depend on the part it is in, so parts are chosen by cost alone.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from epochd_server.domain.data import TrainingArrays
from epochd_server.domain.fleets import Groups, Keys
from epochd_server.domain.work import DatasetFile, RunWork
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
    data = run.data
    if isinstance(data, DatasetFile) or data.groups is None:
        return [_part(run, data, (part, parts)) for part in range(parts)]
    return [_part(run, share_of(data, data.groups, (part, parts)), (0, 1)) for part in range(parts)]


def _part(run: RunWork, data: TrainingArrays | DatasetFile, share: tuple[int, int]) -> TrainFleet:
    return TrainFleet(run_id=run.run_id, spec=run.spec, data=data, share=share)


def share_of(data: TrainingArrays, groups: Groups, share: tuple[int, int]) -> TrainingArrays:
    """The members of a part and their rows, as views; parts have about equally many rows each."""
    part, parts = share
    costs = groups.offsets + _MEMBER_ROWS * np.arange(len(groups.offsets))
    first, last = np.searchsorted(costs, [costs[-1] * part / parts, costs[-1] * (part + 1) / parts]).tolist()
    rows = slice(int(groups.offsets[first]), int(groups.offsets[last]))
    unfit = {member - first: reason for member, reason in groups.unfit.items() if first <= member < last}
    mine = Groups(
        keys=keys_of_share(groups.keys, first, last),
        offsets=groups.offsets[first : last + 1] - groups.offsets[first],
        unfit=unfit,
    )
    return replace(
        data,
        features=data.features[rows],
        targets=data.targets[rows],
        weights=None if data.weights is None else data.weights[rows],
        groups=mine,
    )


def keys_of_share(keys: Keys, first: int, last: int) -> Keys:
    """The keys of the members from ``first`` up to ``last``, which is not among them."""
    return Keys(keys.names, tuple(column[first:last] for column in keys.columns))
