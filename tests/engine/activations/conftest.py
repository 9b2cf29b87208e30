"""What the tests of the activations share: mpmath's value of every operation, hard inputs, and distances in ulp."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import mpmath
import numpy as np
import pytest
import torch
from mpmath import mpf

from epochd_server.domain.activations import Activation, ActivationStep, Operation, resolved_parameters

SELU_ALPHA = "1.6732632423543772848170429916717"
SELU_SCALE = "1.0507009873554804934193349852946"

SMALLEST_NORMAL = {torch.float32: 2.0**-126, torch.float64: 2.0**-1022}
SIGNIFICAND_BITS = {torch.float32: 24, torch.float64: 53}
LARGEST = {
    torch.float32: float(torch.finfo(torch.float32).max),
    torch.float64: float(torch.finfo(torch.float64).max),
}


def exp(x: mpf) -> mpf:
    """e^x, saturated far beyond every double: larger exponents would only be slow."""
    return mpmath.exp(min(max(x, -20000), 20000))


def expm1(x: mpf) -> mpf:
    """e^x - 1, saturated likewise."""
    return mpmath.expm1(min(max(x, -20000), 20000))


def _sigmoid(x: mpf) -> mpf:
    return 1 / (1 + exp(-x))


def _softplus(x: mpf) -> mpf:
    return mpmath.log1p(exp(x)) if x < 0 else x + mpmath.log1p(exp(-x))


def _softplus_inverse(y: mpf) -> mpf:
    return mpmath.log(expm1(y)) if y < 1 else y + mpmath.log1p(-exp(-y))


def _logit(p: mpf) -> mpf:
    return mpmath.log(p / (1 - p))


def _xlogx(x: mpf) -> mpf:
    return x * mpmath.log(x) if x else mpf(0)


def _phi(x: mpf) -> mpf:
    return exp(-x * x / 2) / mpmath.sqrt(2 * mpmath.pi)


def _cdf(x: mpf) -> mpf:
    # mpmath's erfc fails on huge arguments
    return mpmath.erfc(-min(max(x, -(10**5)), 10**5) / mpmath.sqrt(2)) / 2


def _log_cosh(x: mpf) -> mpf:
    return abs(x) + mpmath.log1p(exp(-2 * abs(x))) - mpmath.log(2)


def _gelu_tanh_w(x: mpf) -> tuple[mpf, mpf]:
    x = min(max(x, -100), 100)  # there the gate is 0 or 1 far beyond any precision, and cubes would be slow
    k, c = 2 * mpmath.sqrt(2 / mpmath.pi), mpf("0.044715")
    return k * (x + c * x**3), k * (1 + 3 * c * x * x)


def _gelu_tanh_slope(x: mpf) -> mpf:
    w, slope = _gelu_tanh_w(x)
    return _sigmoid(w) * (1 + x * slope * _sigmoid(-w))


def _mish_gate(x: mpf) -> mpf:
    e = exp(x)
    return e * (e + 2) / (e * (e + 2) + 2)


def _mish_slope(x: mpf) -> mpf:
    # d/dx tanh(softplus(x)) = sech(softplus(x))^2 sigmoid(x), and sech^2 = 4 s^2 / (s^2 + 1)^2, s = 1 + e^x
    s = 1 + exp(x)
    return _mish_gate(x) + x * (2 * s / (s * s + 1)) ** 2 * _sigmoid(x)


def _hardtanh_integral(x: mpf, low: mpf, high: mpf) -> mpf:
    def from_low(t: mpf) -> mpf:
        inside = min(max(t, low), high)
        return low * min(t - low, 0) + (inside**2 - low**2) / 2 + high * max(t - high, 0)

    return from_low(x) - from_low(mpf(0))


def _between(low: float, high: float) -> Callable[[mpf], bool]:
    return lambda x: low <= x <= high


def _unit(x: mpf) -> bool:
    return bool(0 <= x <= 1)


def _half_square(x: mpf) -> mpf:
    return x * x / 2


@mpmath.workprec(300)
def _erfinv(y: mpf) -> mpf:
    """Solves erf(x) = y by Newton's method from a double."""
    if abs(y) == 1:
        return mpf("inf") * y
    size = abs(y)
    x = mpf(float(torch.erfinv(torch.tensor(float(size), dtype=torch.float64))))
    for _ in range(4):
        excess = mpmath.erf(x) - size if size < 0.5 else 1 - size - mpmath.erfc(x)
        x -= excess * mpmath.sqrt(mpmath.pi) / 2 * exp(x * x)
    return x if y >= 0 else -x


