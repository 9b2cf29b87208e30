"""A feed-forward network on blocks of rows, forward and back, in float64.

A block holds a row of memory for each value of the network: the features, then the outputs of each step, then a row of
ones; slopes have the same places. Innermost loops run along the rows of the data.

Legend: S steps, P parameters, V values of the network with its features, B rows of a block.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.specs import LossKind
from epochd_server.engine.activation_kernels import (
    CODES,
    IDENTITY,
    RELU,
    SIGMOID,
    TANH,
    slope,
    value,
)
from epochd_server.engine.chain import Affine, Chain, Elementwise
from epochd_server.engine.compiling import kernel
from epochd_server.engine.exact.triangles import BLOCK
from epochd_server.engine.exact.vectors import LANES, dot
from epochd_server.engine.numerics import exp, log, sigmoid, softplus, tanh

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

MSE, HUBER, BCE, CROSS_ENTROPY = range(4)
LOSS_CODES = {
    LossKind.MSE: MSE,
    LossKind.HUBER: HUBER,
    LossKind.BCE_WITH_LOGITS: BCE,
    LossKind.CROSS_ENTROPY: CROSS_ENTROPY,
}
"""The losses that there are here."""

INPUT, INPUTS, OUTPUT, OUTPUTS, WEIGHT, BIAS, CODE, FIELDS = range(8)
"""Columns of ``steps``: places and widths of input and output, where weight and bias lie in the parameters (−1: there
is none), and the activation's code (−1: a linear layer)."""


class Network(NamedTuple):
    """What the network is."""

    steps: Integers
    """[S, FIELDS]"""
    arguments: Array
    """[S, 2] parameters of activations."""
    penalised: Array
    """[P] 1 where the penalty counts a parameter, else 0."""
    loss: int
    """One of the codes above."""
    delta: float
    """Where huber turns."""


class Data(NamedTuple):
    """One member's rows."""

    features: Array
    """[N, d]"""
    numbers: Array
    """[N, t]; [0, 1] where there are labels."""
    labels: Integers
    """[N] class indices; [0] where there are numbers."""
    weights: Array
    """[N], or [0] where every row counts alike."""
    start: int
    rows: int


class Blocks(NamedTuple):
    """Space for a block of rows."""

    values: Array
    """[V + 1, B], ones in the last."""
    slopes: Array
    """[V, B]"""


def network_of(chain: Chain, loss: LossKind, delta: float, *, penalize_bias: bool) -> Network:
    """The tables of a network.

    Args:
        chain: Its steps.
        loss: One of :data:`LOSS_CODES`.
        delta: Where huber turns.
        penalize_bias: Whether the penalty counts biases.
    """
    steps, arguments, place, width = [], [], 0, chain.in_features
    penalised = np.zeros(chain.size)
    for step in chain.steps:
        following = place + width
        if isinstance(step, Affine):
            bias = -1 if step.bias is None else step.bias.offset
            steps.append([place, width, following, step.out_features, step.weight.offset, bias, -1])
            arguments.append([0.0, 0.0])
            penalised[step.weight.offset : step.weight.end] = 1.0
            if step.bias is not None and penalize_bias:
                penalised[step.bias.offset : step.bias.end] = 1.0
            place, width = following, step.out_features
        elif isinstance(step, Elementwise):
            steps.append([place, width, following, width, -1, -1, CODES[step.function]])
            arguments.append([*step.arguments, 0.0, 0.0][:2])
            place = following
        else:
            raise TypeError(f"no exact fit has a {type(step).__name__}")
    return Network(np.array(steps), np.array(arguments), penalised, LOSS_CODES[loss], delta)


def blocks_of(network: Network) -> Blocks:
    """Space for a network."""
    last = network.steps[-1]
    size = int(last[OUTPUT] + last[OUTPUTS])
    return Blocks(np.ones((size + 1, BLOCK)), np.zeros((size, BLOCK)))


@kernel
def evaluate(
    network: Network, data: Data, blocks: Blocks, parameters: Array, gradient: Array
) -> tuple[float, bool]:
    """Σ w loss, with its gradient [P], and whether all rows are on the right side (classifiers)."""
    gradient[:] = 0.0
    loss, separates, end = 0.0, True, data.start + data.rows
    for begin in range(data.start, end, BLOCK):
        rows = min(BLOCK, end - begin)
        filled = (rows + LANES - 1) // LANES * LANES
        for j in range(data.features.shape[1]):
            for i in range(rows):
                blocks.values[j, i] = data.features[begin + i, j]
            for i in range(rows, filled):
                blocks.values[j, i] = 0.0
        for step in range(len(network.steps)):
            _forward(network, step, parameters, blocks.values, filled)
        lost, right = _judge(network, data, begin, rows, filled, blocks)
        loss += lost
        separates = separates and right
        for step in range(len(network.steps) - 1, -1, -1):
            _backward(network, step, parameters, gradient, blocks, filled)
    return loss, separates


@kernel
def _forward(network: Network, step: int, parameters: Array, values: Array, filled: int) -> None:
    table = network.steps[step]
    source, target, code = table[INPUT], table[OUTPUT], table[CODE]
    for o in range(table[OUTPUTS]):
        if code >= 0:
            p0, p1 = network.arguments[step, 0], network.arguments[step, 1]
            for i in range(filled):
                values[target + o, i] = _activate(code, values[source + o, i], p0, p1)
            continue
        constant = parameters[table[BIAS] + o] if table[BIAS] >= 0 else 0.0
        for i in range(filled):
            values[target + o, i] = constant
        for j in range(table[INPUTS]):
            weight = parameters[table[WEIGHT] + o * table[INPUTS] + j]
            for i in range(filled):
                values[target + o, i] += weight * values[source + j, i]


