"""The loss of every member on its held-out rows, from their outputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from epochd_server.engine.compiling import kernel
from epochd_server.engine.numerics import exp, log, log1p
from epochd_server.engine.programs.lane_losses import BCE, CROSS_ENTROPY, HUBER, L1
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
        parameter: The loss's number, such as huber's δ.
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
        return _cross_entropy(outputs, n, int(targets[source, 0]))
    width = targets.shape[1]
    total = 0.0
    for t in range(width):
        total += _element_loss(kind, parameter, np.float64(outputs[n, t]), np.float64(targets[source, t]))
    mean: float = total / width
    return mean


@kernel
def _element_loss(kind: int, parameter: float, z: float, y: float) -> float:
    if kind == BCE:
        return (0.0 if z < 0.0 else z) - z * y + log1p(exp(-abs(z)))
    size = abs(z - y)
    if kind == L1:
        return size
    if kind == HUBER:
        return parameter * (size - 0.5 * parameter) if size > parameter else 0.5 * size * size
    return size * size


@kernel
def _cross_entropy(outputs: Floats, n: int, own: int) -> float:
    peak = np.float64(outputs[n, 0])
    for c in range(1, outputs.shape[1]):
        z = np.float64(outputs[n, c])
        peak = peak if z <= peak else z
    mass = 0.0
    for c in range(outputs.shape[1]):
        mass += exp(np.float64(outputs[n, c]) - peak)
    return log(mass) - (np.float64(outputs[n, own]) - peak)
