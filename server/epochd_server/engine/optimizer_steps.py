"""The optimizers' elementwise steps, in two layouts.

``step_lanes`` has members along the last, contiguous axis ([P, L], the small-model kernels), ``step_rows`` along the
first ([K, P], big models and registered modules). The scales are those of
:func:`epochd_server.engine.optimizers.refresh_scales`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from epochd_server.engine.compiling import kernel
from epochd_server.engine.optimizers import ADAMW, RMSPROP, SGD, Method
from epochd_server.engine.task import Floats


@kernel
def step_lanes(
    method: Method,
    parameters: Floats,
    gradients: Floats,
    first: Floats,
    second: Floats,
    third: Floats,
    scales: Floats,
    active: NDArray[np.bool_],
) -> None:
    """One step of L members, in place; inactive members keep parameters and state.

    Args:
        method: Which optimizer.
        parameters: [P, L]
        gradients: [P, L]
        first: [P, L] SGD's and RMSprop's momentum buffer, or Adam's first moment.
        second: [P, L] Adam's second moment, or RMSprop's mean square.
        third: [P, L] RMSprop's mean gradient.
        scales: [9, L] of this step.
        active: [L]
    """
    kind = method.optimizer
    if kind == RMSPROP:
        _rmsprop_lanes(method.centered, parameters, gradients, first, second, third, scales, active)
        return
    for p in range(parameters.shape[0]):
        if kind == SGD:
            for lane in range(parameters.shape[1]):
                old, buffer = parameters[p, lane], first[p, lane]
                gradient = gradients[p, lane] + scales[1, lane] * old
                buffer_new = scales[2, lane] * buffer + scales[3, lane] * gradient
                direction = gradient + scales[2, lane] * buffer_new if method.nesterov else buffer_new
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
def _rmsprop_lanes(
    centered: bool,
    parameters: Floats,
    gradients: Floats,
    first: Floats,
    second: Floats,
    third: Floats,
    scales: Floats,
    active: NDArray[np.bool_],
) -> None:
    zero = parameters.dtype.type(0)
    for p in range(parameters.shape[0]):
        for lane in range(parameters.shape[1]):
            old, buffer = parameters[p, lane], first[p, lane]
            square, mean = second[p, lane], third[p, lane]
            gradient = gradients[p, lane] + scales[1, lane] * old
            square_new = square * scales[3, lane] + scales[4, lane] * gradient * gradient
            mean_new = mean + scales[4, lane] * (gradient - mean)
            variance = square_new - mean_new * mean_new if centered else square_new
            average = np.sqrt(variance) + scales[5, lane]
            buffer_new = scales[2, lane] * buffer + gradient / average
            plain = scales[0, lane] * gradient / average
            step = plain if scales[2, lane] == zero else scales[0, lane] * buffer_new
            parameters[p, lane] = old + step if active[lane] else old
            first[p, lane] = buffer_new if active[lane] else buffer
            second[p, lane] = square_new if active[lane] else square
            third[p, lane] = mean_new if active[lane] else mean


@kernel
def step_rows(
    method: Method,
    parameters: Floats,
    gradients: Floats,
    first: Floats,
    second: Floats,
    third: Floats,
    scales: Floats,
    active: NDArray[np.bool_],
) -> None:
    """:func:`step_lanes` for the layout [K, P], with scales [9, K] and active [K]."""
    kind = method.optimizer
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
                direction = gradient + s2 * buffer if method.nesterov else buffer
                parameters[k, p] = parameters[k, p] + s0 * direction
        elif kind == RMSPROP:
            _rmsprop_row(method.centered, parameters, gradients, first, second, third, scales, k)
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


@kernel
def _rmsprop_row(
    centered: bool,
    parameters: Floats,
    gradients: Floats,
    first: Floats,
    second: Floats,
    third: Floats,
    scales: Floats,
    k: int,
) -> None:
    s0, s1, s2 = scales[0, k], scales[1, k], scales[2, k]
    s3, s4, s5 = scales[3, k], scales[4, k], scales[5, k]
    for p in range(parameters.shape[1]):
        gradient = gradients[k, p] + s1 * parameters[k, p]
        square = second[k, p] * s3 + s4 * gradient * gradient
        mean = third[k, p] + s4 * (gradient - third[k, p])
        variance = square - mean * mean if centered else square
        average = np.sqrt(variance) + s5
        buffer = s2 * first[k, p] + gradient / average
        first[k, p], second[k, p], third[k, p] = buffer, square, mean
        step = s0 * gradient / average if s2 == 0 else s0 * buffer
        parameters[k, p] = parameters[k, p] + step
