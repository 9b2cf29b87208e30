"""The loss of every member on its held-out rows, from their outputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from epochd_server.engine.compiling import kernel
from epochd_server.engine.losses import RATE_EPS
from epochd_server.engine.numerics import exp, log, log1p, log_of
from epochd_server.engine.programs.lane_losses import (
    BCE,
    CROSS_ENTROPY,
    GAUSSIAN,
    HUBER,
    L1,
    POISSON,
    QUANTILE,
)
from epochd_server.engine.task import Floats, Integers


@kernel
def held_out_losses(
    kind: int,
    parameter: float,
    outputs: Floats,
    targets: Floats,
    sources: Integers,
    weights: Floats,
    counts: Integers,
    losses: NDArray[np.float64],
) -> None:
    """Σ w · l / Σ w over each member's rows, summed in float64 from the first row to the last.

    Args:
        kind: A code of :mod:`epochd_server.engine.programs.lane_losses`.
        parameter: That of :func:`epochd_server.engine.programs.lane_losses.parameter_of`.
        outputs: [n, o], those of the members' rows one member after the other.
        targets: [N, t]; cross_entropy: class indices.
        sources: [n] which row of ``targets`` and ``weights`` each is.
        weights: [N], or empty for weights of 1.
        counts: [M] rows of each member.
        losses: [M], filled; NaN where there is no weight.
    """
    begin = 0
    for m in range(len(counts)):
        total, mass = 0.0, 0.0
        for n in range(begin, begin + counts[m]):
            source = sources[n]
            weight = 1.0 if len(weights) == 0 else np.float64(weights[source])
            if weight > 0.0:
                total += weight * _row_loss(kind, parameter, outputs, n, targets, source)
                mass += weight
        losses[m] = total / mass if mass > 0.0 else np.nan
        begin += counts[m]


@kernel
def _row_loss(kind: int, parameter: float, outputs: Floats, n: int, targets: Floats, source: int) -> float:
    """The loss of one row: the mean over its targets."""
    if kind == CROSS_ENTROPY:
        return _cross_entropy(parameter, outputs, n, int(targets[source, 0]))
    width = targets.shape[1]
    total = 0.0
    for t in range(width):
        if kind == GAUSSIAN:
            residual = np.float64(outputs[n, t]) - np.float64(targets[source, t])
            spread = exp(np.float64(outputs[n, width + t]))
            variance = parameter if spread < parameter else spread
            total += 0.5 * (log_of(variance) + residual * residual / variance)
            continue
        total += _element_loss(kind, parameter, np.float64(outputs[n, t]), np.float64(targets[source, t]))
    mean: float = total / width
    return mean


@kernel
def _element_loss(kind: int, parameter: float, z: float, y: float) -> float:
    if kind == BCE:
        target = y * (1.0 - parameter) + 0.5 * parameter
        return (0.0 if z < 0.0 else z) - z * target + log1p(exp(-abs(z)))
    if kind == POISSON:
        return exp(z) - y * z if parameter > 0.0 else z - y * log_of(z + RATE_EPS)
    if kind == QUANTILE:
        return (1.0 - parameter) * (z - y) if z > y else parameter * (y - z)
    size = abs(z - y)
    if kind == L1:
        return size
    if kind == HUBER:
        return parameter * (size - 0.5 * parameter) if size > parameter else 0.5 * size * size
    return size * size


@kernel
def _cross_entropy(smoothing: float, outputs: Floats, n: int, own: int) -> float:
    peak = np.float64(outputs[n, 0])
    for c in range(1, outputs.shape[1]):
        z = np.float64(outputs[n, c])
        peak = peak if z <= peak else z
    mass, even = 0.0, 0.0
    for c in range(outputs.shape[1]):
        below = np.float64(outputs[n, c]) - peak
        mass += exp(below)
        even += below
    own_below = np.float64(outputs[n, own]) - peak
    loss: float = log(mass) - (1.0 - smoothing) * own_below - smoothing / outputs.shape[1] * even
    return loss
