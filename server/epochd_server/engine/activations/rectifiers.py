"""Functions of straight pieces: relu and its kin, the hard functions, and the shrinks.

At a kink the derivative is what PyTorch's autograd takes. The inverse is defined where exactly one value is
mapped to the argument. Tensors are float64, one-dimensional.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from epochd_server.engine.activations.primitives import half_square, keep_nan, outside_is_nan

Parameters = Mapping[str, float]


def _indicator(x: Tensor, inside: Tensor, height: float = 1.0) -> Tensor:
    # a tensor, not two numbers: torch.where would make those float32
    return keep_nan(x, torch.where(inside, torch.full_like(x, height), 0.0))


def relu(x: Tensor, _: Parameters) -> Tensor:
    """Computes max(x, 0)."""
    return torch.clamp(x, min=0.0)


def relu_inverse(y: Tensor, _: Parameters) -> Tensor:
    """Computes y for y > 0; 0 is the image of a half-line and negative numbers of nothing."""
    return outside_is_nan(y, y > 0.0)


def relu_derivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes 1 for x > 0, else 0."""
    return _indicator(x, x > 0.0)


def relu_antiderivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes max(x, 0)^2 / 2."""
    return half_square(torch.clamp(x, min=0.0))


def leaky_relu(x: Tensor, parameters: Parameters) -> Tensor:
    """Computes x for x > 0, else negative_slope x."""
    return torch.where(x > 0.0, x, _times(parameters["negative_slope"], x))


def leaky_relu_inverse(y: Tensor, parameters: Parameters) -> Tensor:
    """Computes y for y > 0, else y / negative_slope."""
    return torch.where(y > 0.0, y, y / parameters["negative_slope"])


def leaky_relu_derivative(x: Tensor, parameters: Parameters) -> Tensor:
    """Computes 1 for x > 0, else negative_slope."""
    slope = torch.where(x > 0.0, 1.0, torch.full_like(x, parameters["negative_slope"]))
    return keep_nan(x, slope)


def leaky_relu_antiderivative(x: Tensor, parameters: Parameters) -> Tensor:
    """Computes x^2 / 2, times negative_slope for x <= 0."""
    return torch.where(x > 0.0, half_square(x), _times(parameters["negative_slope"], 0.5 * x) * x)


def _times(slope: float, x: Tensor) -> Tensor:
    # 0 times infinity: the piece is flat
    return keep_nan(x, torch.zeros_like(x)) if slope == 0.0 else slope * x


def relu6(x: Tensor, _: Parameters) -> Tensor:
    """Computes min(max(x, 0), 6)."""
    return torch.clamp(x, min=0.0, max=6.0)


def relu6_inverse(y: Tensor, _: Parameters) -> Tensor:
    """Computes y between 0 and 6."""
    return outside_is_nan(y, (y > 0.0) & (y < 6.0))


def relu6_derivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes 1 strictly between 0 and 6, else 0."""
    return _indicator(x, (x > 0.0) & (x < 6.0))


def relu6_antiderivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes 0, x^2 / 2, then 6 (x - 3)."""
    return torch.where(x < 6.0, half_square(torch.clamp(x, min=0.0)), 6.0 * (x - 3.0))


def hardtanh(x: Tensor, parameters: Parameters) -> Tensor:
    """Computes min(max(x, min_val), max_val)."""
    return torch.clamp(x, min=parameters["min_val"], max=parameters["max_val"])


def hardtanh_inverse(y: Tensor, parameters: Parameters) -> Tensor:
    """Computes y strictly between min_val and max_val."""
    return outside_is_nan(y, _strictly_between(y, parameters))


def hardtanh_derivative(x: Tensor, parameters: Parameters) -> Tensor:
    """Computes 1 strictly between min_val and max_val, else 0."""
    return _indicator(x, _strictly_between(x, parameters))


def _strictly_between(x: Tensor, parameters: Parameters) -> Tensor:
    return (x > parameters["min_val"]) & (x < parameters["max_val"])


def hardtanh_antiderivative(x: Tensor, parameters: Parameters) -> Tensor:
    """Computes the integral of hardtanh from 0, which may lie outside [min_val, max_val]."""
    low, high = parameters["min_val"], parameters["max_val"]
    if high < 0.0:
        return _ramp_integral(-x, -high, -low)
    if low > 0.0:
        return _ramp_integral(x, low, high)
    inside = torch.where(x > 0.0, _side_integral(x, high), _side_integral(-x, -low))
    return keep_nan(x, inside)


def _side_integral(x: Tensor, limit: float) -> Tensor:
    # integral from 0 of min(t, limit) for x, limit >= 0
    if limit == 0.0:
        return torch.zeros_like(x)
    return torch.where(x < limit, half_square(x), limit * (x - 0.5 * limit))


def _ramp_integral(x: Tensor, low: float, high: float) -> Tensor:
    # 0 < low < high: low x, then a parabola, then high x less the triangle under the ramp
    ramp = 0.5 * ((x - low) * (x - low)) + low * x
    above = high * x - 0.5 * (high - low) * (high + low)
    return torch.where(x <= low, low * x, torch.where(x < high, ramp, above))


def hardsigmoid(x: Tensor, _: Parameters) -> Tensor:
    """Computes min(max(x + 3, 0), 6) / 6."""
    return torch.clamp(x + 3.0, min=0.0, max=6.0) / 6.0


def hardsigmoid_inverse(y: Tensor, _: Parameters) -> Tensor:
    """Computes 3 (2 y - 1) strictly between 0 and 1."""
    return outside_is_nan(3.0 * (2.0 * y - 1.0), (y > 0.0) & (y < 1.0))


def hardsigmoid_derivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes 1/6 strictly between -3 and 3, else 0."""
    return _indicator(x, torch.abs(x) < 3.0, 1.0 / 6.0)


