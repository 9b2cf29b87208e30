"""Which activations exist, what each can be asked for, and with which parameters.

The catalog is the one source for validation, for the engine's dispatch and for the tables in
``docs/activations.md``; tests hold all three against it. ``F`` is always the antiderivative with
``F(0) = 0``, except for the two potentials the literature names: softplus for sigmoid, logsumexp for softmax.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


class Activation(enum.Enum):
    """The functions of ActivationTransform; values are the names used on the wire and in PyTorch."""

    SIGMOID = "sigmoid"
    LOGIT = "logit"
    ODDS = "odds"
    LOG_ODDS = "log_odds"
    SOFTMAX = "softmax"
    LOG_SOFTMAX = "log_softmax"
    LOGSUMEXP = "logsumexp"
    SOFTPLUS = "softplus"
    LOG_SIGMOID = "log_sigmoid"
    TANH = "tanh"
    RELU = "relu"
    LEAKY_RELU = "leaky_relu"
    ELU = "elu"
    SELU = "selu"
    CELU = "celu"
    GELU = "gelu"
    SILU = "silu"
    MISH = "mish"
    RELU6 = "relu6"
    HARDTANH = "hardtanh"
    HARDSIGMOID = "hardsigmoid"
    HARDSWISH = "hardswish"
    SOFTSIGN = "softsign"
    ARCTAN = "arctan"
    TANHSHRINK = "tanhshrink"
    SOFTSHRINK = "softshrink"
    HARDSHRINK = "hardshrink"
    EXP = "exp"
    LOG = "log"
    ERF = "erf"
    NORMAL_CDF = "normal_cdf"
    CLOGLOG = "cloglog"


class Operation(enum.Enum):
    """What is asked of an activation."""

    FORWARD = "forward"
    INVERSE = "inverse"
    DERIVATIVE = "derivative"
    ANTIDERIVATIVE = "antiderivative"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterSpec:
    """One parameter of an activation, under PyTorch's name.

    Attributes:
        default: PyTorch's default.
        minimum: Smallest allowed value; -inf where there is none. Every parameter must be finite.
        exclusive: True where ``minimum`` itself is not allowed.
        inverse_minimum: Where set, the inverse operation needs a value strictly above it.
    """

    default: float
    minimum: float = -math.inf
    exclusive: bool = False
    inverse_minimum: float | None = None

    @property
    def bounds(self) -> str:
        """The allowed values in words, such as ``finite and > 0``."""
        if self.minimum == -math.inf:
            return "finite"
        return f"finite and {'>' if self.exclusive else '>='} {self.minimum:g}"

    def allows(self, value: float) -> bool:
        """True when ``value`` is finite and within the bounds."""
        above = value > self.minimum if self.exclusive else value >= self.minimum
        return math.isfinite(value) and above


@dataclass(frozen=True, slots=True)
class OperationSpec:
    """One operation in closed form: its formula, and where it is defined (NaN elsewhere)."""

    formula: str
    domain: str = "all x"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationSpec:
    """What one activation offers.

    Attributes:
        operations: The operations that exist in closed form.
        parameters: Parameters by PyTorch's name.
        approximations: Allowed values of ``approximate``; only gelu has more than ``none``.
        along_axis: True for the softmax family, which works on slices along ``axis``.
    """

    operations: Mapping[Operation, OperationSpec]
    parameters: Mapping[str, ParameterSpec] = field(default_factory=dict)
    approximations: tuple[str, ...] = ("none",)
    along_axis: bool = False


def _spec(
    forward: str,
    domain: str = "all x",
    *,
    inverse: tuple[str, str] | None = None,
    derivative: str,
    antiderivative: str | None = None,
    parameters: Mapping[str, ParameterSpec] | None = None,
    approximations: tuple[str, ...] = ("none",),
    along_axis: bool = False,
) -> ActivationSpec:
    """Builds a spec; the derivative and antiderivative are defined where the function is."""
    operations = {Operation.FORWARD: OperationSpec(forward, domain)}
    if inverse is not None:
        operations[Operation.INVERSE] = OperationSpec(*inverse)
    operations[Operation.DERIVATIVE] = OperationSpec(derivative, domain)
    if antiderivative is not None:
        operations[Operation.ANTIDERIVATIVE] = OperationSpec(antiderivative, domain)
    return ActivationSpec(
        operations=MappingProxyType(operations),
        parameters=MappingProxyType(dict(parameters or {})),
        approximations=approximations,
        along_axis=along_axis,
    )


_PROBABILITY = "0 <= x <= 1"
_LOGIT = _spec(
    "log(x / (1 - x))",
    _PROBABILITY,
    inverse=("sigmoid(x)", "all x"),
    derivative="1 / (x (1 - x))",
    antiderivative="x log(x) + (1 - x) log(1 - x)",
)
_POSITIVE_ALPHA = MappingProxyType({"alpha": ParameterSpec(default=1.0, minimum=0.0, exclusive=True)})
_SHRINK = MappingProxyType({"lambd": ParameterSpec(default=0.5, minimum=0.0)})

_LOGISTIC = {
    Activation.SIGMOID: _spec(
        "1 / (1 + exp(-x))",
        inverse=("log(x / (1 - x)), the logit", _PROBABILITY),
        derivative="sigmoid(x) sigmoid(-x)",
        antiderivative="log(1 + exp(x)), the softplus; log 2 at 0",
    ),
    Activation.LOGIT: _LOGIT,
    Activation.ODDS: _spec(
        "x / (1 - x)",
        _PROBABILITY,
        inverse=("x / (1 + x)", "x >= 0"),
        derivative="1 / (1 - x)^2",
        antiderivative="-x - log(1 - x)",
    ),
    Activation.LOG_ODDS: _LOGIT,
    Activation.SOFTPLUS: _spec(
        "log(1 + exp(beta x)) / beta",
        inverse=("log(exp(beta x) - 1) / beta", "x >= 0"),
        derivative="sigmoid(beta x)",
        parameters={"beta": ParameterSpec(default=1.0, minimum=0.0, exclusive=True)},
    ),
    Activation.LOG_SIGMOID: _spec(
        "-log(1 + exp(-x))",
        inverse=("-log(exp(-x) - 1)", "x <= 0"),
        derivative="sigmoid(-x)",
    ),
    Activation.CLOGLOG: _spec(
        "log(-log(1 - x))",
        _PROBABILITY,
        inverse=("1 - exp(-exp(x))", "all x"),
        derivative="-1 / ((1 - x) log(1 - x))",
    ),
}

_SOFTMAX_FAMILY = {
    Activation.SOFTMAX: _spec(
        "exp(x_i) / sum_j exp(x_j)",
        "at most one +inf and not all -inf in a slice",
        derivative="Jacobian s_i (delta_ij - s_j); i on the axis, j on a new last dimension",
        antiderivative="log(sum_j exp(x_j)), the logsumexp; the axis is dropped",
        along_axis=True,
    ),
    Activation.LOG_SOFTMAX: _spec(
        "x_i - log(sum_j exp(x_j))",
        "at most one +inf and not all -inf in a slice",
        derivative="Jacobian delta_ij - s_j; i on the axis, j on a new last dimension",
        along_axis=True,
    ),
    Activation.LOGSUMEXP: _spec(
        "log(sum_j exp(x_j)); the axis is dropped",
        "all x; its gradient as softmax",
        derivative="softmax(x), the gradient",
        along_axis=True,
    ),
}

_RECTIFIERS = {
    Activation.RELU: _spec(
        "max(x, 0)",
        inverse=("x", "x > 0, where only one value is mapped there"),
        derivative="1 if x > 0 else 0",
        antiderivative="x^2 / 2 if x > 0 else 0",
    ),
    Activation.LEAKY_RELU: _spec(
        "x if x > 0 else negative_slope x",
        inverse=("x if x > 0 else x / negative_slope", "all x; needs negative_slope > 0"),
        derivative="1 if x > 0 else negative_slope",
        antiderivative="x^2 / 2 if x > 0 else negative_slope x^2 / 2",
        parameters={"negative_slope": ParameterSpec(default=0.01, inverse_minimum=0.0)},
    ),
    Activation.RELU6: _spec(
        "min(max(x, 0), 6)",
        inverse=("x", "0 < x < 6"),
        derivative="1 if 0 < x < 6 else 0",
        antiderivative="0 if x < 0, x^2 / 2 if x < 6, else 6 (x - 3)",
    ),
    Activation.HARDTANH: _spec(
        "min(max(x, min_val), max_val)",
        inverse=("x", "min_val < x < max_val"),
        derivative="1 if min_val < x < max_val else 0",
        antiderivative="the integral from 0 of the three straight pieces",
        parameters={"min_val": ParameterSpec(default=-1.0), "max_val": ParameterSpec(default=1.0)},
    ),
    Activation.HARDSIGMOID: _spec(
        "min(max(x + 3, 0), 6) / 6",
        inverse=("3 (2 x - 1)", "0 < x < 1"),
        derivative="1/6 if -3 < x < 3 else 0",
        antiderivative="-3/4 if x < -3, x (x + 6) / 12 if x < 3, else x - 3/4",
    ),
    Activation.HARDSWISH: _spec(
        "x min(max(x + 3, 0), 6) / 6",
        inverse=(
            "12 x / (3 + sqrt(9 + 24 x)) if x < 3 else x",
            "x > 0, where only one value is mapped there",
        ),
        derivative="0 if x <= -3, (2 x + 3) / 6 if x < 3, else 1",
        antiderivative="3/4 if x < -3, x^2 (2 x + 9) / 36 if x < 3, else x^2 / 2 - 3/4",
    ),
    Activation.SOFTSHRINK: _spec(
        "sign(x) max(|x| - lambd, 0)",
        inverse=("x + sign(x) lambd", "x != 0, or any x when lambd = 0"),
        derivative="1 if |x| > lambd else 0",
        antiderivative="max(|x| - lambd, 0)^2 / 2",
        parameters=_SHRINK,
    ),
    Activation.HARDSHRINK: _spec(
        "x if |x| > lambd else 0",
        inverse=("x", "|x| > lambd, or any x when lambd = 0"),
        derivative="1 if |x| > lambd else 0",
        antiderivative="(x^2 - lambd^2) / 2 if |x| > lambd else 0",
        parameters=_SHRINK,
    ),
}

_EXPONENTIAL_UNITS = {
    Activation.ELU: _spec(
        "x if x > 0 else alpha (exp(x) - 1)",
        inverse=("x if x > 0 else log(1 + x / alpha)", "x >= -alpha; needs alpha > 0"),
        derivative="1 if x > 0 else alpha exp(x)",
        antiderivative="x^2 / 2 if x > 0 else alpha (exp(x) - 1 - x)",
        parameters={"alpha": ParameterSpec(default=1.0, minimum=0.0, inverse_minimum=0.0)},
    ),
    Activation.SELU: _spec(
        "s x if x > 0 else s a (exp(x) - 1)",
        inverse=("x / s if x > 0 else log(1 + x / (s a))", "x >= -s a"),
        derivative="s if x > 0 else s a exp(x)",
        antiderivative="s x^2 / 2 if x > 0 else s a (exp(x) - 1 - x)",
    ),
    Activation.CELU: _spec(
        "x if x > 0 else alpha (exp(x / alpha) - 1)",
        inverse=("x if x > 0 else alpha log(1 + x / alpha)", "x >= -alpha"),
        derivative="1 if x > 0 else exp(x / alpha)",
        antiderivative="x^2 / 2 if x > 0 else alpha^2 (exp(x / alpha) - 1 - x / alpha)",
        parameters=_POSITIVE_ALPHA,
    ),
}

_GATED = {
    Activation.GELU: _spec(
        "x Phi(x); tanh: x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2",
        derivative="Phi(x) + x phi(x); tanh: the derivative of that formula",
        antiderivative="((x^2 - 1) Phi(x) + x phi(x)) / 2 + 1/4; tanh: none",
        approximations=("none", "tanh"),
    ),
    Activation.SILU: _spec(
        "x sigmoid(x)",
        derivative="sigmoid(x) (1 + x sigmoid(-x))",
    ),
    Activation.MISH: _spec(
        "x tanh(softplus(x))",
        derivative="tanh(softplus(x)) + x sigmoid(x) sech(softplus(x))^2",
    ),
}

_ELEMENTARY = {
    Activation.TANH: _spec(
        "tanh(x)",
        inverse=("artanh(x)", "-1 <= x <= 1"),
        derivative="1 / cosh(x)^2",
        antiderivative="log(cosh(x))",
    ),
    Activation.SOFTSIGN: _spec(
        "x / (1 + |x|)",
        inverse=("x / (1 - |x|)", "-1 <= x <= 1"),
        derivative="1 / (1 + |x|)^2",
        antiderivative="|x| - log(1 + |x|)",
    ),
    Activation.ARCTAN: _spec(
        "arctan(x)",
        inverse=("tan(x)", "-pi/2 < x < pi/2"),
        derivative="1 / (1 + x^2)",
        antiderivative="x arctan(x) - log(1 + x^2) / 2",
    ),
    Activation.TANHSHRINK: _spec(
        "x - tanh(x)",
        derivative="tanh(x)^2",
        antiderivative="x^2 / 2 - log(cosh(x))",
    ),
    Activation.EXP: _spec(
        "exp(x)",
        inverse=("log(x)", "x >= 0"),
        derivative="exp(x)",
        antiderivative="exp(x) - 1",
    ),
    Activation.LOG: _spec(
        "log(x)",
        "x >= 0",
        inverse=("exp(x)", "all x"),
        derivative="1 / x",
        antiderivative="x (log(x) - 1)",
    ),
    Activation.ERF: _spec(
        "erf(x)",
        inverse=("erfinv(x)", "-1 <= x <= 1"),
        derivative="2 exp(-x^2) / sqrt(pi)",
        antiderivative="x erf(x) + (exp(-x^2) - 1) / sqrt(pi)",
    ),
    Activation.NORMAL_CDF: _spec(
        "Phi(x) = erfc(-x / sqrt(2)) / 2",
        inverse=("sqrt(2) erfinv(2 x - 1), the probit", _PROBABILITY),
        derivative="phi(x) = exp(-x^2 / 2) / sqrt(2 pi)",
        antiderivative="x Phi(x) + phi(x) - phi(0)",
    ),
}

CATALOG: Mapping[Activation, ActivationSpec] = MappingProxyType(
    {
        **_LOGISTIC,
        **_SOFTMAX_FAMILY,
        **_RECTIFIERS,
        **_EXPONENTIAL_UNITS,
        **_GATED,
        **_ELEMENTARY,
    }
)
