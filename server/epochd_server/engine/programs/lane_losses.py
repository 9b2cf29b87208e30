"""The losses with one member in each lane: a batch's loss, and its gradient with respect to the outputs."""

from __future__ import annotations

from typing import Any

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
    scratch: Floats,
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
        scratch: [2, L]
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
                _bce(values, slopes, z + c, targets, t + c, weights, row, scales, partial, exact)
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
def _weighted(loss: Any, weight: Any) -> Any:
    """Their product, but 0 for weight 0: a row that only fills a lane must not overflow a member's loss."""
    product = weight * loss
    return product if weight > 0 else weight


@kernel
def _exponentiate(table: Floats, row: int) -> None:
    """table[row] = e^table[row], computed in the table's precision."""
    if table.itemsize == 4:
        for lane in range(table.shape[1]):
            table[row, lane] = exp32(np.float32(table[row, lane]))
    else:
        for lane in range(table.shape[1]):
            table[row, lane] = exp(np.float64(table[row, lane]))


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
    exact: bool,
) -> None:
    """Binary cross entropy of one target of one row, from logits."""
    lanes = values.shape[1]
    zero, one = values.dtype.type(0), values.dtype.type(1)
    for lane in range(lanes):
        z = values[out, lane]
        total[lane] += _weighted((zero if z < zero else z) - z * targets[t, lane], weights[row, lane])
        slopes[out, lane] = -abs(z)
    _exponentiate(slopes, out)  # e^−|z| serves both: σ(z) is 1/(1+e) or e/(1+e)
    if exact:
        for lane in range(lanes):
            total[lane] += _weighted(log1p(np.float64(slopes[out, lane])), np.float64(weights[row, lane]))
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
    scratch: Floats,
    exact: bool,
) -> None:
    """One row."""
    lanes = values.shape[1]
    one = values.dtype.type(1)
    _find_peak(values, out, width, scratch)
    mass = scratch[1]
    mass[:] = 0
    for c in range(width):
        own = values.dtype.type(c)
        for lane in range(lanes):
            below = values[out + c, lane] - scratch[0, lane]
            slopes[out + c, lane] = below
            weight = weights[row, lane] if classes[t, lane] == own else weights[row, lane] * 0
            total[lane] -= _weighted(below, weight)
        _exponentiate(slopes, out + c)
        for lane in range(lanes):
            mass[lane] += slopes[out + c, lane]
    if exact:
        for lane in range(lanes):
            total[lane] += _weighted(log(np.float64(mass[lane])), np.float64(weights[row, lane]))
    for lane in range(lanes):
        mass[lane] = one / mass[lane]
    for c in range(width):
        own = values.dtype.type(c)
        for lane in range(lanes):
            probability = slopes[out + c, lane] * mass[lane]
            error = probability - one if classes[t, lane] == own else probability
            slopes[out + c, lane] = error * scales[lane] * weights[row, lane]


@kernel
def _find_peak(values: Floats, out: int, width: int, scratch: Floats) -> None:
    """scratch[0] = the largest of a row's outputs."""
    for lane in range(values.shape[1]):
        scratch[0, lane] = values[out, lane]
    for c in range(1, width):
        for lane in range(values.shape[1]):
            z = values[out + c, lane]
            scratch[0, lane] = scratch[0, lane] if z <= scratch[0, lane] else z
