"""The losses that are likelihoods, with one member in each lane: of one row or one target of one row."""

from __future__ import annotations

from typing import Any

import numpy as np

from epochd_server.engine.compiling import kernel
from epochd_server.engine.losses import RATE_EPS
from epochd_server.engine.numerics import exp, exp32, log, log1p, log_of
from epochd_server.engine.task import Floats


@kernel
def weighted(loss: Any, weight: Any) -> Any:
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
def bce(
    smoothing: float,
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
    sharp, even = values.dtype.type(1.0 - smoothing), values.dtype.type(0.5 * smoothing)
    for lane in range(lanes):
        z, target = values[out, lane], targets[t, lane] * sharp + even
        total[lane] += weighted((zero if z < zero else z) - z * target, weights[row, lane])
        slopes[out, lane] = -abs(z)
    _exponentiate(slopes, out)  # e^−|z| serves both: σ(z) is 1/(1+e) or e/(1+e)
    if exact:
        for lane in range(lanes):
            total[lane] += weighted(log1p(np.float64(slopes[out, lane])), np.float64(weights[row, lane]))
    for lane in range(lanes):
        decay = slopes[out, lane]
        probability = (decay if values[out, lane] < zero else one) / (one + decay)
        target = targets[t, lane] * sharp + even
        slopes[out, lane] = (probability - target) * scales[lane] * weights[row, lane]


@kernel
def poisson(
    log_input: float,
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
    """Poisson's negative log likelihood of one target of one row, without its constant."""
    lanes = values.shape[1]
    zero, one, eps = values.dtype.type(0), values.dtype.type(1), values.dtype.type(RATE_EPS)
    if log_input > 0.0:
        for lane in range(lanes):
            slopes[out, lane] = values[out, lane]
        _exponentiate(slopes, out)
        for lane in range(lanes):
            z, y, weight = values[out, lane], targets[t, lane], weights[row, lane]
            total[lane] += weighted(slopes[out, lane] - z * y, weight)
            slope = (slopes[out, lane] - y) * scales[lane] * weight
            slopes[out, lane] = slope if weight > zero else zero
        return
    for lane in range(lanes):
        z, y, weight = values[out, lane], targets[t, lane], weights[row, lane]
        rate = z + eps
        total[lane] += weighted(z - y * values.dtype.type(log_of(np.float64(rate))), weight)
        slope = (one - y / rate) * scales[lane] * weight
        slopes[out, lane] = slope if weight > zero else zero


@kernel
def gaussian(
    least: float,
    values: Floats,
    slopes: Floats,
    out: int,
    raw: int,
    targets: Floats,
    t: int,
    weights: Floats,
    row: int,
    scales: Floats,
    total: Floats,
) -> None:
    """The normal distribution's negative log likelihood of one target of one row, without its constant.

    Its mean is at ``out``, the logarithm of its variance at ``raw``; the variance counts as ``least`` at least.
    """
    lanes = values.shape[1]
    zero, half, low = values.dtype.type(0), values.dtype.type(0.5), values.dtype.type(least)
    for lane in range(lanes):
        slopes[raw, lane] = values[raw, lane]
    _exponentiate(slopes, raw)
    for lane in range(lanes):
        spread, weight = slopes[raw, lane], weights[row, lane]
        variance = low if spread < low else spread
        residual = values[out, lane] - targets[t, lane]
        scaled = residual / variance
        entropy = values.dtype.type(log_of(np.float64(variance)))
        total[lane] += weighted(half * (entropy + residual * scaled), weight)
        factor = scales[lane] * weight
        to_raw = half * (values.dtype.type(1) / variance - scaled * scaled) * spread * factor
        slopes[out, lane] = scaled * factor if weight > zero else zero
        slopes[raw, lane] = to_raw if weight > zero else zero


@kernel
def cross_entropy(
    smoothing: float,
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
    others = values.dtype.type(smoothing / width)
    share = values.dtype.type(1.0 - smoothing) + others
    _find_peak(values, out, width, scratch)
    mass = scratch[1]
    mass[:] = 0
    for c in range(width):
        own = values.dtype.type(c)
        for lane in range(lanes):
            below = values[out + c, lane] - scratch[0, lane]
            slopes[out + c, lane] = below
            part = share if classes[t, lane] == own else others
            total[lane] -= weighted(below, weights[row, lane] * part)
        _exponentiate(slopes, out + c)
        for lane in range(lanes):
            mass[lane] += slopes[out + c, lane]
    if exact:
        for lane in range(lanes):
            total[lane] += weighted(log(np.float64(mass[lane])), np.float64(weights[row, lane]))
    for lane in range(lanes):
        mass[lane] = one / mass[lane]
    for c in range(width):
        own = values.dtype.type(c)
        for lane in range(lanes):
            probability = slopes[out + c, lane] * mass[lane]
            error = probability - (share if classes[t, lane] == own else others)
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
