"""Activations inside compiled kernels: values and derivatives, over rows of a value table.

A value table is [features, lanes]: lanes are members (training) or one row (prediction). The three activations
that most networks use have loops of their own, which vectorise; the others go element by element. All are
evaluated in float64 and rounded once. At kinks the derivative is the one PyTorch's autograd takes.
"""

from __future__ import annotations

import math

import numpy as np

from epochd_server.engine.compiling import kernel
from epochd_server.engine.numerics import sigmoid, softplus, tanh
from epochd_server.engine.task import Floats

_NAMES = (
    "identity", "relu", "tanh", "sigmoid", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "gelu_tanh",
    "silu", "mish", "softplus", "softsign", "tanhshrink", "log_sigmoid", "hardtanh", "hardsigmoid", "hardswish",
)  # fmt: skip
CODES = {name: code for code, name in enumerate(_NAMES)}
(
    IDENTITY, RELU, TANH, SIGMOID, RELU6, LEAKY_RELU, ELU, SELU, CELU, GELU, GELU_TANH, SILU, MISH, SOFTPLUS,
    SOFTSIGN, TANHSHRINK, LOG_SIGMOID, HARDTANH, HARDSIGMOID, HARDSWISH,
) = range(len(_NAMES))  # fmt: skip

_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946
_SQRT_HALF = math.sqrt(0.5)
_SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
_INVERSE_SQRT_2_PI = 1 / math.sqrt(2 * math.pi)
_GELU_CUBE = 0.044715


@kernel
def _exponential_unit(x: float, alpha: float, scale: float, inner: float) -> float:
    return scale * x if x > 0.0 else scale * alpha * math.expm1(inner * x)


@kernel
def _clip(x: float, low: float, high: float) -> float:
    x = low if x < low else x
    return high if x > high else x


@kernel
def _smooth_value(code: int, x: float, p0: float, p1: float) -> float:
    if code == GELU:
        return 0.5 * x * (1.0 + math.erf(x * _SQRT_HALF))
    if code == GELU_TANH:
        return 0.5 * x * (1.0 + tanh(_SQRT_2_OVER_PI * (x + _GELU_CUBE * x * x * x)))
    if code == SILU:
        return x * sigmoid(x)
    if code == MISH:
        return x * tanh(softplus(x))
    if code == SOFTPLUS:
        return x if x * p0 > p1 else softplus(x * p0) / p0
    if code == SOFTSIGN:
        return x / (1.0 + abs(x))
    if code == TANHSHRINK:
        return x - tanh(x)
    return -softplus(-x)  # LOG_SIGMOID


@kernel
def value(code: int, x: float, p0: float, p1: float) -> float:
    """f(x) for the activation ``code`` with parameters p0, p1."""
    if code == RELU6:
        return _clip(x, 0.0, 6.0)
    if code == HARDTANH:
        return _clip(x, p0, p1)
    if code == HARDSIGMOID:
        return _clip(x + 3.0, 0.0, 6.0) / 6.0
    if code == HARDSWISH:
        return x * _clip(x + 3.0, 0.0, 6.0) / 6.0
    if code == LEAKY_RELU:
        return x if x > 0.0 else x * p0
    if code == ELU:
        return _exponential_unit(x, p0, 1.0, 1.0)
    if code == SELU:
        return _exponential_unit(x, _SELU_ALPHA, _SELU_SCALE, 1.0)
    if code == CELU:
        return _exponential_unit(x, p0, 1.0, 1.0 / p0)
    return _smooth_value(code, x, p0, p1)


@kernel
def _exponential_unit_slope(x: float, alpha: float, scale: float, inner: float) -> float:
    return scale if x > 0.0 else scale * alpha * inner * math.exp(inner * x)


@kernel
def _smooth_slope(code: int, x: float, p0: float, p1: float) -> float:
    if code == GELU:
        density = _INVERSE_SQRT_2_PI * math.exp(-0.5 * x * x)
        return 0.5 * (1.0 + math.erf(x * _SQRT_HALF)) + x * density
    if code == GELU_TANH:
        t = tanh(_SQRT_2_OVER_PI * (x + _GELU_CUBE * x * x * x))
        inner = _SQRT_2_OVER_PI * (1.0 + 3.0 * _GELU_CUBE * x * x)
        return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner
    if code == SILU:
        s = sigmoid(x)
        return s * (1.0 + x * (1.0 - s))
    if code == MISH:
        t = tanh(softplus(x))
        return t + x * sigmoid(x) * (1.0 - t * t)
    if code == SOFTPLUS:
        return 1.0 if x * p0 > p1 else sigmoid(x * p0)
    if code == SOFTSIGN:
        return 1.0 / ((1.0 + abs(x)) * (1.0 + abs(x)))
    if code == TANHSHRINK:
        return tanh(x) ** 2
    return sigmoid(-x)  # LOG_SIGMOID


