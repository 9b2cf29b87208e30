"""A member's columns: scaled by powers of two, copied into blocks, penalised.

Legend: N rows, d features, p = d + bias coefficients, the bias first.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from epochd_server.engine.compiling import kernel
from epochd_server.engine.exact.triangles import absorb
from epochd_server.engine.exact.vectors import LANES

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

EPSILON = 2.0**-52

CONDITION, WEIGHT, LOG_WEIGHT, ROWS, FACTS = 0, 1, 2, 3, 4
"""Columns of ``facts``: condition number, Σ w, Σ ln w and the number of rows of weight above 0."""


@kernel
def rank_limit(rows: int, columns: int) -> float:
    """The condition number from which on the rank counts as deficient, as rounding alone may have filled it up."""
    return 1.0 / (EPSILON * columns * math.sqrt(float(max(rows, columns))))


@kernel
def weigh(weights: Array, start: int, count: int, facts: Array) -> None:
    """Notes a member's weights among its facts."""
    facts[WEIGHT], facts[LOG_WEIGHT], facts[ROWS] = float(count), 0.0, float(count)
    if len(weights):
        facts[WEIGHT], facts[ROWS] = 0.0, 0.0
        for row in range(start, start + count):
            if weights[row] > 0.0:
                facts[WEIGHT] += weights[row]
                facts[LOG_WEIGHT] += math.log(weights[row])
                facts[ROWS] += 1.0


@kernel
def scale_columns(features: Array, weights: Array, start: int, count: int, bias: bool, scales: Array) -> None:
    """Finds the powers of two that bring the weighted columns to lengths from 1 to 2."""
    first = 1 if bias else 0
    for j in range(len(scales)):
        scales[j] = 0.0
    for row in range(start, start + count):
        weight = weights[row] if len(weights) else 1.0
        if bias:
            scales[0] += weight
        for j in range(features.shape[1]):
            scales[first + j] += weight * features[row, j] * features[row, j]
    for j in range(len(scales)):
        length = math.sqrt(scales[j])
        scales[j] = 1.0
        if length > 0.0 and math.isfinite(length):
            scales[j] = math.ldexp(1.0, -math.floor(math.log2(length)))


@kernel
def fill(features: Array, begin: int, count: int, bias: bool, scales: Array, block: Array) -> int:
    """Copies rows, columns scaled, into the block; gives their number rounded up to whole vectors."""
    first = 1 if bias else 0
    filled = (count + LANES - 1) // LANES * LANES
    if bias:
        for i in range(count):
            block[0, i] = scales[0]
    for j in range(features.shape[1]):
        scale = scales[first + j]
        for i in range(count):
            block[first + j, i] = features[begin + i, j] * scale
    for j in range(len(scales)):
        for i in range(count, filled):
            block[j, i] = 0.0
    return filled


@kernel
def penalise(l2: float, spare_first: bool, scales: Array, factor: Array, block: Array) -> None:
    """Takes √l2 · I below the matrix into the factor, a row at a time."""
    if l2 == 0.0:
        return
    root, columns = math.sqrt(l2), len(scales)
    for k in range(1 if spare_first else 0, columns):
        for j in range(block.shape[0]):
            for i in range(LANES):
                block[j, i] = 0.0
        block[k, 0] = root * scales[k]
        absorb(factor, block, columns, LANES)
