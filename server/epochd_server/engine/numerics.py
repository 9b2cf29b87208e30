"""exp, log, tanh and their kin as branch-free float64 arithmetic that the compiler can vectorise.

Calls into a C library would keep the loops around them scalar, and could differ between a vector and a scalar
form. These are plain sequences of IEEE operations: the same bits in any lane. Each is within 2 ulp of the true
value; float32 members compute in float64 and round once. NaN goes through; exp overflows to inf and underflows
to 0 as IEEE would.
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
