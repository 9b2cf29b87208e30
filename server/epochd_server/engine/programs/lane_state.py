"""What a block of lanes is made of: one member in each lane, and what a chunk of epochs leaves behind."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from epochd_server.engine.checkpointing import Columns
from epochd_server.engine.task import Floats, Integers


class State(NamedTuple):
    """What changes from epoch to epoch; arrays [·, L]."""

    parameters: Floats
    first: Floats
    second: Floats
    third: Floats
    powers: NDArray[np.float64]
    table: NDArray[np.float64]
    alive: NDArray[np.bool_]
    """[L]"""
    epochs: Integers
    """[L] how many epochs a lane shall make."""
    ended: Integers
    """[L] epochs a lane had made when it ended; −1 before that."""
    final: Floats
    """[P, L] the parameters of lanes that ended, as they were then."""

    @property
    def columns(self) -> Columns:
        """What a lane goes on from, as views [L, …]."""
        return {
            "parameters": self.parameters.T,
            "first": self.first.T,
            "second": self.second.T,
            "third": self.third.T,
            "powers": self.powers.T,
        }


class Record(NamedTuple):
    """What a chunk of E epochs leaves behind."""

    lrs: NDArray[np.float64]
    """[E, L] learning rates, or [0, L] where they do not change."""
    wanted: NDArray[np.bool_]
    """[E, L] which epochs a lane logs."""
    losses: NDArray[np.float64]
    """[E, L], at least where wanted."""
    snapshot_of: Integers
    """[E] which snapshot an epoch's parameters go to, or −1."""
    snapshots: Floats
    """[S, P, L]"""
