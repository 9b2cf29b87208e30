"""Which function computes which operation; a test holds this table equal to the catalog."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor

from epochd_server.domain.activations import Activation, ActivationStep, Operation, resolved_parameters
from epochd_server.engine.activations import (
    elementary,
    exponential_units,
    gated,
    logistic,
    normal,
    rectifiers,
    softmax,
)

ElementwiseKernel = Callable[[Tensor, Mapping[str, float]], Tensor]
RowKernel = Callable[[Tensor], Tensor]
Key = tuple[Activation, Operation]

_KINDS = (Operation.FORWARD, Operation.INVERSE, Operation.DERIVATIVE, Operation.ANTIDERIVATIVE)


def _entries(function: Activation, *kernels: ElementwiseKernel | None) -> dict[Key, ElementwiseKernel]:
    """Keys kernels given in the order forward, inverse, derivative, antiderivative; None where there is none."""
    return {
        (function, kind): kernel for kind, kernel in zip(_KINDS, kernels, strict=True) if kernel is not None
    }


_LOGIT = (logistic.logit, logistic.sigmoid, logistic.logit_derivative, logistic.logit_antiderivative)

ELEMENTWISE: Mapping[Key, ElementwiseKernel] = MappingProxyType(
    _entries(
        Activation.SIGMOID,
        logistic.sigmoid,
        logistic.logit,
        logistic.sigmoid_derivative,
        logistic.sigmoid_antiderivative,
    )
    | _entries(Activation.LOGIT, *_LOGIT)
    | _entries(Activation.LOG_ODDS, *_LOGIT)
    | _entries(
        Activation.ODDS,
        logistic.odds,
        logistic.odds_inverse,
        logistic.odds_derivative,
        logistic.odds_antiderivative,
    )
    | _entries(
        Activation.SOFTPLUS,
        logistic.softplus,
        logistic.softplus_inverse,
        logistic.softplus_derivative,
        None,
    )
    | _entries(
        Activation.LOG_SIGMOID,
        logistic.log_sigmoid,
        logistic.log_sigmoid_inverse,
        logistic.log_sigmoid_derivative,
        None,
    )
    | _entries(
        Activation.CLOGLOG, logistic.cloglog, logistic.cloglog_inverse, logistic.cloglog_derivative, None
    )
    | _entries(
        Activation.TANH,
        elementary.tanh,
        elementary.tanh_inverse,
        elementary.tanh_derivative,
        elementary.tanh_antiderivative,
    )
    | _entries(
        Activation.RELU,
        rectifiers.relu,
        rectifiers.relu_inverse,
        rectifiers.relu_derivative,
        rectifiers.relu_antiderivative,
    )
    | _entries(
        Activation.LEAKY_RELU,
        rectifiers.leaky_relu,
        rectifiers.leaky_relu_inverse,
        rectifiers.leaky_relu_derivative,
        rectifiers.leaky_relu_antiderivative,
    )
    | _entries(
        Activation.RELU6,
        rectifiers.relu6,
        rectifiers.relu6_inverse,
        rectifiers.relu6_derivative,
        rectifiers.relu6_antiderivative,
    )
    | _entries(
        Activation.HARDTANH,
        rectifiers.hardtanh,
        rectifiers.hardtanh_inverse,
        rectifiers.hardtanh_derivative,
        rectifiers.hardtanh_antiderivative,
    )
    | _entries(
        Activation.HARDSIGMOID,
        rectifiers.hardsigmoid,
        rectifiers.hardsigmoid_inverse,
        rectifiers.hardsigmoid_derivative,
        rectifiers.hardsigmoid_antiderivative,
    )
    | _entries(
        Activation.HARDSWISH,
        rectifiers.hardswish,
        rectifiers.hardswish_inverse,
        rectifiers.hardswish_derivative,
        rectifiers.hardswish_antiderivative,
    )
    | _entries(
        Activation.SOFTSHRINK,
        rectifiers.softshrink,
        rectifiers.softshrink_inverse,
        rectifiers.shrink_derivative,
        rectifiers.softshrink_antiderivative,
    )
    | _entries(
        Activation.HARDSHRINK,
        rectifiers.hardshrink,
        rectifiers.hardshrink_inverse,
        rectifiers.shrink_derivative,
        rectifiers.hardshrink_antiderivative,
    )
    | _entries(
        Activation.ELU,
        exponential_units.elu,
        exponential_units.elu_inverse,
        exponential_units.elu_derivative,
        exponential_units.elu_antiderivative,
    )
    | _entries(
        Activation.SELU,
        exponential_units.selu,
        exponential_units.selu_inverse,
        exponential_units.selu_derivative,
        exponential_units.selu_antiderivative,
    )
    | _entries(
        Activation.CELU,
        exponential_units.celu,
        exponential_units.celu_inverse,
        exponential_units.celu_derivative,
        exponential_units.celu_antiderivative,
    )
    | _entries(Activation.GELU, normal.gelu, None, normal.gelu_derivative, normal.gelu_antiderivative)
    | _entries(Activation.SILU, gated.silu, None, gated.silu_derivative, None)
    | _entries(Activation.MISH, gated.mish, None, gated.mish_derivative, None)
    | _entries(
        Activation.SOFTSIGN,
        elementary.softsign,
        elementary.softsign_inverse,
        elementary.softsign_derivative,
        elementary.softsign_antiderivative,
    )
    | _entries(
        Activation.ARCTAN,
        elementary.arctan,
        elementary.arctan_inverse,
        elementary.arctan_derivative,
        elementary.arctan_antiderivative,
    )
    | _entries(
        Activation.TANHSHRINK,
        elementary.tanhshrink,
        None,
        elementary.tanhshrink_derivative,
        elementary.tanhshrink_antiderivative,
    )
    | _entries(Activation.EXP, elementary.exp, elementary.log, elementary.exp, elementary.exp_antiderivative)
    | _entries(
        Activation.LOG,
        elementary.log,
        elementary.exp,
        elementary.log_derivative,
        elementary.log_antiderivative,
    )
    | _entries(
        Activation.ERF, normal.erf, normal.erf_inverse, normal.erf_derivative, normal.erf_antiderivative
    )
    | _entries(
        Activation.NORMAL_CDF,
        normal.normal_cdf,
        normal.normal_cdf_inverse,
        normal.normal_cdf_derivative,
        normal.normal_cdf_antiderivative,
    )
)

ALONG_AXIS: Mapping[Key, RowKernel] = MappingProxyType(
    {
        (Activation.SOFTMAX, Operation.FORWARD): softmax.softmax,
        (Activation.SOFTMAX, Operation.DERIVATIVE): softmax.softmax_jacobian,
        (Activation.SOFTMAX, Operation.ANTIDERIVATIVE): softmax.logsumexp,
        (Activation.LOG_SOFTMAX, Operation.FORWARD): softmax.log_softmax,
        (Activation.LOG_SOFTMAX, Operation.DERIVATIVE): softmax.log_softmax_jacobian,
        (Activation.LOGSUMEXP, Operation.FORWARD): softmax.logsumexp,
        (Activation.LOGSUMEXP, Operation.DERIVATIVE): softmax.softmax,
    }
)

_GELU_TANH: Mapping[Operation, ElementwiseKernel] = MappingProxyType(
    {Operation.FORWARD: gated.gelu_tanh, Operation.DERIVATIVE: gated.gelu_tanh_derivative}
)


def elementwise_kernel(step: ActivationStep) -> Callable[[Tensor], Tensor]:
    """Returns the function of one tensor that a valid elementwise step asks for."""
    tanh = step.approximate == "tanh"
    kernel = _GELU_TANH[step.operation] if tanh else ELEMENTWISE[step.function, step.operation]
    parameters = resolved_parameters(step)
    return lambda x: kernel(x, parameters)
