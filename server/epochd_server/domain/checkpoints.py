"""Where a training is between two epochs or batches: enough to go on as if it had never been interrupted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FORMAT = 3
"""Goes up whenever the engine would go on differently from a state that an earlier one saved."""

MOST_COST = 0.01
"""Of the time that checkpoints may take: those that take long are made less often."""

State = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, eq=False)
class MemberCheckpoint:
    """Where one member of a cohort is.

    Attributes:
        epoch: The epoch that comes next or that it is in, so how many it has made.
        state: What the engine saved of it, by name: parameters, the optimizer's moments, the best so far …
    """

    epoch: int
    state: State


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """Where a run is.

    Attributes:
        members: The members in training, by number; a single model is member 0.
        ended: Fleets: what became of all members that have ended, as columns [K, …] over all members.
        training_seconds: How long the run was in training so far.
    """

    members: Mapping[int, MemberCheckpoint]
    ended: State = field(default_factory=dict)
    training_seconds: float = 0.0

    @property
    def epochs(self) -> int:
        """The epoch that a single model goes on with; of a fleet the furthest member's."""
        return max((member.epoch for member in self.members.values()), default=0)

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        states = (*(member.state for member in self.members.values()), self.ended)
        return sum(array.nbytes for state in states for array in state.values())
