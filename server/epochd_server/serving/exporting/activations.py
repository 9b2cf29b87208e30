"""Activations as ONNX nodes, by PyTorch's formulas.

Exponentials are taken of negative numbers only, so that nothing overflows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from onnx import TensorProto

from epochd_server.serving.exporting.graph import Graph

_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946
_GELU_CUBE = 0.044715

_Builder = Callable[[Graph, str, tuple[float, ...]], str]


def add_activation(graph: Graph, function: str, arguments: tuple[float, ...], x: str) -> str:
    """Adds f(x).

    Args:
        graph: Is added to.
        function: A key of ``domain.layers.ACTIVATION_PARAMETERS``, or ``gelu_tanh``.
        arguments: In the order of that table.
        x: The value to apply it to.

    Raises:
        KeyError: No such activation.
    """
    return _BUILDERS[function](graph, x, arguments)


def _exponential_unit(g: Graph, x: str, alpha: float, inner: float = 1.0) -> str:
    """max(x, 0) + α (exp(min(x, 0) · inner) - 1)."""
    zero = g.number(0.0)
    low = g.add("Mul", g.add("Min", x, zero), g.number(inner))
    bend = g.add("Mul", g.add("Sub", g.add("Exp", low), g.number(1.0)), g.number(alpha))
    return g.add("Add", g.add("Max", x, zero), bend)


def _selu(g: Graph, x: str, _: tuple[float, ...]) -> str:
    return g.add("Mul", _exponential_unit(g, x, _SELU_ALPHA), g.number(_SELU_SCALE))


def _leaky_relu(g: Graph, x: str, p: tuple[float, ...]) -> str:
    zero = g.number(0.0)
    low = g.add("Mul", g.add("Min", x, zero), g.number(p[0]))
    return g.add("Add", g.add("Max", x, zero), low)


def _softplus_of(g: Graph, x: str) -> str:
    """max(x, 0) + log(1 + exp(-|x|))."""
    decay = g.add("Exp", g.add("Neg", g.add("Abs", x)))
    tail = g.add("Log", g.add("Add", decay, g.number(1.0)))
    return g.add("Add", g.add("Max", x, g.number(0.0)), tail)


def _softplus(g: Graph, x: str, p: tuple[float, ...]) -> str:
    beta, threshold = p
    scaled = g.add("Mul", x, g.number(beta))
    curve = g.add("Div", _softplus_of(g, scaled), g.number(beta))
    return g.add("Where", g.add("Greater", scaled, g.number(threshold)), x, curve)


def _log_sigmoid(g: Graph, x: str, _: tuple[float, ...]) -> str:
    return g.add("Neg", _softplus_of(g, g.add("Neg", x)))


def _mish(g: Graph, x: str, _: tuple[float, ...]) -> str:
    return g.add("Mul", x, g.add("Tanh", _softplus_of(g, x)))


def _silu(g: Graph, x: str, _: tuple[float, ...]) -> str:
    return g.add("Mul", x, g.add("Sigmoid", x))


def _gelu(g: Graph, x: str, _: tuple[float, ...]) -> str:
    scaled = g.add("Mul", x, g.number(math.sqrt(0.5)))
    if g.dtype == np.float32:
        return _gelu_of(g, x, g.add("Erf", scaled))
    # onnxruntime knows Erf for float32 alone: 6e-8 of an error here.
    narrow = g.add("Erf", g.add("Cast", scaled, to=TensorProto.FLOAT))
    return _gelu_of(g, x, g.add("Cast", narrow, to=TensorProto.DOUBLE))


def _gelu_tanh(g: Graph, x: str, _: tuple[float, ...]) -> str:
    cube = g.add("Mul", g.add("Mul", x, g.add("Mul", x, x)), g.number(_GELU_CUBE))
    scaled = g.add("Mul", g.add("Add", x, cube), g.number(math.sqrt(2 / math.pi)))
    return _gelu_of(g, x, g.add("Tanh", scaled))


def _gelu_of(g: Graph, x: str, inner: str) -> str:
    return g.add("Mul", g.add("Mul", x, g.number(0.5)), g.add("Add", inner, g.number(1.0)))


def _softsign(g: Graph, x: str, _: tuple[float, ...]) -> str:
    return g.add("Div", x, g.add("Add", g.add("Abs", x), g.number(1.0)))


def _clip(g: Graph, x: str, low: float, high: float) -> str:
    return g.add("Clip", x, g.number(low), g.number(high))


def _hardsigmoid(g: Graph, x: str, _: tuple[float, ...]) -> str:
    return g.add("Div", _clip(g, g.add("Add", x, g.number(3.0)), 0.0, 6.0), g.number(6.0))


def _hardswish(g: Graph, x: str, p: tuple[float, ...]) -> str:
    return g.add("Mul", x, _hardsigmoid(g, x, p))


_BUILDERS: Mapping[str, _Builder] = MappingProxyType(
    {
        "identity": lambda g, x, p: x,
        "relu": lambda g, x, p: g.add("Relu", x),
        "relu6": lambda g, x, p: _clip(g, x, 0.0, 6.0),
        "leaky_relu": _leaky_relu,
        "elu": lambda g, x, p: _exponential_unit(g, x, p[0]),
        "selu": _selu,
        "celu": lambda g, x, p: _exponential_unit(g, x, p[0], 1 / p[0]),
        "gelu": _gelu,
        "gelu_tanh": _gelu_tanh,
        "silu": _silu,
        "mish": _mish,
        "softplus": _softplus,
        "softsign": _softsign,
        "tanh": lambda g, x, p: g.add("Tanh", x),
        "tanhshrink": lambda g, x, p: g.add("Sub", x, g.add("Tanh", x)),
        "sigmoid": lambda g, x, p: g.add("Sigmoid", x),
        "log_sigmoid": _log_sigmoid,
        "hardtanh": lambda g, x, p: _clip(g, x, p[0], p[1]),
        "hardsigmoid": _hardsigmoid,
        "hardswish": _hardswish,
    }
)
