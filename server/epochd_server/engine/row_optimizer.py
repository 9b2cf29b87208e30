"""An optimizer with its state, for members along the first axis."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from epochd_server.engine.chain import Slot, total_size
from epochd_server.engine.checkpointing import Columns
from epochd_server.engine.gradient_rules import clip_rows, shrink_rows
from epochd_server.engine.optimizer_steps import step_rows
from epochd_server.engine.optimizers import (
    LR,
    SCALES,
    hyperparameter_table,
    method_of,
    moment_sizes,
    refresh_scales,
)
from epochd_server.engine.task import CohortTask, Floats, Integers


class RowOptimizer:
    """The state of an optimizer over stacked parameters [K, P].

    Args:
        task: The whole cohort.
        members: [K] which of them.
        slots: Where their trained parameters lie.
    """

    def __init__(self, task: CohortTask, members: Integers, slots: Iterable[Slot]) -> None:
        slots = tuple(slots)
        count, size = len(members), total_size(slots)
        self._method = method_of(task, slots)
        self._table = hyperparameter_table(task.hyperparameters, members)
        self._powers = np.ones((2, count))
        self._scales = np.zeros((SCALES, count), task.dtype)
        self._first, self._second, self._third = (
            np.zeros((count, length), task.dtype) for length in moment_sizes(task.optimizer_kind, size)
        )

    @property
    def columns(self) -> Columns:
        """What changes from step to step, [K, …] each."""
        return {
            "first": self._first,
            "second": self._second,
            "third": self._third,
            "powers": self._powers.T,
        }

    def set_rates(self, lrs: NDArray[np.float64]) -> None:
        """Sets the learning rates [K] of the steps to come."""
        self._table[LR] = lrs

    def step(self, parameters: Floats, gradients: Floats, active: NDArray[np.bool_]) -> None:
        """Updates ``parameters`` [K, P] in place by ``gradients`` [K, P] where ``active`` [K]; clips these in place."""
        method, scales = self._method, self._scales
        refresh_scales(method.optimizer, self._table, self._powers, active, scales)
        clip_rows(method, gradients, active)
        step_rows(method, parameters, gradients, self._first, self._second, self._third, scales, active)
        shrink_rows(method, self._table, parameters, self._second, self._third, scales, active)
