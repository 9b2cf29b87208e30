"""Where the members of a training begin that continues a version.

Legend: K members of the training.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.fleets import Keys, Members, MemberState
from epochd_server.domain.member_index import UNKNOWN, MemberIndex
from epochd_server.domain.runs import Parameters


def start_values(
    parameters: Parameters, members: Members | None, keys: Keys | None, dtype: np.dtype[np.floating]
) -> Parameters:
    """The values to begin with, in the training's precision.

    Args:
        parameters: Of the version that is continued.
        members: Its members; None where it is a single model.
        keys: Of the K members of the training; None for one model.
        dtype: The training's.

    Returns:
        By name: those of one model, or [K, …] each, NaN for members that the version has not trained.
    """
    if keys is None:
        return {name: array.astype(dtype) for name, array in parameters.items()}
    if members is None:
        return {
            name: np.broadcast_to(array.astype(dtype), (len(keys), *array.shape))
            for name, array in parameters.items()
        }
    found = _trained_members(members, keys)
    values = {name: array[found].astype(dtype) for name, array in parameters.items()}
    for array in values.values():
        array[found == UNKNOWN] = np.nan
    return values


def _trained_members(members: Members, keys: Keys) -> NDArray[np.int64]:
    """The version's member [K] of each key that it has trained, or UNKNOWN."""
    pairs = zip(members.keys.columns, keys.columns, strict=True)
    if any((theirs.dtype == object) != (ours.dtype == object) for theirs, ours in pairs):
        return np.full(len(keys), UNKNOWN)
    found = MemberIndex(members.keys).find(keys.columns)
    return np.where(members.states[found] == MemberState.SUCCEEDED, found, UNKNOWN)