@mpmath.workprec(300)
def _probit(p: mpf) -> mpf:
    """Solves log(Phi(x)) = log(p) by Newton's method from a double."""
    if p in (0, 1):
        return mpf("inf") * (2 * p - 1)
    if p > 0.5:
        return -_probit(1 - p)
    x = mpf(float(torch.special.ndtri(torch.tensor(float(p), dtype=torch.float64))))
    for _ in range(4):
        density, value = _phi(x), _cdf(x)
        x -= mpmath.log(value / p) * value / density
    return x


@dataclass(frozen=True, slots=True)
class Truth:
    """An operation as mpmath has it: the value, and where it is defined."""

    value: Callable[..., mpf]
    defined: Callable[..., bool] = lambda _x, **_: True
    interesting: Sequence[float] = ()


LN2 = math.log(2)
F, I, D, A = Operation.FORWARD, Operation.INVERSE, Operation.DERIVATIVE, Operation.ANTIDERIVATIVE  # noqa: E741
log, log1p = mpmath.log, mpmath.log1p

_LOGIT_TRUTHS = {
    F: Truth(_logit, _unit, (0.5, 1.0)),
    I: Truth(_sigmoid),
    D: Truth(lambda p: 1 / (p * (1 - p)), _unit, (0.5, 1.0)),
    A: Truth(lambda p: _xlogx(p) + _xlogx(1 - p), _unit, (0.5, 1.0)),
}

