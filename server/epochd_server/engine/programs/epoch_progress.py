"""Where members are within an epoch: what is added up batch by batch, so that a long epoch need not be begun anew."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike, NDArray

from epochd_server.engine.checkpointing import Columns
from epochd_server.engine.task import CohortTask, Integers

LOOK_SECONDS = 0.1
"""How often to look, within an epoch, whether members shall stop or are to be saved."""

_BATCHES = "batches"


def batches_made(task: CohortTask) -> Integers:
    """int64 [K]: the batches that each member of a task has made of the epoch that it begins with."""
    made = np.zeros(task.members, np.int64)
    for member, checkpoint in task.resume.items():
        made[member] = checkpoint.state[_BATCHES]
    return made


class EpochProgress:
    """Of K members that take their batches together; between two epochs nothing is added up.

    Args:
        members: K.
        gathered: Numbers of a member's gradient that several batches share; 0 where each makes a step of its own.
        dtype: Of these numbers.
    """

    def __init__(self, members: int, gathered: int = 0, dtype: DTypeLike = np.float64) -> None:
        self._batches = np.zeros(members, np.int64)
        self._losses = np.zeros(members)
        self._weights = np.zeros(members)
        self.gathered = np.zeros((members, gathered), dtype)
        """[K, gathered] what the batches of a step have made of its gradient so far."""

    @property
    def columns(self) -> Columns:
        """What changes from batch to batch, [K, …] each."""
        return {
            _BATCHES: self._batches,
            "loss_sum": self._losses,
            "weight_sum": self._weights,
            "gathered": self.gathered,
        }

    @property
    def batches(self) -> int:
        """How many are made."""
        return int(self._batches[0])

    @property
    def weights(self) -> NDArray[np.float64]:
        """[K] of the rows of these batches."""
        return self._weights

    def add(self, weighted_losses: float | NDArray[np.float64], weights: float | NDArray[np.float64]) -> None:
        """Takes a batch: [K] its losses times the weights of its rows, and these."""
        self._losses += weighted_losses
        self._weights += weights
        self._batches += 1

    def end(self) -> NDArray[np.float64]:
        """The epoch's losses [K], NaN where no row has a weight; the next one can begin."""
        with np.errstate(invalid="ignore"):
            losses = self._losses / self._weights
        for sums in (self._batches, self._losses, self._weights):
            sums[:] = 0
        return losses
