"""Forward and backward of small networks with one member in each lane.

Every array has members along its last axis, so each statement is one vector instruction over many members, and
each member's numbers are a fixed sequence of scalar IEEE operations: sums run over inputs, then rows, from first
to last. Tables are [positions, lanes]; a network's steps say which positions they read and write.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from epochd_server.engine.activation_kernels import CODES, activate, backpropagate
from epochd_server.engine.chain import Affine, Chain, Dropout, LayerNorm
from epochd_server.engine.compiling import kernel
from epochd_server.engine.programs.lane_products import add_products
from epochd_server.engine.task import Floats, Integers

# Columns of a network's step table.
KIND, CODE, WIDTH_IN, WIDTH_OUT, WEIGHT, BIAS, SOURCE, TARGET = range(8)
# Kinds of steps. The lanes know the first two; a row's normalisation is for predictions only.
ELEMENTWISE, AFFINE, LAYER_NORM = range(3)


class Network(NamedTuple):
    """A chain as tables that compiled kernels read."""

    steps: Integers
    """[S, 8]; columns as named above; WEIGHT or BIAS is −1 where there is none."""
    arguments: NDArray[np.float64]
    """[S, 2] parameters of activations; the eps of a LAYER_NORM."""
    positions: int
    """How many positions the values of one row take."""


def network_of(chain: Chain) -> Network:
    """The tables of a chain, as it is evaluated: without dropout."""
    active = [step for step in chain.steps if not isinstance(step, Dropout)]
    steps = np.zeros((len(active), 8), np.int64)
    arguments = np.zeros((len(active), 2))
    # The rows themselves need a place among the values only where an activation comes first.
    copied = bool(active) and not isinstance(active[0], Affine)
    position, width = (0 if copied else -chain.in_features), chain.in_features
    for index, step in enumerate(active):
        out = step.out_features if isinstance(step, Affine) else step.width
        steps[index, [WIDTH_IN, WIDTH_OUT, SOURCE, TARGET]] = width, out, position, position + width
        if isinstance(step, Affine | LayerNorm):
            weight = -1 if step.weight is None else step.weight.offset
            bias = -1 if step.bias is None else step.bias.offset
            steps[index, [WEIGHT, BIAS]] = weight, bias
        if isinstance(step, Affine):
            steps[index, KIND] = AFFINE
        elif isinstance(step, LayerNorm):
            steps[index, KIND], arguments[index, 0] = LAYER_NORM, step.eps
        else:
            steps[index, CODE] = CODES[step.function]
            arguments[index, : len(step.arguments)] = step.arguments
        position, width = position + width, out
    return Network(steps, arguments, position + width)


@kernel
def affine(
    parameters: Floats,
    weight: int,
    bias: int,
    source: Floats,
    begin: int,
    source_stride: int,
    target: Floats,
    out: int,
    target_stride: int,
    rows: int,
    width_in: int,
    width_out: int,
) -> None:
    """For rows r: target[out + o] = Σᵢ parameters[weight + o·in + i] · source[begin + i] + parameters[bias + o].

    Positions of row r are ``r · stride`` further on.
    """
    lanes = parameters.shape[1]
    for r in range(rows):
        x = begin + r * source_stride
        for o in range(width_out):
            t = out + r * target_stride + o
            for lane in range(lanes):
                target[t, lane] = 0
            add_products(target, t, parameters, weight + o * width_in, 1, source, x, 1, width_in)
            if bias >= 0:
                for lane in range(lanes):
                    target[t, lane] += parameters[bias + o, lane]


@kernel
def affine_gradient(
    gradients: Floats,
    weight: int,
    bias: int,
    source: Floats,
    begin: int,
    source_stride: int,
    slopes: Floats,
    out: int,
    slope_stride: int,
    rows: int,
    width_in: int,
    width_out: int,
) -> None:
    """Adds the rows' gradient: gradients[weight + o·in + i] += slopes[out + o] · source[begin + i]."""
    lanes = gradients.shape[1]
    for first in range(0, rows, _ROW_TILE):
        count = min(_ROW_TILE, rows - first)
        x, s = begin + first * source_stride, out + first * slope_stride
        for o in range(width_out):
            w = weight + o * width_in
            for i in range(width_in):
                add_products(
                    gradients, w + i, slopes, s + o, slope_stride, source, x + i, source_stride, count
                )
            if bias >= 0:
                for r in range(count):
                    for lane in range(lanes):
                        gradients[bias + o, lane] += slopes[s + o + r * slope_stride, lane]


