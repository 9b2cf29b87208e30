"""sigmoid, logit, odds, softplus, log_sigmoid and cloglog, with z = exp(-|x|) so that nothing overflows.

Tensors are float64, one-dimensional, of whole vectors (see ``primitives``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from epochd_server.engine.activations import double_double as dd
from epochd_server.engine.activations.primitives import (
    INV_E,
    INV_E_LOW,
    LN2,
    LN2_LOW,
    E,
    log1p_defect,
    outside_is_nan,
    patch,
)

Parameters = Mapping[str, float]


def sigmoid(x: Tensor, _: Parameters) -> Tensor:
    """Computes 1 / (1 + exp(-x)), on the left as exp(x) / (1 + exp(x)).

    The numerator exp(min(x, 0)) is 1 on the right; a second exponential is cheaper than a choice.
    """
    return torch.exp(torch.clamp(x, max=0.0)) / (1.0 + torch.exp(-torch.abs(x)))


def sigmoid_derivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes sigmoid(x) sigmoid(-x) = z / (1 + z)^2; no 1 - sigmoid, which is 0 from 37 on."""
    z = torch.exp(-torch.abs(x))
    return dd.over_square_of_sum(z, 1.0, z)


def sigmoid_antiderivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes log(1 + exp(x)), the softplus: the potential, log 2 rather than 0 at 0."""
    return _softplus(x)


def logit(p: Tensor, _: Parameters) -> Tensor:
    """Computes log(p / (1 - p)) = ± log(1 + |1 - 2 p| / min(p, 1 - p)); 1 - 2 p is exact near its root 1/2."""
    smaller = torch.where(p < 0.5, p, 1.0 - p)
    magnitude = torch.log1p(torch.abs(1.0 - 2.0 * p) / smaller)
    result = torch.where(p < 0.5, -magnitude, magnitude)
    return patch(result, (p >= 0.0) & (p < 1e-300), torch.log, p)


def logit_derivative(p: Tensor, _: Parameters) -> Tensor:
    """Computes 1 / (p (1 - p))."""
    return outside_is_nan(1.0 / (torch.abs(p) * (1.0 - p)), _is_probability(p))


def logit_antiderivative(p: Tensor, _: Parameters) -> Tensor:
    """Computes p log(p) + (1 - p) log(1 - p), the negative entropy; both terms have one sign."""
    q = 1.0 - p
    result = torch.where(p > 0.0, p * torch.log(p), 0.0) + torch.where(q > 0.0, q * torch.log1p(-p), 0.0)
    return outside_is_nan(result, _is_probability(p))


def odds(p: Tensor, _: Parameters) -> Tensor:
    """Computes p / (1 - p)."""
    return outside_is_nan(p / (1.0 - p), _is_probability(p))


def odds_inverse(x: Tensor, _: Parameters) -> Tensor:
    """Computes x / (1 + x), the probability of the odds x."""
    value = torch.where(torch.isinf(x), 1.0, x / (1.0 + x))
    return outside_is_nan(value, x >= 0.0)


def odds_derivative(p: Tensor, _: Parameters) -> Tensor:
    """Computes 1 / (1 - p)^2."""
    q = 1.0 - p
    return outside_is_nan(1.0 / (q * q), _is_probability(p))


def odds_antiderivative(p: Tensor, _: Parameters) -> Tensor:
    """Computes -p - log(1 - p)."""
    return outside_is_nan(log1p_defect(-p), _is_probability(p))


def softplus(x: Tensor, parameters: Parameters) -> Tensor:
    """Computes max(x, 0) + log(1 + exp(-|t|)) / beta with t = beta x to twice double precision."""
    beta = parameters["beta"]
    if beta == 1.0:
        return _softplus(x)
    t, low = dd.scale(x, beta)
    z = torch.exp(-torch.abs(t))
    log_part = torch.log1p(z) - torch.sign(t) * low * (z / (1.0 + z))
    result = torch.clamp(x, min=0.0) + log_part / beta
    # exp(t) is subnormal there, and exp(t) / beta need not be
    return patch(result, t < -690.0, lambda a, b: _scaled_exp(a, b, beta), t, low)


def softplus_inverse(y: Tensor, parameters: Parameters) -> Tensor:
    """Computes log(exp(t) - 1) / beta with t = beta y to twice double precision."""
    beta = parameters["beta"]
    if beta == 1.0:
        return _softplus_inverse(y)
    t, low = dd.scale(y, beta)
    exp_minus_t, expm1_minus_t = torch.exp(-t), torch.expm1(-t)
    above = y + (torch.log1p(-exp_minus_t) - low * exp_minus_t / expm1_minus_t) / beta
    below = (torch.log(torch.expm1(t)) - low / expm1_minus_t) / beta
    result = torch.where(t > 1.0, above, below)
    patch(result, (t > 0.4) & (t < 1.0), lambda a, b: _softplus_inverse_near_root(a, b) / beta, t, low)
    patch(result, (y >= 0.0) & (t < 1e-290), lambda a: (torch.log(a) + math.log(beta)) / beta, y)
    return outside_is_nan(result, y >= 0.0)


def softplus_derivative(x: Tensor, parameters: Parameters) -> Tensor:
    """Computes sigmoid(beta x)."""
    beta = parameters["beta"]
    if beta == 1.0:
        return _sigmoid(x)
    t, low = dd.scale(x, beta)
    value = _sigmoid(t)
    return value + value * (low * _sigmoid(-t))


def log_sigmoid(x: Tensor, _: Parameters) -> Tensor:
    """Computes -log(1 + exp(-x))."""
    return -_softplus(-x)


def log_sigmoid_inverse(y: Tensor, _: Parameters) -> Tensor:
    """Computes -log(exp(-y) - 1)."""
    return -_softplus_inverse(-y)


def log_sigmoid_derivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes sigmoid(-x)."""
    return _sigmoid(-x)


