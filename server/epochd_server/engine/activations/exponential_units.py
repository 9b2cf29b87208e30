"""elu, selu and celu: a straight line on the right, an exponential on the left.

Tensors are float64, one-dimensional, of whole vectors (see ``primitives``).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from epochd_server.engine.activations import double_double as dd
from epochd_server.engine.activations.primitives import (
    exp_pair,
    expm1_excess,
    half_square,
    log1p_ratio,
)

Parameters = Mapping[str, float]

# Klambauer et al. 2017: a = 1.6732632423543772848…, s = 1.0507009873554804934…
SELU_SCALE = 1.0507009873554805
SELU_PRODUCT, SELU_PRODUCT_LOW = 1.7580993408473768, 1.41535193800845e-17


def elu(x: Tensor, parameters: Parameters) -> Tensor:
    """Computes x for x > 0, else alpha (exp(x) - 1)."""
    return torch.where(x > 0.0, x, parameters["alpha"] * torch.expm1(_left(x)))


def elu_inverse(y: Tensor, parameters: Parameters) -> Tensor:
    """Computes y for y > 0, else log(1 + y / alpha)."""
    return torch.where(y > 0.0, y, log1p_ratio(_left(y), parameters["alpha"]))


def elu_derivative(x: Tensor, parameters: Parameters) -> Tensor:
    """Computes 1 for x > 0, else alpha exp(x)."""
    return torch.where(x > 0.0, 1.0, parameters["alpha"] * torch.exp(_left(x)))


def elu_antiderivative(x: Tensor, parameters: Parameters) -> Tensor:
    """Computes x^2 / 2 for x > 0, else alpha (exp(x) - 1 - x)."""
    alpha = parameters["alpha"]
    left = alpha * expm1_excess(_left(x)) if alpha > 0.0 else 0.0 * torch.exp(_left(x))
    return torch.where(x > 0.0, half_square(x), left)


def selu(x: Tensor, _: Parameters) -> Tensor:
    """Computes s x for x > 0, else s a (exp(x) - 1)."""
    return torch.where(x > 0.0, SELU_SCALE * x, SELU_PRODUCT * torch.expm1(_left(x)))


def selu_inverse(y: Tensor, _: Parameters) -> Tensor:
    """Computes y / s for y > 0, else log(1 + y / (s a))."""
    return torch.where(y > 0.0, y / SELU_SCALE, log1p_ratio(_left(y), SELU_PRODUCT, SELU_PRODUCT_LOW))


def selu_derivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes s for x > 0, else s a exp(x)."""
    return torch.where(x > 0.0, SELU_SCALE, SELU_PRODUCT * torch.exp(_left(x)))


def selu_antiderivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes s x^2 / 2 for x > 0, else s a (exp(x) - 1 - x)."""
    return torch.where(x > 0.0, (0.5 * SELU_SCALE * x) * x, SELU_PRODUCT * expm1_excess(_left(x)))


def celu(x: Tensor, parameters: Parameters) -> Tensor:
    """Computes x for x > 0, else alpha (exp(x / alpha) - 1)."""
    alpha = parameters["alpha"]
    return torch.where(x > 0.0, x, alpha * torch.expm1(_left(x) / alpha))


def celu_inverse(y: Tensor, parameters: Parameters) -> Tensor:
    """Computes y for y > 0, else alpha log(1 + y / alpha)."""
    alpha = parameters["alpha"]
    return torch.where(y > 0.0, y, alpha * log1p_ratio(_left(y), alpha))


def celu_derivative(x: Tensor, parameters: Parameters) -> Tensor:
    """Computes 1 for x > 0, else exp(x / alpha), with the quotient to twice double precision."""
    return torch.where(x > 0.0, 1.0, exp_pair(*dd.divide_by(_left(x), parameters["alpha"])))


def celu_antiderivative(x: Tensor, parameters: Parameters) -> Tensor:
    """Computes x^2 / 2 for x > 0, else alpha^2 (exp(t) - 1 - t) with t = x / alpha to twice double precision."""
    alpha = parameters["alpha"]
    t, low = dd.divide_by(_left(x), alpha)
    near_0 = alpha * (alpha * (expm1_excess(t) + low * torch.expm1(t)))
    left = torch.where(t < -1.0, alpha * ((-x - alpha) + alpha * torch.exp(t)), near_0)
    return torch.where(x > 0.0, half_square(x), left)


def _left(x: Tensor) -> Tensor:
    # the exponential side only: no overflow on the other, which is not used
    return torch.clamp(x, max=0.0)
