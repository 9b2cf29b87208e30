"""PyTorch's own functions agree where they are right, and its autograd's conventions hold at kinks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from epochd_server.domain.activations import CATALOG, Activation, ActivationStep, Operation
from epochd_server.engine.activations import transform
from epochd_server.engine.activations.kernels import ALONG_AXIS, ELEMENTWISE

FUNCTIONS: dict[Activation, Callable[..., Tensor]] = {
    Activation.SIGMOID: torch.sigmoid,
    Activation.LOGIT: torch.logit,
    Activation.LOG_ODDS: torch.logit,
    Activation.SOFTPLUS: F.softplus,
    Activation.LOG_SIGMOID: F.logsigmoid,
    Activation.TANH: torch.tanh,
    Activation.RELU: F.relu,
    Activation.LEAKY_RELU: F.leaky_relu,
    Activation.ELU: F.elu,
    Activation.SELU: F.selu,
    Activation.CELU: F.celu,
    Activation.GELU: F.gelu,
    Activation.SILU: F.silu,
    Activation.MISH: F.mish,
    Activation.RELU6: F.relu6,
    Activation.HARDTANH: F.hardtanh,
    Activation.HARDSIGMOID: F.hardsigmoid,
    Activation.HARDSWISH: F.hardswish,
    Activation.SOFTSIGN: F.softsign,
    Activation.ARCTAN: torch.atan,
    Activation.TANHSHRINK: F.tanhshrink,
    Activation.SOFTSHRINK: F.softshrink,
    Activation.HARDSHRINK: F.hardshrink,
    Activation.EXP: torch.exp,
    Activation.LOG: torch.log,
    Activation.ERF: torch.erf,
    Activation.NORMAL_CDF: torch.special.ndtr,
}

PARAMETERS: dict[Activation, dict[str, float]] = {
    Activation.SOFTPLUS: {"beta": 2.5},
    Activation.LEAKY_RELU: {"negative_slope": -0.4},
    Activation.ELU: {"alpha": 1.7},
    Activation.CELU: {"alpha": 0.6},
    Activation.HARDTANH: {"min_val": 0.3, "max_val": 0.8},
    Activation.SOFTSHRINK: {"lambd": 0.25},
    Activation.HARDSHRINK: {"lambd": 0.75},
}

KINKS = {
    Activation.RELU: [0.0],
    Activation.LEAKY_RELU: [0.0],
    Activation.ELU: [0.0],
    Activation.SELU: [0.0],
    Activation.CELU: [0.0],
    Activation.RELU6: [0.0, 6.0],
    Activation.HARDTANH: [-1.0, 1.0],
    Activation.HARDSIGMOID: [-3.0, 3.0],
    Activation.HARDSWISH: [-3.0, 3.0],
    Activation.SOFTSIGN: [0.0],
    Activation.SOFTSHRINK: [-0.5, 0.5],
    Activation.HARDSHRINK: [-0.5, 0.5],
}


def autograd(function: Callable[..., Tensor], x: Tensor, parameters: dict[str, float]) -> Tensor:
    x = x.clone().requires_grad_()
    function(x, **parameters).sum().backward()
    assert x.grad is not None
    return x.grad


def inputs_for(function: Activation) -> Tensor:
    if function in (Activation.LOGIT, Activation.LOG_ODDS):
        return torch.linspace(0.05, 0.95, 37, dtype=torch.float64)
    low = 0.1 if function is Activation.LOG else -5.0
    return torch.linspace(low, 5.1, 103, dtype=torch.float64)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.value)
def test_agrees_with_pytorch_where_pytorch_is_right(function: Activation) -> None:
    x = inputs_for(function)
    for parameters in ({}, PARAMETERS.get(function, {})):
        step = ActivationStep(function=function, parameters=parameters)
        slope = ActivationStep(function=function, operation=Operation.DERIVATIVE, parameters=parameters)
        torch.testing.assert_close(
            transform(x, [step]), FUNCTIONS[function](x, **parameters), rtol=1e-12, atol=1e-14
        )
        # PyTorch's hardsigmoid' has 1/6 and its celu' alpha as a float32 constant, in float64 too
        loose = 1e-6 if function in (Activation.HARDSIGMOID, Activation.CELU) else 1e-11
        torch.testing.assert_close(
            transform(x, [slope]), autograd(FUNCTIONS[function], x, parameters), rtol=loose, atol=1e-12
        )


def test_gelu_tanh_agrees_with_pytorch() -> None:
    x = inputs_for(Activation.GELU)
    step = ActivationStep(function=Activation.GELU, approximate="tanh")
    slope = ActivationStep(function=Activation.GELU, operation=Operation.DERIVATIVE, approximate="tanh")
    torch.testing.assert_close(transform(x, [step]), F.gelu(x, approximate="tanh"), rtol=1e-10, atol=1e-14)
    expected = autograd(lambda t: F.gelu(t, approximate="tanh"), x, {})
    torch.testing.assert_close(transform(x, [slope]), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("function", KINKS, ids=lambda f: f.value)
def test_the_derivative_at_a_kink_is_autograds(function: Activation) -> None:
    x = torch.tensor(KINKS[function], dtype=torch.float64)
    slope = ActivationStep(function=function, operation=Operation.DERIVATIVE)
    torch.testing.assert_close(transform(x, [slope]), autograd(FUNCTIONS[function], x, {}), rtol=1e-6, atol=0)


def test_there_is_a_kernel_for_exactly_what_the_catalog_offers() -> None:
    offered = {(function, operation) for function, spec in CATALOG.items() for operation in spec.operations}
    along_axis = {key for key in offered if CATALOG[key[0]].along_axis}
    assert set(ALONG_AXIS) == along_axis
    assert set(ELEMENTWISE) == offered - along_axis


def test_the_defaults_are_pytorchs() -> None:
    x = torch.linspace(-4, 4, 81, dtype=torch.float64)
    for function, spec in CATALOG.items():
        if spec.parameters and function in FUNCTIONS:
            defaults = {name: parameter.default for name, parameter in spec.parameters.items()}
            assert torch.equal(FUNCTIONS[function](x, **defaults), FUNCTIONS[function](x))
