"""exp, log, tanh and their kin as branch-free float64 arithmetic that the compiler can vectorise.

Calls into a C library would keep the loops around them scalar, and could differ between a vector and a scalar
form. These are plain sequences of IEEE operations: the same bits in any lane. Each is within 4 ulp of the true
value; float32 members compute in float64 and round once, but for exp in the losses, where ``exp32`` takes half the
time. NaN goes through; exp overflows to inf and underflows to 0 as IEEE would.
"""

from __future__ import annotations

import numpy as np

from epochd_server.engine.compiling import kernel

_LOG2_E = 1.4426950408889634
_LN2_HIGH = 6.93147180369123816490e-01  # the leading 32 bits, so that k · _LN2_HIGH is exact
_LN2_LOW = 1.90821492927058770002e-10
_ROUNDER = 6755399441055744.0  # 1.5 · 2⁵²: adding it leaves the nearest integer in the low bits
_ROUNDER_BITS = np.float64(_ROUNDER).view(np.int64)
_SQRT_HALF_BITS = np.float64(np.sqrt(0.5)).view(np.int64)
_MANTISSA = np.int64(0xFFFFFFFFFFFFF)
_SHIFT = np.int64(52)
_BIAS = np.int64(1023)
_ONE = np.int64(1)


@kernel
def _exp_parts(x: float) -> tuple[float, float, float]:
    """e^x − 1 = scale₁ · scale₂ · (tail + 1) − 1, with |tail| < 0.42; x is clipped to where e^x is 0 or inf."""
    x = 710.0 if x > 710.0 else x
    x = -746.0 if x < -746.0 else x
    shifted = x * _LOG2_E + _ROUNDER
    k = shifted - _ROUNDER
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    # Taylor to r¹³/13!: the next term is below 2⁻⁵⁷ for |r| ≤ ln 2 / 2.
    tail = 1.0 / 6227020800.0
    tail = tail * r + 1.0 / 479001600.0
    tail = tail * r + 1.0 / 39916800.0
    tail = tail * r + 1.0 / 3628800.0
    tail = tail * r + 1.0 / 362880.0
    tail = tail * r + 1.0 / 40320.0
    tail = tail * r + 1.0 / 5040.0
    tail = tail * r + 1.0 / 720.0
    tail = tail * r + 1.0 / 120.0
    tail = tail * r + 1.0 / 24.0
    tail = tail * r + 1.0 / 6.0
    tail = tail * r + 0.5
    tail = tail * r * r + r
    exponent = np.float64(shifted).view(np.int64) - _ROUNDER_BITS
    half = exponent >> _ONE  # 2^k in two factors, because 2^1024 and 2^−1074 are no normal numbers
    first = np.int64((half + _BIAS) << _SHIFT).view(np.float64)
    second = np.int64((exponent - half + _BIAS) << _SHIFT).view(np.float64)
    return tail, first, second


@kernel
def exp(x: float) -> float:
    """e^x."""
    tail, first, second = _exp_parts(x)
    return (1.0 + tail) * first * second


_F = np.float32
_LOG2_E_32, _ROUNDER_32 = _F(_LOG2_E), _F(12582912.0)  # 1.5 · 2²³
_LN2_HIGH_32, _LN2_LOW_32 = _F(0.693359375), _F(-2.12194440e-4)
_ROUNDER_BITS_32 = _ROUNDER_32.view(np.int32)
_TOP_32, _BOTTOM_32, _UNIT_32 = _F(89.0), _F(-104.0), _F(1.0)
_C7, _C6, _C5, _C4, _C3, _C2 = _F(1 / 5040), _F(1 / 720), _F(1 / 120), _F(1 / 24), _F(1 / 6), _F(0.5)
_BIAS_32, _SHIFT_32, _ONE_32 = np.int32(127), np.int32(23), np.int32(1)


@kernel
def exp32(x: np.float32) -> np.float32:
    """e^x in float32 throughout, as :func:`exp` goes; Taylor to r⁷/7!, so that the next term is below 2⁻²⁷."""
    x = _TOP_32 if x > _TOP_32 else x
    x = _BOTTOM_32 if x < _BOTTOM_32 else x
    shifted = x * _LOG2_E_32 + _ROUNDER_32
    k = shifted - _ROUNDER_32
    r = (x - k * _LN2_HIGH_32) - k * _LN2_LOW_32
    tail = _C7 * r + _C6
    tail = tail * r + _C5
    tail = tail * r + _C4
    tail = tail * r + _C3
    tail = tail * r + _C2
    tail = tail * r * r + r
    exponent = np.int32(np.float32(shifted).view(np.int32) - _ROUNDER_BITS_32)
    half = np.int32(exponent >> _ONE_32)
    first = np.int32(np.int32(half + _BIAS_32) << _SHIFT_32).view(np.float32)
    second = np.int32(np.int32(np.int32(exponent - half) + _BIAS_32) << _SHIFT_32).view(np.float32)
    return (_UNIT_32 + tail) * first * second


@kernel
def expm1(x: float) -> float:
    """e^x − 1 for x ≤ 0, without cancellation near 0."""
    tail, first, second = _exp_parts(x)
    scale = first * second
    return scale * tail + (scale - 1.0)


@kernel
def log(x: float) -> float:
    """Ln x for normal x > 0."""
    bits = np.float64(x).view(np.int64)
    exponent = (bits - _SQRT_HALF_BITS) >> _SHIFT
    mantissa = np.int64(bits - (exponent << _SHIFT)).view(np.float64)  # in [√½, √2)
    # Small integers to float64 through the rounder: a plain conversion has no vector form before AVX-512.
    k = np.int64(exponent + _ROUNDER_BITS).view(np.float64) - _ROUNDER
    f = mantissa - 1.0
    s = f / (2.0 + f)
    z = s * s
    # 2 artanh(s) = 2 s + s · (2/3 z + 2/5 z² + …), z ≤ 0.0295.
    series = 2.0 / 21.0
    series = series * z + 2.0 / 19.0
    series = series * z + 2.0 / 17.0
    series = series * z + 2.0 / 15.0
    series = series * z + 2.0 / 13.0
    series = series * z + 2.0 / 11.0
    series = series * z + 2.0 / 9.0
    series = series * z + 2.0 / 7.0
    series = series * z + 2.0 / 5.0
    series = series * z + 2.0 / 3.0
    half_square = 0.5 * f * f
    # ln(1 + f) = f − (f²/2 − s (f²/2 + R)), as in fdlibm: the leading term f is exact.
    low = s * (half_square + series * z) + k * _LN2_LOW
    return k * _LN2_HIGH - ((half_square - low) - f)


@kernel
def log_of(x: float) -> float:
    """The logarithm of any number: −inf at 0, NaN below it."""
    positive = log(x) if x < np.inf else x
    return positive if x > 0.0 else (-np.inf if x == 0.0 else np.nan)


@kernel
def log1p(u: float) -> float:
    """ln(1 + u) for u in [0, 1]."""
    total = 1.0 + u
    return log(total) + (u - (total - 1.0)) / total


@kernel
def sigmoid(x: float) -> float:
    """1 / (1 + e^−x)."""
    return 1.0 / (1.0 + exp(-x))


@kernel
def tanh(x: float) -> float:
    """The hyperbolic tangent."""
    e = expm1(-2.0 * abs(x))
    magnitude = -e / (2.0 + e)
    return -magnitude if x < 0.0 else magnitude


@kernel
def softplus(x: float) -> float:
    """ln(1 + e^x)."""
    return (x if x > 0.0 else 0.0) + log1p(exp(-abs(x)))