def cloglog(p: Tensor, _: Parameters) -> Tensor:
    """Computes log(-log(1 - p)); its root is 1 - 1/e."""
    result = torch.log(-torch.log1p(-p))
    patch(result, (p >= 0.5) & (p < 0.8), _cloglog_near_root, p)
    patch(result, (p >= 0.0) & (p < 1e-300), torch.log, p)
    return outside_is_nan(result, _is_probability(p))


def cloglog_inverse(x: Tensor, _: Parameters) -> Tensor:
    """Computes 1 - exp(-exp(x))."""
    return -torch.expm1(-torch.exp(x))


def cloglog_derivative(p: Tensor, _: Parameters) -> Tensor:
    """Computes -1 / ((1 - p) log(1 - p)), infinite at both ends."""
    # PyTorch's log1p is 0 for subnormal numbers
    hazard = torch.where(p < 1e-300, torch.abs(p), -torch.log1p(-p))
    slope = torch.where(p < 1.0, 1.0 / ((1.0 - p) * hazard), torch.inf)
    return outside_is_nan(slope, _is_probability(p))


def _is_probability(p: Tensor) -> Tensor:
    return (p >= 0.0) & (p <= 1.0)


def _sigmoid(x: Tensor) -> Tensor:
    return sigmoid(x, {})


def _softplus(x: Tensor) -> Tensor:
    return torch.clamp(x, min=0.0) + torch.log1p(torch.exp(-torch.abs(x)))


def _scaled_exp(high: Tensor, low: Tensor, beta: float) -> Tensor:
    half = torch.exp(0.5 * high)
    return ((half + half * low) / beta) * half


def _softplus_inverse(t: Tensor) -> Tensor:
    """Returns ``log(exp(t) - 1) = t + log(1 - exp(-t))``."""
    result = torch.where(t > 1.0, t + torch.log1p(-torch.exp(-t)), torch.log(torch.expm1(t)))
    return patch(result, (t > 0.4) & (t < 1.0), lambda a: _softplus_inverse_near_root(a, 0.0), t)


def _softplus_inverse_near_root(t: Tensor, low: Tensor | float) -> Tensor:
    # exp(t) - 1 = 1 + 2 (exp(t - log 2) - 1)
    return torch.log1p(2.0 * torch.expm1((t - LN2) + (low - LN2_LOW)))


def _cloglog_near_root(p: Tensor) -> Tensor:
    # with q = 1 - p, exact: -log(q) = 1 - log(1 + e (q - 1/e))
    q = 1.0 - p
    return torch.log1p(-torch.log1p(E * ((q - INV_E) - INV_E_LOW)))