def hardsigmoid_antiderivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes -3/4, x (x + 6) / 12, then x - 3/4."""
    middle = torch.clamp(x, min=-3.0)
    return torch.where(x < 3.0, middle * (middle + 6.0) / 12.0, x - 0.75)


def hardswish(x: Tensor, _: Parameters) -> Tensor:
    """Computes x min(max(x + 3, 0), 6) / 6, which is 0 up to -3, also at -infinity, and x from 3 on."""
    middle = torch.clamp(x, min=-3.0)
    return torch.where(x < 3.0, middle * (middle + 3.0) / 6.0, x)


def hardswish_inverse(y: Tensor, _: Parameters) -> Tensor:
    """Computes the positive root of x (x + 3) = 6 y, or y from 3 on; negative y have two preimages."""
    root = 12.0 * y / (3.0 + torch.sqrt(9.0 + 24.0 * y))
    return outside_is_nan(torch.where(y < 3.0, root, y), y > 0.0)


def hardswish_derivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes 0 up to -3, then (2 x + 3) / 6, and 1 from 3 on."""
    slope = torch.where(x < 3.0, (2.0 * x + 3.0) / 6.0, 1.0)
    return keep_nan(x, torch.where(x <= -3.0, 0.0, slope))


def hardswish_antiderivative(x: Tensor, _: Parameters) -> Tensor:
    """Computes 3/4, x^2 (2 x + 9) / 36, then x^2 / 2 - 3/4."""
    middle = torch.clamp(x, min=-3.0)
    return torch.where(x < 3.0, middle * middle * (2.0 * middle + 9.0) / 36.0, half_square(x) - 0.75)


def softshrink(x: Tensor, parameters: Parameters) -> Tensor:
    """Computes sign(x) max(|x| - lambd, 0)."""
    return torch.copysign(_excess(x, parameters), x)


def softshrink_inverse(y: Tensor, parameters: Parameters) -> Tensor:
    """Computes y + sign(y) lambd; 0 is the image of a whole interval, unless lambd is 0."""
    lambd = parameters["lambd"]
    value = y + torch.sign(y) * lambd
    return outside_is_nan(value, (y != 0.0) | (lambd == 0.0))


def shrink_derivative(x: Tensor, parameters: Parameters) -> Tensor:
    """Computes 1 where |x| > lambd, else 0: of softshrink and hardshrink alike."""
    return _indicator(x, torch.abs(x) > parameters["lambd"])


def softshrink_antiderivative(x: Tensor, parameters: Parameters) -> Tensor:
    """Computes max(|x| - lambd, 0)^2 / 2."""
    return half_square(_excess(x, parameters))


def _excess(x: Tensor, parameters: Parameters) -> Tensor:
    return torch.clamp(torch.abs(x) - parameters["lambd"], min=0.0)


def hardshrink(x: Tensor, parameters: Parameters) -> Tensor:
    """Computes x where |x| > lambd, else 0."""
    return keep_nan(x, torch.where(torch.abs(x) > parameters["lambd"], x, 0.0))


def hardshrink_inverse(y: Tensor, parameters: Parameters) -> Tensor:
    """Computes y where |y| > lambd; 0 is the image of a whole interval, unless lambd is 0."""
    lambd = parameters["lambd"]
    return outside_is_nan(y, (torch.abs(y) > lambd) | ((y == lambd) & (lambd == 0.0)))


def hardshrink_antiderivative(x: Tensor, parameters: Parameters) -> Tensor:
    """Computes (x^2 - lambd^2) / 2 = (|x| - lambd) (|x| + lambd) / 2 where |x| > lambd, else 0."""
    size = torch.abs(x)
    return (0.5 * _excess(x, parameters)) * (size + parameters["lambd"])
