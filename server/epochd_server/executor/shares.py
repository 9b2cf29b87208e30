"""Fleets in parts: contiguous runs of members, in the order of keys, that any worker may train.

What a member becomes does not depend on the part it is in, so parts are chosen by cost alone. A part takes its own
rows along, or says which rows of a dataset they are; keys stay with the server, a worker knows members by number.

Legend: K members of the fleet, M of one part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice, pairwise

import numpy as np

from epochd_server.data.assembly import with_validation
from epochd_server.data.grouping import find_member
from epochd_server.domain.data import TrainingArrays
from epochd_server.domain.fleets import Groups, Keys
from epochd_server.domain.runs import Parameters
from epochd_server.domain.work import DatasetFile, RowChoice, RunWork
from epochd_server.executor.wire import TrainFleet

WORTH_SPLITTING_SECONDS = 0.04
PART_SECONDS = 2.0
"""Of a part, estimated: after each of them other runs may have the worker."""
_MEMBER_ROWS = 8
"""What a member costs besides its rows, in rows."""
_NO_KEYS = Keys((), ())


@dataclass(frozen=True, slots=True, eq=False)
class FleetPart:
    """A part of a fleet.

    Attributes:
        work: What a worker is sent.
        first: Its first member.
        last: The one after its last.
    """

    work: TrainFleet
    first: int
    last: int


def keys_of(run: RunWork) -> Keys:
    """The keys of a fleet's K members."""
    if run.spec.sweep is not None:
        return run.spec.sweep.keys()
    if run.data.groups is None:
        raise ValueError("a fleet needs groups or a sweep")
    return run.data.groups.keys


def fleet_parts(run: RunWork, workers: int) -> list[FleetPart]:
    """The parts of a fleet: one where it is small, else as many for each worker."""
    keys, groups, parts = keys_of(run), run.data.groups, 1
    if run.seconds > WORTH_SPLITTING_SECONDS:
        parts = min(max(len(keys), 1), workers * math.ceil(run.seconds / (workers * PART_SECONDS)))
    cuts = _even_cuts(len(keys), parts) if groups is None else _cuts_by_cost(groups, parts)
    shares = [run.data] * parts if groups is None else _shares(run.data, groups, cuts)
    asked = [find_member(keys, key) for key in run.spec.logging.members]
    logged = [member for member in asked if member is not None]
    return [
        FleetPart(
            TrainFleet(
                run_id=run.run_id,
                spec=run.spec,
                data=data,
                share=(first, last),
                logged=tuple(member - first for member in logged if first <= member < last),
                initial=_some_members(run.initial, slice(first, last)),
            ),
            first,
            last,
        )
        for (first, last), data in zip(pairwise(cuts), shares, strict=True)
    ]


def _some_members(initial: Parameters | None, members: slice) -> Parameters | None:
    return None if initial is None else {name: array[members] for name, array in initial.items()}


def _even_cuts(members: int, parts: int) -> list[int]:
    return [members * part // parts for part in range(parts + 1)]


def _cuts_by_cost(groups: Groups, parts: int) -> list[int]:
    """Where parts begin and end that have about equally many rows each."""
    costs = groups.offsets + _MEMBER_ROWS * np.arange(len(groups.offsets))
    cuts: list[int] = np.searchsorted(costs, costs[-1] * np.arange(parts + 1) / parts).tolist()
    return cuts


def _shares(
    data: TrainingArrays | DatasetFile, groups: Groups, cuts: list[int]
) -> Iterator[TrainingArrays | DatasetFile]:
    """The rows of each part, as views."""
    unfit = iter(sorted(groups.unfit.items()))
    counts = np.diff(np.searchsorted(sorted(groups.unfit), cuts)).tolist()
    for (first, last), failed in zip(pairwise(cuts), counts, strict=True):
        begin, end = groups.offsets[[first, last]].tolist()
        mine = Groups(
            keys=_NO_KEYS,
            offsets=groups.offsets[first : last + 1] - begin,
            unfit={member - first: reason for member, reason in islice(unfit, failed)},
        )
        share = _share_of(data, mine, slice(begin, end), slice(first, last))
        yield share if share.validation is None else _with_held_out(share, share.validation, first, last)


def _with_held_out(
    share: TrainingArrays | DatasetFile,
    held_out: TrainingArrays | DatasetFile,
    first: int,
    last: int,
) -> TrainingArrays | DatasetFile:
    """A part with its own of the held-out rows of all members."""
    if held_out.groups is None:
        raise ValueError("a fleet's held-out rows need groups")
    offsets = held_out.groups.offsets
    begin, end = offsets[[first, last]].tolist()
    mine = Groups(keys=_NO_KEYS, offsets=offsets[first : last + 1] - begin, unfit={})
    return with_validation(share, _share_of(held_out, mine, slice(begin, end), slice(first, last)))


def _share_of(
    data: TrainingArrays | DatasetFile, groups: Groups, rows: slice, members: slice
) -> TrainingArrays | DatasetFile:
    if isinstance(data, DatasetFile):
        fitted = data.preprocess
        if fitted is not None and fitted.statistics is not None:
            fitted = replace(fitted, statistics=fitted.statistics[members])
        return replace(data, groups=groups, rows=_rows_of_share(data.rows, rows), preprocess=fitted)
    return replace(
        data,
        features=data.features[rows],
        targets=data.targets[rows],
        weights=None if data.weights is None else data.weights[rows],
        groups=groups,
    )


def _rows_of_share(chosen: RowChoice, rows: slice) -> RowChoice:
    return chosen[rows] if isinstance(chosen, np.ndarray) else rows
