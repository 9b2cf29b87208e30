"""silu, mish and gelu's tanh approximation: x times a gate that falls to 0 on the left.

With z = exp(-|x|) every formula is a quotient of sums of terms of one sign, or of terms that cancel without
error, except about the derivative's root, where a series takes over. Far on the left exp(x) alone would be
subnormal while x exp(x) is not. Tensors are float64, one-dimensional, of whole vectors (see ``primitives``).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from epochd_server.engine.activations import double_double as dd
from epochd_server.engine.activations.coefficients import (
    GELU_TANH_DERIVATIVE,
    MISH_DERIVATIVE,
    SILU_DERIVATIVE,
)
from epochd_server.engine.activations.logistic import sigmoid
from epochd_server.engine.activations.primitives import (
    EXP_MINUS_SHIFT,
    SHIFT,
    exp_pair,
    keep_nan,
    patch,
)

Parameters = Mapping[str, float]

_FAR_LEFT = -690.0
_LIMIT = 2000.0  # exp(-2000) is 0: beyond it a gate is 0 or 1, and infinities are kept out of products


def silu(x: Tensor, _: Parameters) -> Tensor:
    """Computes x sigmoid(x)."""
    return patch(x * sigmoid(x, {}), x < _FAR_LEFT, _x_exp, x)


def silu_derivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes (1 + z + x z) / (1 + z)^2 on the right, z (1 + z + x) / (1 + z)^2 on the left."""
    x_limited = torch.clamp(x, -_LIMIT, _LIMIT)
    z = torch.exp(-torch.abs(x_limited))
    one_plus_z = 1.0 + z
    numerator = torch.where(x > 0.0, one_plus_z + x_limited * z, z * ((1.0 + x_limited) + z))
    result = dd.over_square_of_sum(numerator, 1.0, z)
    patch(result, x < _FAR_LEFT, _one_plus_x_exp, x)
    return SILU_DERIVATIVE.apply(result, x)


def mish(x: Tensor, _: Parameters) -> Tensor:
    """Computes x n / d with tanh(softplus(x)) = n / d.

    On the right n / d = (1 + 2 z) / (1 + 2 z + 2 z^2), on the left z (z + 2) / (z (z + 2) + 2).
    """
    z = torch.exp(-torch.abs(x))
    left = z * (z + 2.0)
    right = 1.0 + 2.0 * z
    gate = torch.where(x >= 0.0, right / (right + 2.0 * (z * z)), left / (left + 2.0))
    return patch(x * gate, x < _FAR_LEFT, _x_exp, x)


def mish_derivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes the derivative of x n / d, brought over one denominator on either side."""
    limited = torch.clamp(x, -_LIMIT, _LIMIT)
    z = torch.exp(-torch.abs(limited))
    result = torch.where(x >= 0.0, _mish_slope_right(limited, z), _mish_slope_left(limited, z))
    patch(result, x < _FAR_LEFT, _one_plus_x_exp, x)
    return MISH_DERIVATIVE.apply(result, x)


def _mish_slope_right(x: Tensor, z: Tensor) -> Tensor:
    n = 1.0 + 2.0 * z
    d = n + 2.0 * (z * z)
    return (n + 4.0 * x * (z * z) * (1.0 + z) / d) / d


def _mish_slope_left(x: Tensor, z: Tensor) -> Tensor:
    numerator = z * (4.0 * (1.0 + x) + z * ((6.0 + 4.0 * x) + z * (4.0 + z)))
    d, error = dd.two_sum(2.0 * z, 2.0)
    d_rest = z * z + error
    return dd.over_square_of_sum(numerator, d, d_rest)


def _x_exp(x: Tensor) -> Tensor:
    x = torch.clamp(x, min=-_LIMIT)
    return (torch.exp(x + SHIFT) * x) * EXP_MINUS_SHIFT


def _one_plus_x_exp(x: Tensor) -> Tensor:
    x = torch.clamp(x, min=-_LIMIT)
    return (torch.exp(x + SHIFT) * (1.0 + x)) * EXP_MINUS_SHIFT


# gelu's approximation is x sigmoid(w) with w = K x (1 + C x^2), K = 2 sqrt(2 / pi), C = 0.044715 exactly
_K = (1.5957691216057308, -9.96930880911092e-17)
_C = (0.044715, 2.1960211427085595e-18)
_3C = (0.134145, 1.3526957332032908e-17)
_GELU_TANH_LIMIT = 30.0  # exp(-w) is 0 from 21.7 on


def gelu_tanh(x: Tensor, _: Parameters) -> Tensor:
    """Computes x sigmoid(w), with w to twice double precision: far on the left it stands in an exponent."""
    limited, w, w_low = _gelu_tanh_argument(x)
    z = exp_pair(-torch.abs(w), torch.where(w > 0.0, -w_low, w_low))
    result = x * (torch.where(w >= 0.0, 1.0, z) / (1.0 + z))
    return patch(result, w < _FAR_LEFT, _x_exp_w, limited, w, w_low)


def gelu_tanh_derivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes (1 + z + v z) / (1 + z)^2 on the right, z (1 + v + z) / (1 + z)^2 on the left, with v = x w'(x)."""
    limited, w, w_low = _gelu_tanh_argument(x)
    v, one_plus_v = _gelu_tanh_slope(limited)
    z = exp_pair(-torch.abs(w), torch.where(w > 0.0, -w_low, w_low))
    one_plus_z = 1.0 + z
    numerator = torch.where(w > 0.0, one_plus_z + v * z, z * (one_plus_v + z))
    result = dd.over_square_of_sum(numerator, 1.0, z)
    patch(result, w < _FAR_LEFT, _x_exp_w, one_plus_v, w, w_low)
    return keep_nan(x, GELU_TANH_DERIVATIVE.apply(result, x))


def _gelu_tanh_argument(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.clamp(x, -_GELU_TANH_LIMIT, _GELU_TANH_LIMIT)
    w, w_low = dd.multiply(
        dd.multiply(_one_plus(dd.multiply(dd.square(x), _C)), _K), (x, torch.zeros_like(x))
    )
    return x, w, w_low


def _gelu_tanh_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    v = dd.multiply(dd.multiply(_one_plus(dd.multiply(dd.square(x), _3C)), _K), (x, torch.zeros_like(x)))
    return v[0], _one_plus(v)[0]


def _one_plus(a: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    high, error = dd.two_sum(a[0], 1.0)
    return dd.quick_two_sum(high, error + a[1])


def _x_exp_w(factor: Tensor, w: Tensor, w_low: Tensor) -> Tensor:
    return (exp_pair(w + SHIFT, w_low) * factor) * EXP_MINUS_SHIFT
