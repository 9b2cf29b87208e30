"""What is done to gradients before a step and to parameters after it: clipping, and the proximal step of a penalty.

A gradient's norm is summed in float64 from the first entry to the last; its factor is that of
``torch.nn.utils.clip_grad_norm_``: max_norm / (norm + 1e-6), at most 1. A penalty's step is that of
:class:`epochd_server.domain.specs.Penalty`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochd_server.engine.compiling import kernel
from epochd_server.engine.optimizers import ADAM, ADAMW, L1, L2, LR, MOMENTUM, RMSPROP, SGD, Method
from epochd_server.engine.task import Floats

_NORM_EPS = 1e-6


@kernel
def clip_lanes(
    method: Method, gradients: Floats, norms: NDArray[np.float64], active: NDArray[np.bool_]
) -> None:
    """Clips the gradients [P, L] of the active lanes; ``norms`` [L] is scratch."""
    lanes = gradients.shape[1]
    if method.clip_value < np.inf:
        high = gradients.dtype.type(method.clip_value)
        for p in range(gradients.shape[0]):
            for lane in range(lanes):
                old = gradients[p, lane]
                gradients[p, lane] = _clipped(old, high) if active[lane] else old
    if method.max_norm < np.inf:
        norms[:] = 0.0
        for p in range(gradients.shape[0]):
            for lane in range(lanes):
                norms[lane] += np.float64(gradients[p, lane]) * np.float64(gradients[p, lane])
        for lane in range(lanes):
            factor = method.max_norm / (np.sqrt(norms[lane]) + _NORM_EPS)
            norms[lane] = factor if factor < 1.0 and active[lane] else 1.0
        for p in range(gradients.shape[0]):
            for lane in range(lanes):
                gradients[p, lane] *= gradients.dtype.type(norms[lane])


@kernel
def clip_rows(method: Method, gradients: Floats, active: NDArray[np.bool_]) -> None:
    """:func:`clip_lanes` for the layout [K, P]."""
    for k in range(gradients.shape[0]):
        if not active[k]:
            continue
        if method.clip_value < np.inf:
            high = gradients.dtype.type(method.clip_value)
            for p in range(gradients.shape[1]):
                gradients[k, p] = _clipped(gradients[k, p], high)
        if method.max_norm < np.inf:
            square = 0.0
            for p in range(gradients.shape[1]):
                square += np.float64(gradients[k, p]) * np.float64(gradients[k, p])
            factor = method.max_norm / (np.sqrt(square) + _NORM_EPS)
            factor = factor if factor < 1.0 else 1.0
            for p in range(gradients.shape[1]):
                gradients[k, p] *= gradients.dtype.type(factor)


@kernel
def _clipped(value: Any, high: Any) -> Any:
    """``value`` within ±high; NaN stays NaN."""
    return high if value > high else (-high if value < -high else value)


@kernel
def _scale_penalty(method: Method, table: NDArray[np.float64], scales: Floats) -> None:
    """What a step takes off, before Adam's and RMSprop's division: rows 7 and 8 of ``scales``."""
    adam = method.optimizer in (ADAM, ADAMW)
    for k in range(table.shape[1]):
        unit = table[LR, k] if adam else table[LR, k] / (1.0 - table[MOMENTUM, k])
        scales[7, k] = unit * table[L1, k]
        scales[8, k] = unit * table[L2, k]


@kernel
def shrink_lanes(
    method: Method,
    table: NDArray[np.float64],
    parameters: Floats,
    second: Floats,
    third: Floats,
    scales: Floats,
    active: NDArray[np.bool_],
) -> None:
    """The proximal step of the active lanes' penalised parameters [P, L], after the optimizer's.

    Args:
        method: Says which parameters.
        table: [10, L]
        parameters: [P, L]
        second: The optimizer's state after its step, see :mod:`epochd_server.engine.optimizer_steps`.
        third: The same.
        scales: [9, L] of this step.
        active: [L]
    """
    if len(method.penalised) == 0:
        return
    _scale_penalty(method, table, scales)
    one = parameters.dtype.type(1)
    for p in range(len(method.penalised)):
        if not method.penalised[p]:
            continue
        for lane in range(parameters.shape[1]):
            divisor = one
            if method.optimizer != SGD:
                mean = third[p, lane] if method.optimizer == RMSPROP else one
                divisor = _divisor(method, second[p, lane], mean, scales[5, lane], scales[6, lane])
            old = parameters[p, lane]
            new = _shrunk(old, scales[7, lane] / divisor) / (one + scales[8, lane] / divisor)
            parameters[p, lane] = new if active[lane] else old


@kernel
def shrink_rows(
    method: Method,
    table: NDArray[np.float64],
    parameters: Floats,
    second: Floats,
    third: Floats,
    scales: Floats,
    active: NDArray[np.bool_],
) -> None:
    """:func:`shrink_lanes` for the layout [K, P]."""
    if len(method.penalised) == 0:
        return
    _scale_penalty(method, table, scales)
    one = parameters.dtype.type(1)
    for k in range(parameters.shape[0]):
        if not active[k]:
            continue
        for p in range(len(method.penalised)):
            if method.penalised[p]:
                divisor = one
                if method.optimizer != SGD:
                    mean = third[k, p] if method.optimizer == RMSPROP else one
                    divisor = _divisor(method, second[k, p], mean, scales[5, k], scales[6, k])
                shrunk = _shrunk(parameters[k, p], scales[7, k] / divisor)
                parameters[k, p] = shrunk / (one + scales[8, k] / divisor)


@kernel
def _divisor(method: Method, square: Any, mean: Any, eps: Any, correction: Any) -> Any:
    """What Adam or RMSprop divides an entry's step by."""
    if method.optimizer == RMSPROP:
        return np.sqrt(square - mean * mean if method.centered else square) + eps
    return np.sqrt(square) / correction + eps


@kernel
def _shrunk(value: Any, threshold: Any) -> Any:
    """sign(v) max(|v| − threshold, 0); NaN stays NaN."""
    zero = value - value  # NaN of NaN
    less = value - threshold if value > threshold else (value + threshold if value < -threshold else zero)
    return less if threshold > 0 else value