@kernel
def _activate(code: int, x: float, p0: float, p1: float) -> float:
    if code == TANH:
        return tanh(x)
    if code == SIGMOID:
        return sigmoid(x)
    if code == IDENTITY:
        return x
    if code == RELU:
        return x if x > 0.0 else 0.0
    return value(code, x, p0, p1)


@kernel
def _backward(
    network: Network, step: int, parameters: Array, gradient: Array, blocks: Blocks, filled: int
) -> None:
    table, values, slopes = network.steps[step], blocks.values, blocks.slopes
    source, target = table[INPUT], table[OUTPUT]
    if table[CODE] >= 0:
        _unbend(network, step, blocks, filled)
        return
    ones = len(values) - 1
    for o in range(table[OUTPUTS]):
        for j in range(table[INPUTS]):
            place = table[WEIGHT] + o * table[INPUTS] + j
            gradient[place] += dot(slopes, target + o, values, source + j, filled)
        if table[BIAS] >= 0:
            gradient[table[BIAS] + o] += dot(slopes, target + o, values, ones, filled)
    for j in range(table[INPUTS] if step > 0 else 0):
        for i in range(filled):
            slopes[source + j, i] = 0.0
        for o in range(table[OUTPUTS]):
            weight = parameters[table[WEIGHT] + o * table[INPUTS] + j]
            for i in range(filled):
                slopes[source + j, i] += weight * slopes[target + o, i]


@kernel
def _unbend(network: Network, step: int, blocks: Blocks, filled: int) -> None:
    """Slopes before an activation from those behind it."""
    table, values, slopes = network.steps[step], blocks.values, blocks.slopes
    p0, p1 = network.arguments[step, 0], network.arguments[step, 1]
    for o in range(table[OUTPUTS]):
        source, target = table[INPUT] + o, table[OUTPUT] + o
        for i in range(filled):
            rise = _slope(table[CODE], values[source, i], values[target, i], p0, p1)
            slopes[source, i] = slopes[target, i] * rise


@kernel
def _slope(code: int, x: float, y: float, p0: float, p1: float) -> float:
    if code == TANH:
        return 1.0 - y * y
    if code == SIGMOID:
        return y * (1.0 - y)
    if code == IDENTITY:
        return 1.0
    if code == RELU:
        return 1.0 if x > 0.0 else 0.0
    return slope(code, x, p0, p1)


@kernel
def _judge(
    network: Network, data: Data, begin: int, rows: int, filled: int, blocks: Blocks
) -> tuple[float, bool]:
    """Σ w loss of rows, its slopes with respect to the outputs, and whether all rows are on the right side."""
    last = network.steps[len(network.steps) - 1]
    place, width = last[OUTPUT], last[OUTPUTS]
    loss, separates = 0.0, True
    for i in range(rows):
        weight = data.weights[begin + i] if len(data.weights) else 1.0
        if network.loss == CROSS_ENTROPY:
            label = data.labels[begin + i]
            lost, right = _cross_entropy(blocks, place, width, i, label, weight)
        elif network.loss == BCE:
            lost, right = _binary(blocks, place, i, data.numbers[begin + i, 0], weight)
        else:
            lost, right = _distance(network, data, begin + i, i, weight / width, blocks), False
        loss += lost
        separates = separates and (right or weight == 0.0)
    for o in range(width):
        for i in range(rows, filled):
            blocks.slopes[place + o, i] = 0.0
    return loss, separates


@kernel
def _distance(network: Network, data: Data, row: int, i: int, weight: float, blocks: Blocks) -> float:
    """Mse or huber of a row, ``weight`` being a target's share."""
    last, loss = network.steps[len(network.steps) - 1], 0.0
    for o in range(last[OUTPUTS]):
        place = last[OUTPUT] + o
        rest = blocks.values[place, i] - data.numbers[row, o]
        if network.loss == MSE:
            loss += weight * rest * rest
            blocks.slopes[place, i] = 2.0 * weight * rest
        elif abs(rest) <= network.delta:
            loss += 0.5 * weight * rest * rest
            blocks.slopes[place, i] = weight * rest
        else:
            loss += weight * network.delta * (abs(rest) - 0.5 * network.delta)
            blocks.slopes[place, i] = weight * (network.delta if rest > 0.0 else -network.delta)
    return loss


@kernel
def _binary(blocks: Blocks, place: int, i: int, target: float, weight: float) -> tuple[float, bool]:
    sign = 1.0 if target > 0.5 else -1.0
    margin = sign * blocks.values[place, i]
    blocks.slopes[place, i] = -sign * weight * sigmoid(-margin)
    return weight * softplus(-margin), margin > 0.0


@kernel
def _cross_entropy(
    blocks: Blocks, place: int, width: int, i: int, label: int, weight: float
) -> tuple[float, bool]:
    peak, right = blocks.values[place + label, i], True
    for o in range(width):
        peak = max(peak, blocks.values[place + o, i])
        right = right and (o == label or blocks.values[place + o, i] < blocks.values[place + label, i])
    total = 0.0
    for o in range(width):
        blocks.slopes[place + o, i] = exp(blocks.values[place + o, i] - peak)
        total += blocks.slopes[place + o, i]
    for o in range(width):
        blocks.slopes[place + o, i] *= weight / total
    blocks.slopes[place + label, i] -= weight
    return weight * (log(total) + (peak - blocks.values[place + label, i])), right
