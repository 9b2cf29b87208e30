"""The losses with one member in each lane: a batch's loss, and its gradient with respect to the outputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.specs import LossKind
from epochd_server.engine.compiling import kernel
from epochd_server.engine.numerics import exp, exp32, log, log1p
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
    exact: bool,
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
        scratch: [3, L]
        exact: Whether anyone will look at the losses. If not, the logarithms of bce and cross_entropy are left out:
            they are bounded, so what remains is finite where the loss is, and that is all that matters.
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
            _cross_entropy(
                values, slopes, z, width, targets, t, weights, row, scales, partial, scratch, exact
            )
        elif kind == BCE:
            for c in range(width):
                _bce(values, slopes, z + c, targets, t + c, weights, row, scales, partial, scratch[0], exact)
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
            total[lane] += _weighted(residual * residual, weights[row, lane])
            slopes[z, lane] = (two * scales[lane]) * residual * weights[row, lane]
    elif kind == L1:
        for lane in range(lanes):
            residual = values[z, lane] - targets[t, lane]
            total[lane] += _weighted(abs(residual), weights[row, lane])
            sign = one if residual > zero else (-one if residual < zero else residual)  # NaN stays NaN
            slopes[z, lane] = scales[lane] * sign * weights[row, lane]
    else:
        for lane in range(lanes):
            residual = values[z, lane] - targets[t, lane]
            size = abs(residual)
            loss = bound * (size - half * bound) if size > bound else half * residual * residual
            total[lane] += _weighted(loss, weights[row, lane])
            clipped = bound if residual > bound else residual
            clipped = -bound if clipped < -bound else clipped
            slopes[z, lane] = scales[lane] * clipped * weights[row, lane]


@kernel
def _weighted(loss: np.floating, weight: np.floating) -> np.floating:
    """Their product, but 0 for weight 0: a row that only fills a lane must not overflow a member's loss."""
    product = weight * loss
    return product if weight > 0 else weight


@kernel
def _exponentials(exponents: NDArray[np.float64], results: Floats, out: int) -> None:
    """results[out] = e^exponents, computed in the precision of the results."""
    if results.itemsize == 4:
        for lane in range(len(exponents)):
            results[out, lane] = exp32(np.float32(exponents[lane]))
    else:
        for lane in range(len(exponents)):
            results[out, lane] = exp(exponents[lane])


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
    scratch: NDArray[np.float64],
    exact: bool,
) -> None:
    """Binary cross entropy of one target of one row, from logits; scratch [L]."""
    lanes = values.shape[1]
    zero, one = values.dtype.type(0), values.dtype.type(1)
    for lane in range(lanes):
        scratch[lane] = -abs(values[out, lane])
    _exponentials(scratch, slopes, out)  # e^−|z| serves both: σ(z) is 1/(1+e) or e/(1+e)
    for lane in range(lanes):
        z, y = values[out, lane], targets[t, lane]
        total[lane] += _weighted((zero if z < zero else z) - z * y, weights[row, lane])
    if exact:
        for lane in range(lanes):
            total[lane] += _weighted(log1p(np.float64(slopes[out, lane])), weights[row, lane])
    for lane in range(lanes):
        decay = slopes[out, lane]
        probability = (decay if values[out, lane] < zero else one) / (one + decay)
        slopes[out, lane] = (probability - targets[t, lane]) * scales[lane] * weights[row, lane]


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
    exact: bool,
) -> None:
    """One row."""
    lanes = values.shape[1]
    zero, one = values.dtype.type(0), values.dtype.type(1)
    peak, mass, shifted = scratch[0], scratch[1], scratch[2]
    for lane in range(lanes):
        peak[lane] = values[out, lane]
        mass[lane] = 0.0
    for c in range(1, width):
        for lane in range(lanes):
            z = np.float64(values[out + c, lane])
            peak[lane] = peak[lane] if z <= peak[lane] else z
    for c in range(width):
        for lane in range(lanes):
            shifted[lane] = values[out + c, lane] - peak[lane]
            here = weights[row, lane] if classes[t, lane] == c else zero
            total[lane] -= _weighted(shifted[lane], here)
        _exponentials(shifted, slopes, out + c)
        for lane in range(lanes):
            mass[lane] += slopes[out + c, lane]
    if exact:
        for lane in range(lanes):
            total[lane] += _weighted(log(mass[lane]), weights[row, lane])
    for lane in range(lanes):
        mass[lane] = 1.0 / mass[lane]
    for c in range(width):
        for lane in range(lanes):
            here = one if classes[t, lane] == c else zero
            probability = slopes[out + c, lane] * values.dtype.type(mass[lane])
            slopes[out + c, lane] = (probability - here) * scales[lane] * weights[row, lane]
