"""The losses with one member in each lane: a batch's loss, and its gradient with respect to the outputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.specs import LossKind
from epochd_server.engine.compiling import kernel
from epochd_server.engine.numerics import exp, log, log1p
from epochd_server.engine.task import Floats

MSE, L1, HUBER, BCE, CROSS_ENTROPY = range(5)
CODES = {
    LossKind.MSE: MSE,
    LossKind.L1: L1,
    LossKind.HUBER: HUBER,
    LossKind.BCE_WITH_LOGITS: BCE,
    LossKind.CROSS_ENTROPY: CROSS_ENTROPY,
}
_PARTIAL_ROWS = 8


@kernel
def batch_loss(
    kind: int,
    delta: float,
    values: Floats,
    slopes: Floats,
    out: int,
    stride: int,
    width: int,
    targets: Floats,
    target_width: int,
    weights: Floats,
    scales: Floats,
    rows: int,
    partial: Floats,
    total: NDArray[np.float64],
    scratch: NDArray[np.float64],
) -> None:
    """The loss of a batch and its gradient.

    Args:
        kind: Which loss.
        delta: huber's δ.
        values: [rows · stride, L] with row r's outputs at ``out + r · stride``.
        slopes: The same for the gradient of the batch's loss; written there.
        out: See ``values``.
        stride: See ``values``.
        width: Outputs of a row.
        targets: [rows · target_width, L]; cross_entropy: class indices.
        target_width: Targets of a row.
        weights: [rows, L]
        scales: [L] 1 / (Σ weights · targets per row) of the batch.
        rows: How many there are.
        partial: [L], scratch.
        total: [L], set to Σ weights · elements' losses.
        scratch: [2, L]
    """
    lanes = len(total)
    total[:] = 0.0
    partial[:] = 0
    for row in range(rows):
        # Few rows are summed in the members' precision, as PyTorch does; many would lose digits that way.
        if row % _PARTIAL_ROWS == 0:
            for lane in range(lanes):
                total[lane] += partial[lane]
                partial[lane] = 0
        z, t = out + row * stride, row * target_width
        if kind == CROSS_ENTROPY:
            _cross_entropy(values, slopes, z, width, targets, t, weights, row, scales, partial, scratch)
        elif kind == BCE:
            for c in range(width):
                _bce(values, slopes, z + c, targets, t + c, weights, row, scales, partial)
        else:
            for c in range(width):
                _residual(kind, delta, values, slopes, z + c, targets, t + c, weights, row, scales, partial)
    for lane in range(lanes):
        total[lane] += partial[lane]


@kernel
def _residual(
    kind: int,
    delta: float,
    values: Floats,
    slopes: Floats,
    z: int,
    targets: Floats,
    t: int,
    weights: Floats,
    row: int,
    scales: Floats,
    total: Floats,
) -> None:
    """mse, l1 or huber of one target of one row."""
    lanes = values.shape[1]
    one, two, half = values.dtype.type(1), values.dtype.type(2), values.dtype.type(0.5)
    zero, bound = values.dtype.type(0), values.dtype.type(delta)
    if kind == MSE:
        for lane in range(lanes):
            residual = values[z, lane] - targets[t, lane]
            total[lane] += weights[row, lane] * (residual * residual)
            slopes[z, lane] = (two * scales[lane]) * residual * weights[row, lane]
    elif kind == L1:
        for lane in range(lanes):
            residual = values[z, lane] - targets[t, lane]
            total[lane] += weights[row, lane] * abs(residual)
            sign = one if residual > zero else (-one if residual < zero else residual)  # NaN stays NaN
            slopes[z, lane] = scales[lane] * sign * weights[row, lane]
    else:
        for lane in range(lanes):
            residual = values[z, lane] - targets[t, lane]
            size = abs(residual)
            loss = bound * (size - half * bound) if size > bound else half * residual * residual
            total[lane] += weights[row, lane] * loss
            clipped = bound if residual > bound else residual
            clipped = -bound if clipped < -bound else clipped
            slopes[z, lane] = scales[lane] * clipped * weights[row, lane]


@kernel
def _bce(
    values: Floats,
    slopes: Floats,
    out: int,
    targets: Floats,
    t: int,
    weights: Floats,
    row: int,
    scales: Floats,
    total: Floats,
) -> None:
    """Binary cross entropy of one target of one row, from logits."""
    for lane in range(values.shape[1]):
        z, y = np.float64(values[out, lane]), np.float64(targets[t, lane])
        decay = exp(-abs(z))  # e^−|z| serves both: σ(z) is 1/(1+e) or e/(1+e)
        loss = (0.0 if z < 0.0 else z) - z * y + log1p(decay)
        total[lane] += weights[row, lane] * loss
        probability = (decay if z < 0.0 else 1.0) / (1.0 + decay)
        slopes[out, lane] = (probability - y) * scales[lane] * weights[row, lane]


@kernel
def _cross_entropy(
    values: Floats,
    slopes: Floats,
    out: int,
    width: int,
    classes: Floats,
    t: int,
    weights: Floats,
    row: int,
    scales: Floats,
    total: Floats,
    scratch: NDArray[np.float64],
) -> None:
    """One row."""
    lanes = values.shape[1]
    peak, mass = scratch[0], scratch[1]
    for lane in range(lanes):
        peak[lane] = values[out, lane]
        mass[lane] = 0.0
    for c in range(1, width):
        for lane in range(lanes):
            z = np.float64(values[out + c, lane])
            peak[lane] = peak[lane] if z <= peak[lane] else z
    for c in range(width):
        for lane in range(lanes):
            e = exp(values[out + c, lane] - peak[lane])
            slopes[out + c, lane] = e
            mass[lane] += e
    for lane in range(lanes):
        total[lane] += weights[row, lane] * log(mass[lane])
    for c in range(width):
        for lane in range(lanes):
            z = np.float64(values[out + c, lane])
            here = 1.0 if classes[t, lane] == c else 0.0
            probability = slopes[out + c, lane] / mass[lane]
            slopes[out + c, lane] = (probability - here) * scales[lane] * weights[row, lane]
            total[lane] -= here * weights[row, lane] * (z - peak[lane])