@kernel
def slope(code: int, x: float, p0: float, p1: float) -> float:
    """f′(x) for the activation ``code`` with parameters p0, p1."""
    if code == RELU6:
        return 1.0 if 0.0 < x < 6.0 else 0.0
    if code == HARDTANH:
        return 1.0 if p0 < x < p1 else 0.0
    if code == HARDSIGMOID:
        return 1.0 / 6.0 if -3.0 < x < 3.0 else 0.0
    if code == HARDSWISH:
        if x <= -3.0:
            return 0.0
        return x / 3.0 + 0.5 if x < 3.0 else 1.0
    if code == LEAKY_RELU:
        return 1.0 if x > 0.0 else p0
    if code == ELU:
        return _exponential_unit_slope(x, p0, 1.0, 1.0)
    if code == SELU:
        return _exponential_unit_slope(x, _SELU_ALPHA, _SELU_SCALE, 1.0)
    if code == CELU:
        return _exponential_unit_slope(x, p0, 1.0, 1.0 / p0)
    return _smooth_slope(code, x, p0, p1)


@kernel
def activate(
    code: int,
    p0: float,
    p1: float,
    table: Floats,
    source: int,
    target: int,
    width: int,
    rows: int,
    stride: int,
) -> None:
    """table[target + i] = f(table[source + i]) for i < width, in all lanes, for rows ``stride`` apart."""
    for r in range(rows):
        for i in range(width):
            _activate_lanes(code, p0, p1, table, source + r * stride + i, target + r * stride + i)


@kernel
def _activate_lanes(code: int, p0: float, p1: float, table: Floats, a: int, f: int) -> None:
    zero = table.dtype.type(0)
    if code == RELU:
        for lane in range(table.shape[1]):
            table[f, lane] = zero if table[a, lane] <= zero else table[a, lane]
    elif code == TANH:
        for lane in range(table.shape[1]):
            table[f, lane] = tanh(np.float64(table[a, lane]))
    elif code == SIGMOID:
        for lane in range(table.shape[1]):
            table[f, lane] = sigmoid(np.float64(table[a, lane]))
    elif code == IDENTITY:
        for lane in range(table.shape[1]):
            table[f, lane] = table[a, lane]
    else:
        for lane in range(table.shape[1]):
            table[f, lane] = value(code, np.float64(table[a, lane]), p0, p1)


@kernel
def backpropagate(
    code: int,
    p0: float,
    p1: float,
    table: Floats,
    slopes: Floats,
    source: int,
    target: int,
    width: int,
    rows: int,
    stride: int,
) -> None:
    """slopes[source + i] = slopes[target + i] · f′(table[source + i]), as :func:`activate` goes.

    ``table[target + i]`` must hold f's values still.
    """
    for r in range(rows):
        for i in range(width):
            _slope_lanes(code, p0, p1, table, slopes, source + r * stride + i, target + r * stride + i)


@kernel
def _slope_lanes(code: int, p0: float, p1: float, table: Floats, slopes: Floats, a: int, f: int) -> None:
    one, zero = table.dtype.type(1), table.dtype.type(0)
    if code == RELU:
        for lane in range(table.shape[1]):
            slopes[a, lane] = slopes[f, lane] if table[f, lane] > zero else zero
    elif code == TANH:
        for lane in range(table.shape[1]):
            slopes[a, lane] = slopes[f, lane] * (one - table[f, lane] * table[f, lane])
    elif code == SIGMOID:
        for lane in range(table.shape[1]):
            slopes[a, lane] = slopes[f, lane] * ((one - table[f, lane]) * table[f, lane])
    elif code == IDENTITY:
        for lane in range(table.shape[1]):
            slopes[a, lane] = slopes[f, lane]
    else:
        for lane in range(table.shape[1]):
            derivative = slope(code, np.float64(table[a, lane]), p0, p1)
            slopes[a, lane] = slopes[f, lane] * table.dtype.type(derivative)
