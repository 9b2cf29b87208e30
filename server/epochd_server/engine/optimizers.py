"""Every optimizer, once: elementwise updates on stacks in which each member has its own hyperparameters.

The updates are those of ``torch.optim`` (single-tensor implementations), operation for operation. Numbers that
change with the step (Adam's bias corrections, SGD's first momentum) are put into a few *scales* for each member
before the step, computed in float64 as PyTorch does; the updates themselves run in the members' precision.

Two layouts share them: ``step_lanes`` has members along the last, contiguous axis ([P, L], the small-model
kernels), ``step_rows`` along the first ([K, P], big models and registered modules).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.specs import OptimizerKind
from epochd_server.engine.compiling import kernel
from epochd_server.engine.task import Floats, Hyperparameters, Integers

SGD, ADAM, ADAMW = 0, 1, 2
CODES = {OptimizerKind.SGD: SGD, OptimizerKind.ADAM: ADAM, OptimizerKind.ADAMW: ADAMW}

# Rows of a hyperparameter table [7, K].
LR, WEIGHT_DECAY, MOMENTUM, DAMPENING, BETA1, BETA2, EPS = range(7)
# Rows of a table of scales [7, K]; what a row means depends on the optimizer, see refresh_scales.
SCALES = 7


def hyperparameter_table(values: Hyperparameters, members: Integers) -> NDArray[np.float64]:
    """The hyperparameters of some members as a table.

    Returns:
        [7, len(members)]
    """
    columns = (
        values.lr,
        values.weight_decay,
        values.momentum,
        values.dampening,
        values.beta1,
        values.beta2,
        values.eps,
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
        kind: ``SGD``, ``ADAM`` or ``ADAMW``.
        table: [7, K]
        powers: [2, K] β₁ᵗ and β₂ᵗ for the t steps made so far, so 1 at the start; updated. SGD keeps 0 in the
            first once a step was made.
        active: [K]
        scales: [7, K], filled.
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


@kernel
def step_lanes(
    kind: int,
    nesterov: bool,
    parameters: Floats,
    gradients: Floats,
    first: Floats,
    second: Floats,
    scales: Floats,
    active: NDArray[np.bool_],
) -> None:
    """One step of L members, in place; inactive members keep parameters and state.

    Args:
        kind: ``SGD``, ``ADAM`` or ``ADAMW``.
        nesterov: SGD only.
        parameters: [P, L]
        gradients: [P, L]
        first: [P, L] SGD's momentum buffer or Adam's first moment.
        second: [P, L] Adam's second moment.
        scales: [7, L] of this step.
        active: [L]
    """
    for p in range(parameters.shape[0]):
        if kind == SGD:
            for lane in range(parameters.shape[1]):
                old, buffer = parameters[p, lane], first[p, lane]
                gradient = gradients[p, lane] + scales[1, lane] * old
                buffer_new = scales[2, lane] * buffer + scales[3, lane] * gradient
                direction = gradient + scales[2, lane] * buffer_new if nesterov else buffer_new
                new = old + scales[0, lane] * direction
                parameters[p, lane] = new if active[lane] else old
                first[p, lane] = buffer_new if active[lane] else buffer
        else:
            for lane in range(parameters.shape[1]):
                old, moment, square = parameters[p, lane], first[p, lane], second[p, lane]
                gradient = gradients[p, lane]
                decayed = old
                if kind == ADAMW:
                    decayed = old * scales[1, lane]
                else:
                    gradient = gradient + scales[1, lane] * old
                moment_new = moment + scales[2, lane] * (gradient - moment)
                square_new = square * scales[3, lane] + scales[4, lane] * gradient * gradient
                denominator = np.sqrt(square_new) / scales[6, lane] + scales[5, lane]
                new = decayed + scales[0, lane] * moment_new / denominator
                parameters[p, lane] = new if active[lane] else old
                first[p, lane] = moment_new if active[lane] else moment
                second[p, lane] = square_new if active[lane] else square


@kernel
def step_rows(
    kind: int,
    nesterov: bool,
    parameters: Floats,
    gradients: Floats,
    first: Floats,
    second: Floats,
    scales: Floats,
    active: NDArray[np.bool_],
) -> None:
    """:func:`step_lanes` for the layout [K, P], with scales [7, K] and active [K]."""
    for k in range(parameters.shape[0]):
        if not active[k]:
            continue
        s0, s1, s2, s3 = scales[0, k], scales[1, k], scales[2, k], scales[3, k]
        s4, s5, s6 = scales[4, k], scales[5, k], scales[6, k]
        if kind == SGD:
            for p in range(parameters.shape[1]):
                gradient = gradients[k, p] + s1 * parameters[k, p]
                buffer = s2 * first[k, p] + s3 * gradient
                first[k, p] = buffer
                direction = gradient + s2 * buffer if nesterov else buffer
                parameters[k, p] = parameters[k, p] + s0 * direction
        else:
            for p in range(parameters.shape[1]):
                gradient, decayed = gradients[k, p], parameters[k, p]
                if kind == ADAMW:
                    decayed = decayed * s1
                else:
                    gradient = gradient + s1 * decayed
                moment = first[k, p] + s2 * (gradient - first[k, p])
                square = second[k, p] * s3 + s4 * gradient * gradient
                first[k, p] = moment
                second[k, p] = square
                parameters[k, p] = decayed + s0 * moment / (np.sqrt(square) / s6 + s5)


class RowOptimizer:
    """The state of an optimizer over stacked parameters [K, P].

    Args:
        kind: Which optimizer.
        table: [7, K] hyperparameters.
        nesterov: SGD only.
        shape: (K, P).
        dtype: Of the parameters.
    """

    def __init__(
        self,
        kind: OptimizerKind,
        table: NDArray[np.float64],
        nesterov: bool,
        shape: tuple[int, int],
        dtype: np.dtype[np.floating],
    ) -> None:
        self._kind = CODES[kind]
        self._nesterov = nesterov
        self._table = table
        self._powers = np.ones((2, shape[0]))
        self._scales = np.zeros((SCALES, shape[0]), dtype)
        self._first = np.zeros(shape, dtype)
        self._second = np.zeros(shape if self._kind != SGD else (shape[0], 0), dtype)

    def step(self, parameters: Floats, gradients: Floats, active: NDArray[np.bool_]) -> None:
        """Updates ``parameters`` [K, P] in place by ``gradients`` [K, P] where ``active`` [K]."""
        refresh_scales(self._kind, self._table, self._powers, active, self._scales)
        step_rows(
            self._kind,
            self._nesterov,
            parameters,
            gradients,
            self._first,
            self._second,
            self._scales,
            active,
        )
