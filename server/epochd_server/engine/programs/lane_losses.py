"""The losses with one member in each lane: a batch's loss, and its gradient with respect to the outputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.specs import Loss, LossKind
from epochd_server.engine.compiling import kernel
from epochd_server.engine.losses import LEAST_VARIANCE
from epochd_server.engine.programs.lane_likelihoods import bce, cross_entropy, gaussian, poisson, weighted
from epochd_server.engine.task import Floats

MSE, L1, HUBER, BCE, CROSS_ENTROPY, POISSON, QUANTILE, GAUSSIAN = range(8)
CODES = {
    LossKind.MSE: MSE,
    LossKind.L1: L1,
    LossKind.HUBER: HUBER,
    LossKind.BCE_WITH_LOGITS: BCE,
    LossKind.CROSS_ENTROPY: CROSS_ENTROPY,
    LossKind.POISSON_NLL: POISSON,
    LossKind.QUANTILE: QUANTILE,
    LossKind.GAUSSIAN_NLL: GAUSSIAN,
}
_PARTIAL_ROWS = 8


def parameter_of(loss: Loss) -> float:
    """The one number that a loss has: δ, the smoothing, whether rates are logarithms, q, or the least variance."""
    return {
        LossKind.HUBER: loss.delta,
        LossKind.BCE_WITH_LOGITS: loss.label_smoothing,
        LossKind.CROSS_ENTROPY: loss.label_smoothing,
        LossKind.POISSON_NLL: float(loss.log_input),
        LossKind.QUANTILE: loss.quantile,
        LossKind.GAUSSIAN_NLL: LEAST_VARIANCE,
    }.get(loss.kind, 0.0)


@kernel
def batch_loss(
    kind: int,
    parameter: float,
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
        parameter: That of :func:`parameter_of`.
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
            cross_entropy(
                parameter, values, slopes, z, width, targets, t, weights, row, scales, partial, scratch, exact
            )
        else:
            for c in range(target_width):
                raw = z + target_width + c
                _target_loss(
                    kind, parameter, values, slopes, z + c, raw, targets, t + c, weights, row, scales, partial,
                    exact,
                )  # fmt: skip
    for lane in range(lanes):
        total[lane] += partial[lane]


@kernel
def _target_loss(
    kind: int,
    parameter: float,
    values: Floats,
    slopes: Floats,
    z: int,
    raw: int,
    targets: Floats,
    t: int,
    weights: Floats,
    row: int,
    scales: Floats,
    total: Floats,
    exact: bool,
) -> None:
    """One target of one row: its output is at ``z``, a second one, where a target has two, at ``raw``."""
    if kind == BCE:
        bce(parameter, values, slopes, z, targets, t, weights, row, scales, total, exact)
    elif kind == POISSON:
        poisson(parameter, values, slopes, z, targets, t, weights, row, scales, total)
    elif kind == GAUSSIAN:
        gaussian(parameter, values, slopes, z, raw, targets, t, weights, row, scales, total)
    else:
        _residual(kind, parameter, values, slopes, z, targets, t, weights, row, scales, total)


@kernel
def _residual(
    kind: int,
    parameter: float,
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
    """mse, l1, huber or quantile of one target of one row."""
    lanes = values.shape[1]
    one, two, half = values.dtype.type(1), values.dtype.type(2), values.dtype.type(0.5)
    zero, bound = values.dtype.type(0), values.dtype.type(parameter)
    if kind == MSE:
        for lane in range(lanes):
            residual = values[z, lane] - targets[t, lane]
            total[lane] += weighted(residual * residual, weights[row, lane])
            slopes[z, lane] = (two * scales[lane]) * residual * weights[row, lane]
    elif kind == L1:
        for lane in range(lanes):
            residual = values[z, lane] - targets[t, lane]
            total[lane] += weighted(abs(residual), weights[row, lane])
            sign = one if residual > zero else (-one if residual < zero else residual)  # NaN stays NaN
            slopes[z, lane] = scales[lane] * sign * weights[row, lane]
    elif kind == QUANTILE:
        for lane in range(lanes):
            residual = values[z, lane] - targets[t, lane]
            loss = (one - bound) * residual if residual > zero else -bound * residual
            total[lane] += weighted(loss, weights[row, lane])
            sign = one if residual > zero else (-one if residual < zero else residual)
            slopes[z, lane] = scales[lane] * (half * sign + (half - bound)) * weights[row, lane]
    else:
        for lane in range(lanes):
            residual = values[z, lane] - targets[t, lane]
            size = abs(residual)
            loss = bound * (size - half * bound) if size > bound else half * residual * residual
            total[lane] += weighted(loss, weights[row, lane])
            clipped = bound if residual > bound else residual
            clipped = -bound if clipped < -bound else clipped
            slopes[z, lane] = scales[lane] * clipped * weights[row, lane]
