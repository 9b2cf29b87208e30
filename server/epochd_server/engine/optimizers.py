"""Every optimizer, once: elementwise updates on stacks in which each member has its own hyperparameters.

The updates are those of ``torch.optim`` (single-tensor implementations), operation for operation. Numbers that
change with the step (Adam's bias corrections, SGD's first momentum) are put into a few *scales* for each member
before the step, computed in float64 as PyTorch does; the updates themselves run in the members' precision.

The steps themselves are in :mod:`.optimizer_steps`; what is done to gradients before and to parameters after them
in :mod:`.gradient_rules`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.specs import OptimizerKind
from epochd_server.engine.chain import Slot
from epochd_server.engine.compiling import kernel
from epochd_server.engine.task import CohortTask, Floats, Hyperparameters, Integers

SGD, ADAM, ADAMW, RMSPROP = range(4)
CODES = {
    OptimizerKind.SGD: SGD,
    OptimizerKind.ADAM: ADAM,
    OptimizerKind.ADAMW: ADAMW,
    OptimizerKind.RMSPROP: RMSPROP,
}

# Rows of a hyperparameter table [10, K].
LR, WEIGHT_DECAY, MOMENTUM, DAMPENING, BETA1, BETA2, EPS, ALPHA, L1, L2 = range(10)
# Rows of a table of scales [9, K]; what a row means depends on the optimizer, see refresh_scales.
SCALES = 9


class Method(NamedTuple):
    """What all members of a task have in common about their steps."""

    optimizer: int
    """A value of ``CODES``."""
    nesterov: bool
    """SGD only."""
    centered: bool
    """RMSprop only."""
    max_norm: float
    """Clips a gradient's 2-norm; infinite where it does not."""
    clip_value: float
    """Clips a gradient's entries; infinite where it does not."""
    penalised: NDArray[np.bool_]
    """[P] which parameters a penalty is on; empty where there is none."""


def method_of(task: CohortTask, slots: Iterable[Slot]) -> Method:
    """The method of a task whose trained parameters lie in ``slots``."""
    clipping, values = task.clipping, task.hyperparameters
    weights = [np.full(slot.size, len(slot.shape) > 1) for slot in slots]
    has_penalty = bool(np.any(values.l1) or np.any(values.l2))
    return Method(
        optimizer=CODES[task.optimizer_kind],
        nesterov=values.nesterov,
        centered=values.centered,
        max_norm=math.inf if clipping is None or clipping.max_norm is None else clipping.max_norm,
        clip_value=math.inf if clipping is None or clipping.clip_value is None else clipping.clip_value,
        penalised=np.concatenate(weights) if has_penalty else np.zeros(0, np.bool_),
    )


def moment_sizes(kind: OptimizerKind, size: int) -> tuple[int, int, int]:
    """How long the three state vectors of a member with ``size`` parameters are."""
    code = CODES[kind]
    return size, 0 if code == SGD else size, size if code == RMSPROP else 0


def hyperparameter_table(values: Hyperparameters, members: Integers) -> NDArray[np.float64]:
    """The hyperparameters of some members as a table.

    Returns:
        [10, len(members)]
    """
    columns = (
        values.lr,
        values.weight_decay,
        values.momentum,
        values.dampening,
        values.beta1,
        values.beta2,
        values.eps,
        values.alpha,
        values.l1,
        values.l2,
    )
    return np.stack([np.asarray(column, np.float64)[members] for column in columns])


@kernel
def refresh_scales(
    kind: int,
    table: NDArray[np.float64],
    powers: NDArray[np.float64],
    active: NDArray[np.bool_],
    scales: Floats,
) -> None:
    """Counts one more step of the active members and computes the scales of that step.

    Args:
        kind: A value of ``CODES``.
        table: [10, K]
        powers: [2, K] β₁ᵗ and β₂ᵗ for the t steps made so far, so 1 at the start; updated. SGD keeps 0 in the
            first once a step was made.
        active: [K]
        scales: [9, K], filled but for the last two, which are a penalty's, see :mod:`.gradient_rules`.
    """
    for k in range(table.shape[1]):
        lr = table[LR, k]
        if kind == SGD:
            first = powers[0, k] == 1.0 or table[MOMENTUM, k] == 0.0
            scales[0, k] = -lr
            scales[1, k] = table[WEIGHT_DECAY, k]
            scales[2, k] = table[MOMENTUM, k]
            scales[3, k] = 1.0 if first else 1.0 - table[DAMPENING, k]
            if active[k]:
                powers[0, k] = 0.0
            continue
        if kind == RMSPROP:
            scales[0, k] = -lr
            scales[1, k] = table[WEIGHT_DECAY, k]
            scales[2, k] = table[MOMENTUM, k]
            scales[3, k] = table[ALPHA, k]
            scales[4, k] = 1.0 - table[ALPHA, k]
            scales[5, k] = table[EPS, k]
            continue
        if active[k]:
            powers[0, k] *= table[BETA1, k]
            powers[1, k] *= table[BETA2, k]
        scales[0, k] = -(lr / (1.0 - powers[0, k]))
        decay = table[WEIGHT_DECAY, k]
        scales[1, k] = 1.0 - lr * decay if kind == ADAMW else decay
        scales[2, k] = 1.0 - table[BETA1, k]
        scales[3, k] = table[BETA2, k]
        scales[4, k] = 1.0 - table[BETA2, k]
        scales[5, k] = table[EPS, k]
        scales[6, k] = np.sqrt(1.0 - powers[1, k])
