"""Activations on torch tensors, forward and backward, by PyTorch's own kernels and without its autograd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_aten: Any = torch.ops.aten

_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


@dataclass(frozen=True, slots=True)
class Activation:
    """One activation.

    Attributes:
        forward: (a, arguments) → f(a).
        backward: (∂L/∂f, a, f(a), arguments) → ∂L/∂a.
    """

    forward: Callable[[Tensor, tuple[float, ...]], Tensor]
    backward: Callable[[Tensor, Tensor, Tensor, tuple[float, ...]], Tensor]


def _softsign_backward(grad: Tensor, a: Tensor, _: Tensor, __: tuple[float, ...]) -> Tensor:
    return grad / (a.abs() + 1).square_()


def _log_sigmoid_backward(grad: Tensor, a: Tensor, _: Tensor, __: tuple[float, ...]) -> Tensor:
    return grad * torch.sigmoid(-a)


def _hardsigmoid_backward(grad: Tensor, a: Tensor, _: Tensor, __: tuple[float, ...]) -> Tensor:
    # PyTorch's kernel multiplies by a float32 sixth, in float64 too.
    return grad * ((a > -3) & (a < 3)) / 6


def _celu_backward(grad: Tensor, a: Tensor, _: Tensor, p: tuple[float, ...]) -> Tensor:
    # F.celu is elu with input scale 1/α. (PyTorch's own derivative rounds α to float32 first.)
    result: Tensor = _aten.elu_backward(grad, p[0], 1, 1 / p[0], False, a)
    return result


ACTIVATIONS: dict[str, Activation] = {
    "identity": Activation(lambda a, p: a, lambda g, a, f, p: g),
    "relu": Activation(lambda a, p: torch.relu(a), lambda g, a, f, p: _aten.threshold_backward(g, f, 0)),
    "relu6": Activation(lambda a, p: F.relu6(a), lambda g, a, f, p: _aten.hardtanh_backward(g, a, 0, 6)),
    "leaky_relu": Activation(
        lambda a, p: F.leaky_relu(a, p[0]), lambda g, a, f, p: _aten.leaky_relu_backward(g, a, p[0], False)
    ),
    "elu": Activation(
        lambda a, p: F.elu(a, p[0]), lambda g, a, f, p: _aten.elu_backward(g, p[0], 1, 1, False, a)
    ),
    "selu": Activation(
        lambda a, p: F.selu(a),
        lambda g, a, f, p: _aten.elu_backward(g, _SELU_ALPHA, _SELU_SCALE, 1, False, a),
    ),
    "celu": Activation(lambda a, p: F.celu(a, p[0]), _celu_backward),
    "gelu": Activation(lambda a, p: F.gelu(a), lambda g, a, f, p: _aten.gelu_backward(g, a)),
    "gelu_tanh": Activation(
        lambda a, p: F.gelu(a, approximate="tanh"),
        lambda g, a, f, p: _aten.gelu_backward(g, a, approximate="tanh"),
    ),
    "silu": Activation(lambda a, p: F.silu(a), lambda g, a, f, p: _aten.silu_backward(g, a)),
    "mish": Activation(lambda a, p: F.mish(a), lambda g, a, f, p: _aten.mish_backward(g, a)),
    "softplus": Activation(
        lambda a, p: F.softplus(a, p[0], p[1]),
        lambda g, a, f, p: _aten.softplus_backward(g, a, p[0], p[1]),
    ),
    "softsign": Activation(lambda a, p: F.softsign(a), _softsign_backward),
    "tanh": Activation(lambda a, p: torch.tanh(a), lambda g, a, f, p: _aten.tanh_backward(g, f)),
    "tanhshrink": Activation(lambda a, p: F.tanhshrink(a), lambda g, a, f, p: g * (a - f).square_()),
    "sigmoid": Activation(lambda a, p: torch.sigmoid(a), lambda g, a, f, p: _aten.sigmoid_backward(g, f)),
    "log_sigmoid": Activation(lambda a, p: F.logsigmoid(a), _log_sigmoid_backward),
    "hardtanh": Activation(
        lambda a, p: F.hardtanh(a, p[0], p[1]),
        lambda g, a, f, p: _aten.hardtanh_backward(g, a, p[0], p[1]),
    ),
    "hardsigmoid": Activation(lambda a, p: F.hardsigmoid(a), _hardsigmoid_backward),
    "hardswish": Activation(lambda a, p: F.hardswish(a), lambda g, a, f, p: _aten.hardswish_backward(g, a)),
}