TRUTHS: Mapping[Activation, Mapping[Operation, Truth]] = {
    Activation.SIGMOID: {
        F: Truth(_sigmoid),
        I: _LOGIT_TRUTHS[F],
        D: Truth(lambda x: _sigmoid(x) * _sigmoid(-x), interesting=(37.0,)),
        A: Truth(_softplus, interesting=(20.0,)),
    },
    Activation.LOGIT: _LOGIT_TRUTHS,
    Activation.LOG_ODDS: _LOGIT_TRUTHS,
    Activation.ODDS: {
        F: Truth(lambda p: p / (1 - p), _unit, (1.0,)),
        I: Truth(lambda x: x / (1 + x), lambda x: x >= 0),
        D: Truth(lambda p: (1 - p) ** -2, _unit, (1.0,)),
        A: Truth(lambda p: -p - log1p(-p), _unit, (0.5, 1.0)),
    },
    Activation.SOFTPLUS: {
        F: Truth(lambda x, beta: _softplus(beta * x) / beta, interesting=(20.0,)),
        I: Truth(
            lambda y, beta: _softplus_inverse(beta * y) / beta,
            lambda y, beta: y >= 0,
            (LN2, LN2 / 0.3, LN2 / 7.1),
        ),
        D: Truth(lambda x, beta: _sigmoid(beta * x)),
    },
    Activation.LOG_SIGMOID: {
        F: Truth(lambda x: -_softplus(-x)),
        I: Truth(lambda y: -_softplus_inverse(-y), lambda y: y <= 0, (-LN2,)),
        D: Truth(lambda x: _sigmoid(-x)),
    },
    Activation.CLOGLOG: {
        F: Truth(lambda p: log(-log1p(-p)), _unit, (1 - math.exp(-1), 0.5, 0.8, 1.0)),
        I: Truth(lambda x: -expm1(-exp(x))),
        D: Truth(lambda p: -1 / ((1 - p) * log1p(-p)) if p < 1 else mpf("inf"), _unit, (1.0,)),
    },
    Activation.TANH: {
        F: Truth(mpmath.tanh),
        I: Truth(lambda y: (log1p(y) - log1p(-y)) / 2, _between(-1, 1), (1.0, -1.0)),
        D: Truth(lambda x: (2 / (exp(x) + exp(-x))) ** 2, interesting=(20.0,)),
        A: Truth(_log_cosh, interesting=(1.0,)),
    },
    Activation.RELU: {
        F: Truth(lambda x: max(x, 0)),
        I: Truth(lambda y: y, lambda y: y > 0),
        D: Truth(lambda x: mpf(x > 0)),
        A: Truth(lambda x: _half_square(max(x, 0))),
    },
    Activation.LEAKY_RELU: {
        F: Truth(lambda x, negative_slope: x if x > 0 else negative_slope * x),
        I: Truth(lambda y, negative_slope: y if y > 0 else y / negative_slope),
        D: Truth(lambda x, negative_slope: mpf(1) if x > 0 else negative_slope),
        A: Truth(lambda x, negative_slope: _half_square(x) * (1 if x > 0 else negative_slope)),
    },
    Activation.ELU: {
        F: Truth(lambda x, alpha: x if x > 0 else alpha * expm1(x)),
        I: Truth(
            lambda y, alpha: y if y > 0 else log1p(y / alpha),
            lambda y, alpha: y >= -alpha,
            (-1.0, -0.7, -2.3),
        ),
        D: Truth(lambda x, alpha: mpf(1) if x > 0 else alpha * exp(x)),
        A: Truth(lambda x, alpha: _half_square(x) if x > 0 else alpha * (expm1(x) - x)),
    },
    Activation.SELU: {
        F: Truth(lambda x: mpf(SELU_SCALE) * (x if x > 0 else mpf(SELU_ALPHA) * expm1(x))),
        I: Truth(
            lambda y: y / mpf(SELU_SCALE) if y > 0 else log1p(y / (mpf(SELU_SCALE) * mpf(SELU_ALPHA))),
            lambda y: y >= -mpf(SELU_SCALE) * mpf(SELU_ALPHA),
            (-1.7580993408473768,),
        ),
        D: Truth(lambda x: mpf(SELU_SCALE) * (1 if x > 0 else mpf(SELU_ALPHA) * exp(x))),
        A: Truth(
            lambda x: mpf(SELU_SCALE) * (_half_square(x) if x > 0 else mpf(SELU_ALPHA) * (expm1(x) - x))
        ),
    },
    Activation.CELU: {
        F: Truth(lambda x, alpha: x if x > 0 else alpha * expm1(x / alpha)),
        I: Truth(
            lambda y, alpha: y if y > 0 else alpha * log1p(y / alpha),
            lambda y, alpha: y >= -alpha,
            (-1.0, -0.7, -2.3),
        ),
        D: Truth(lambda x, alpha: mpf(1) if x > 0 else exp(x / alpha)),
        A: Truth(lambda x, alpha: _half_square(x) if x > 0 else alpha**2 * (expm1(x / alpha) - x / alpha)),
    },
    Activation.GELU: {
        F: Truth(lambda x: x * _cdf(x), interesting=(-9.01, -21.0, -38.0)),
        D: Truth(
            lambda x: _cdf(x) + x * _phi(x), interesting=(-0.7517915246935645, -0.15, -1.35, -21.0, -38.0)
        ),
        A: Truth(lambda x: ((x * x - 1) * _cdf(x) + x * _phi(x)) / 2 + mpf(1) / 4, interesting=(-1.0, 1.0)),
    },
    Activation.SILU: {
        F: Truth(lambda x: x * _sigmoid(x), interesting=(-690.0, -712.0)),
        D: Truth(
            lambda x: _sigmoid(x) * (1 + x * _sigmoid(-x)), interesting=(-1.2784645427610738, -1.0, -712.0)
        ),
    },
    Activation.MISH: {
        F: Truth(lambda x: x * _mish_gate(x), interesting=(-690.0, -712.0)),
        D: Truth(_mish_slope, interesting=(-1.1924312145154937, -0.85, -1.55, -712.0)),
    },
    Activation.RELU6: {
        F: Truth(lambda x: min(max(x, 0), 6)),
        I: Truth(lambda y: y, lambda y: 0 < y < 6, (6.0,)),
        D: Truth(lambda x: mpf(0 < x < 6), interesting=(6.0,)),
        A: Truth(lambda x: _hardtanh_integral(x, mpf(0), mpf(6)), interesting=(6.0,)),
    },
    Activation.HARDTANH: {
        F: Truth(lambda x, min_val, max_val: min(max(x, min_val), max_val), interesting=(-1.0, 1.0)),
        I: Truth(lambda y, **_: y, lambda y, min_val, max_val: min_val < y < max_val, (-1.0, 1.0)),
        D: Truth(lambda x, min_val, max_val: mpf(min_val < x < max_val), interesting=(-1.0, 1.0)),
        A: Truth(
            lambda x, min_val, max_val: _hardtanh_integral(x, min_val, max_val), interesting=(-1.0, 1.0)
        ),
    },
    Activation.HARDSIGMOID: {
        F: Truth(lambda x: min(max(x + 3, 0), 6) / 6, interesting=(-3.0, 3.0)),
        I: Truth(lambda y: 6 * y - 3, lambda y: 0 < y < 1, (0.5,)),
        D: Truth(lambda x: mpf(-3 < x < 3) / 6, interesting=(-3.0, 3.0)),
        A: Truth(
            lambda x: mpf(-3) / 4 if x < -3 else x * x / 12 + x / 2 if x < 3 else x - mpf(3) / 4,
            interesting=(-3.0, 3.0),
        ),
    },
    Activation.HARDSWISH: {
        F: Truth(lambda x: x * min(max(x + 3, 0), 6) / 6, interesting=(-3.0, 3.0)),
        I: Truth(lambda y: y if y >= 3 else (mpmath.sqrt(9 + 24 * y) - 3) / 2, lambda y: y > 0, (3.0,)),
        D: Truth(
            lambda x: mpf(0) if x <= -3 else x / 3 + mpf(1) / 2 if x < 3 else mpf(1),
            interesting=(-3.0, -1.5, 3.0),
        ),
        A: Truth(
            lambda x: mpf(3) / 4 if x < -3 else x**3 / 18 + x * x / 4 if x < 3 else x * x / 2 - mpf(3) / 4,
            interesting=(-3.0, 3.0),
        ),
    },
    Activation.SOFTSIGN: {
        F: Truth(lambda x: x / (1 + abs(x))),
        I: Truth(lambda y: y / (1 - abs(y)), _between(-1, 1), (-1.0, 1.0)),
        D: Truth(lambda x: (1 + abs(x)) ** -2, interesting=(1e20,)),
        A: Truth(lambda x: abs(x) - log1p(abs(x)), interesting=(1.0, 2.0)),
    },
    Activation.ARCTAN: {
        F: Truth(mpmath.atan),
        I: Truth(mpmath.tan, lambda y: abs(y) < mpmath.pi / 2, (math.pi / 2, -math.pi / 2)),
        D: Truth(lambda x: 1 / (1 + x * x)),
        A: Truth(lambda x: x * mpmath.atan(x) - log1p(x * x) / 2, interesting=(0.5, 1.0)),
    },
    Activation.TANHSHRINK: {
        F: Truth(lambda x: x - mpmath.tanh(x), interesting=(1.0,)),
        D: Truth(lambda x: mpmath.tanh(x) ** 2),
        A: Truth(lambda x: x * x / 2 - _log_cosh(x), interesting=(0.9,)),
    },
    Activation.SOFTSHRINK: {
        F: Truth(lambda x, lambd: mpmath.sign(x) * max(abs(x) - lambd, 0), interesting=(0.5, -0.5)),
        I: Truth(
            lambda y, lambd: y + mpmath.sign(y) * lambd, lambda y, lambd: y != 0 or lambd == 0, (0.5, -0.5)
        ),
        D: Truth(lambda x, lambd: mpf(abs(x) > lambd), interesting=(0.5, -0.5)),
        A: Truth(lambda x, lambd: _half_square(max(abs(x) - lambd, 0)), interesting=(0.5, -0.5)),
    },
    Activation.HARDSHRINK: {
        F: Truth(lambda x, lambd: x if abs(x) > lambd else mpf(0), interesting=(0.5, -0.5)),
        I: Truth(lambda y, lambd: y, lambda y, lambd: abs(y) > lambd or lambd == 0, (0.5, -0.5)),
        D: Truth(lambda x, lambd: mpf(abs(x) > lambd), interesting=(0.5, -0.5)),
        A: Truth(lambda x, lambd: max(x * x - lambd * lambd, 0) / 2, interesting=(0.5, -0.5)),
    },
    Activation.EXP: {
        F: Truth(exp),
        I: Truth(lambda y: log(y), lambda y: y >= 0, (1.0,)),
        D: Truth(exp),
        A: Truth(expm1),
    },
    Activation.LOG: {
        F: Truth(lambda x: log(x), lambda x: x >= 0, (1.0,)),
        I: Truth(exp),
        D: Truth(lambda x: 1 / x, lambda x: x >= 0),
        A: Truth(lambda x: _xlogx(x) - x, lambda x: x >= 0, (math.e, 1.5, 4.5)),
    },
    Activation.ERF: {
        F: Truth(mpmath.erf),
        I: Truth(_erfinv, _between(-1, 1), (0.5, 1.0, -1.0)),
        D: Truth(lambda x: 2 / mpmath.sqrt(mpmath.pi) * exp(-x * x)),
        A: Truth(lambda x: x * mpmath.erf(x) + expm1(-x * x) / mpmath.sqrt(mpmath.pi), interesting=(1.0,)),
    },
    Activation.NORMAL_CDF: {
        F: Truth(_cdf, interesting=(-9.01, -38.0)),
        I: Truth(_probit, _unit, (0.25, 0.5, 0.75, 1.0, 1e-300)),
        D: Truth(_phi),
        A: Truth(lambda x: x * _cdf(x) + _phi(x) - _phi(mpf(0)), interesting=(1.0, -1.0)),
    },
}