_ROW_TILE = 16
"""Rows whose inputs stay in the first-level cache while all their products are summed."""


@kernel
def affine_slopes(
    parameters: Floats,
    weight: int,
    slopes: Floats,
    out: int,
    begin: int,
    stride: int,
    rows: int,
    width_in: int,
    width_out: int,
) -> None:
    """For rows r: slopes[begin + i] = Σₒ parameters[weight + o·in + i] · slopes[out + o]."""
    lanes = parameters.shape[1]
    for r in range(rows):
        upper, lower = out + r * stride, begin + r * stride
        for i in range(width_in):
            for lane in range(lanes):
                slopes[lower + i, lane] = 0
            add_products(slopes, lower + i, parameters, weight + i, width_in, slopes, upper, 1, width_out)


@kernel
def forward(network: Network, parameters: Floats, inputs: Floats, values: Floats, rows: int) -> None:
    """Some rows through the network.

    Args:
        network: The steps.
        parameters: [P, L]
        inputs: [rows · d, L]
        values: [rows · positions, L]; every step's output is written to its position. The rows themselves are
            copied in only where an activation comes first.
        rows: How many.
    """
    steps, stride = network.steps, network.positions
    width = steps[0, WIDTH_IN]
    if steps[0, KIND] == ELEMENTWISE:
        for r in range(rows):
            for i in range(width):
                for lane in range(values.shape[1]):
                    values[r * stride + i, lane] = inputs[r * width + i, lane]
    for s in range(steps.shape[0]):
        width_in, width_out = steps[s, WIDTH_IN], steps[s, WIDTH_OUT]
        source, target = steps[s, SOURCE], steps[s, TARGET]
        weight, bias = steps[s, WEIGHT], steps[s, BIAS]
        if steps[s, KIND] == ELEMENTWISE:
            p0, p1 = network.arguments[s, 0], network.arguments[s, 1]
            activate(steps[s, CODE], p0, p1, values, source, target, width_in, rows, stride)
        elif s == 0:
            affine(
                parameters, weight, bias, inputs, 0, width, values, target, stride, rows, width_in, width_out
            )
        else:
            affine(
                parameters, weight, bias, values, source, stride, values, target, stride, rows, width_in,
                width_out,
            )  # fmt: skip


@kernel
def backward(
    network: Network,
    parameters: Floats,
    gradients: Floats,
    inputs: Floats,
    values: Floats,
    slopes: Floats,
    rows: int,
) -> None:
    """The same rows back through the network, after :func:`forward`; adds to ``gradients`` [P, L].

    ``slopes`` [rows · positions, L] holds ∂L/∂output at the output's positions and is filled for the others.
    """
    steps, stride = network.steps, network.positions
    for s in range(steps.shape[0] - 1, -1, -1):
        width_in, width_out = steps[s, WIDTH_IN], steps[s, WIDTH_OUT]
        source, target = steps[s, SOURCE], steps[s, TARGET]
        weight, bias = steps[s, WEIGHT], steps[s, BIAS]
        if steps[s, KIND] == ELEMENTWISE:
            p0, p1 = network.arguments[s, 0], network.arguments[s, 1]
            backpropagate(steps[s, CODE], p0, p1, values, slopes, source, target, width_in, rows, stride)
        elif s == 0:
            affine_gradient(
                gradients,
                weight,
                bias,
                inputs,
                0,
                width_in,
                slopes,
                target,
                stride,
                rows,
                width_in,
                width_out,
            )
        else:
            affine_gradient(
                gradients, weight, bias, values, source, stride, slopes, target, stride, rows, width_in,
                width_out,
            )  # fmt: skip
            affine_slopes(parameters, weight, slopes, target, source, stride, rows, width_in, width_out)