GELU_TANH_TRUTHS = {
    F: Truth(lambda x: x * _sigmoid(_gelu_tanh_w(x)[0]), interesting=(-20.0, -21.4)),
    D: Truth(_gelu_tanh_slope, interesting=(-0.7526, -0.35, -1.15, -20.0, -21.4, 1e20)),
}


def truth_of(step: ActivationStep) -> Truth:
    """Returns mpmath's version of a step."""
    table = GELU_TANH_TRUTHS if step.approximate == "tanh" else TRUTHS[step.function]
    return table[step.operation]


def true_value(step: ActivationStep, x: float) -> mpf | None:
    """Returns the true value at a finite double, to far more than double precision; None where undefined."""
    truth = truth_of(step)
    parameters = {name: mpf(value) for name, value in resolved_parameters(step).items()}
    exponent = abs(math.frexp(x)[1]) if x else 0
    # enough bits for x^4 to survive next to 1, as far as a double can hold the result
    with mpmath.workprec(160 + min(4 * exponent, 2300)):
        argument = mpf(x)
        if not truth.defined(argument, **parameters):
            return None
        try:
            return mpf(truth.value(argument, **parameters))
        except ZeroDivisionError:
            return mpf("inf")


def ulps(actual: float, expected: mpf, dtype: torch.dtype) -> float:
    """Returns how many units in the last place of the true value a result is off; 0 within the smallest normal.

    A true value beyond the largest number counts as that type's infinity.
    """
    if abs(expected) > LARGEST[dtype] * (1 + mpf(2) ** -(SIGNIFICAND_BITS[dtype] + 1)):
        return 0.0 if actual == math.copysign(math.inf, expected) else math.inf
    if math.isnan(actual) or math.isinf(actual):
        return math.inf
    error = abs(mpf(actual) - expected)
    if error <= SMALLEST_NORMAL[dtype]:
        return 0.0
    exponent = mpmath.frexp(expected)[1] if expected else -2000
    return float(error / mpf(2) ** (exponent - SIGNIFICAND_BITS[dtype]))


def _neighbours(x: float, dtype: torch.dtype) -> list[float]:
    """The doubles or floats around a point, next to it and ever further away."""
    kind = np.float32 if dtype == torch.float32 else np.float64
    centre = kind(x)
    found = [float(centre)]
    for direction in (kind(-np.inf), kind(np.inf)):
        found.append(float(np.nextafter(centre, direction)))
        scale = max(abs(x), 1e-3)
        found += [float(kind(x + math.copysign(scale * 2.0**-k, float(direction)))) for k in range(2, 50, 3)]
    return found


def hard_inputs(step: ActivationStep, dtype: torch.dtype, count: int, seed: int) -> torch.Tensor:
    """Inputs of every size and sign, next to the step's difficult points, and random bit patterns."""
    source = random.Random(seed)
    wide = 126 if dtype == torch.float32 else 1022
    lead = [1.0, -1.0]
    values = [s * 2.0**e for s in lead for e in range(-wide - 20, wide + 1, max(1, wide // 40))]
    values += [0.0, -0.0, *(s * 2.0**-wide for s in lead), *(s * LARGEST[dtype] for s in lead)]
    for point in (*truth_of(step).interesting, 0.0, 1.0, -1.0):
        values += _neighbours(point, dtype)
    while len(values) < count:
        sign = source.choice(lead)
        values += [
            sign * 2.0 ** source.uniform(-12, 10),
            sign * 2.0 ** source.uniform(-60, 40),
            source.uniform(0, 1),
            1 - 2.0 ** source.uniform(-40, -1),
            source.uniform(-3, 3),
            sign * source.uniform(0, 40),
            source.uniform(-760, 720) if dtype == torch.float64 else source.uniform(-105, 90),
        ]
    patterns = torch.tensor([source.getrandbits(63) for _ in range(count // 16)])
    drawn = (
        patterns.view(torch.float64)
        if dtype == torch.float64
        else patterns.to(torch.int32).view(torch.float32)
    )
    inputs = torch.cat([torch.tensor(values[:count], dtype=torch.float64).to(dtype), drawn, -drawn])
    return inputs[torch.isfinite(inputs)]


@dataclass(frozen=True, slots=True)
class Oracle:
    """The helpers above, as one fixture."""

    true_value: Callable[[ActivationStep, float], mpf | None]
    ulps: Callable[[float, mpf, torch.dtype], float]
    hard_inputs: Callable[[ActivationStep, torch.dtype, int, int], torch.Tensor]


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    """mpmath's value of every operation, hard inputs, and distances in ulp."""
    return Oracle(true_value, ulps, hard_inputs)
