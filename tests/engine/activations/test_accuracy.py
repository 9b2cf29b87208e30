"""Every elementwise operation is within 4 ulp of the true value, or within the smallest normal number."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf

from epochd_server.domain.activations import CATALOG, Activation, ActivationStep, Operation
from epochd_server.engine.activations import transform

SAMPLES = 500
BOUND = 4.0

VARIANTS: dict[Activation, list[dict[str, float]]] = {
    Activation.SOFTPLUS: [{}, {"beta": 0.3}, {"beta": 7.1}],
    Activation.LEAKY_RELU: [{}, {"negative_slope": 0.3}],
    Activation.ELU: [{}, {"alpha": 0.7}],
    Activation.CELU: [{}, {"alpha": 0.7}, {"alpha": 2.3}],
    Activation.HARDTANH: [{}, {"min_val": 0.5, "max_val": 2.0}, {"min_val": -3.0, "max_val": -0.25}],
    Activation.SOFTSHRINK: [{}, {"lambd": 0.0}],
    Activation.HARDSHRINK: [{}, {"lambd": 0.0}],
}

STEPS = [
    ActivationStep(function=function, operation=operation, parameters=parameters)
    for function, spec in CATALOG.items()
    if not spec.along_axis
    for operation in spec.operations
    for parameters in VARIANTS.get(function, [{}])
] + [
    ActivationStep(function=Activation.GELU, operation=operation, approximate="tanh")
    for operation in (Operation.FORWARD, Operation.DERIVATIVE)
]


def label(step: ActivationStep) -> str:
    extras = [*(f"{name}={value}" for name, value in step.parameters.items())]
    extras += [step.approximate] * (step.approximate != "none")
    return "-".join([step.function.value, step.operation.value, *extras])


def distance(oracle: Any, step: ActivationStep, x: float, actual: float, dtype: torch.dtype) -> float:
    """Ulps from the truth; NaN must be where the operation is undefined and nowhere else."""
    expected = oracle.true_value(step, x)
    if expected is None:
        return 0.0 if math.isnan(actual) else math.inf
    if mpmath.isinf(expected):
        return 0.0 if math.isinf(actual) else math.inf
    return oracle.ulps(actual, expected, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("step", STEPS, ids=label)
def test_within_four_ulp_on_hard_inputs(oracle: Any, step: ActivationStep, dtype: torch.dtype) -> None:
    samples = SAMPLES if dtype == torch.float64 else SAMPLES // 2
    inputs = oracle.hard_inputs(step, dtype, samples, seed=20)
    results = transform(inputs, [step])
    assert results.dtype == dtype
    worst = max(
        (distance(oracle, step, x, y, dtype), x, y)
        for x, y in zip(inputs.tolist(), results.tolist(), strict=True)
    )
    assert worst[0] <= BOUND, (
        f"{worst[0]} ulp at {worst[1]!r}: {worst[2]!r}, true {oracle.true_value(step, worst[1])}"
    )


@settings(max_examples=100, deadline=None)
@given(
    step=st.sampled_from(STEPS), values=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=8)
)
def test_within_four_ulp_on_any_doubles(oracle: Any, step: ActivationStep, values: list[float]) -> None:
    results = transform(torch.tensor(values, dtype=torch.float64), [step]).tolist()
    for x, y in zip(values, results, strict=True):
        assert distance(oracle, step, x, y, torch.float64) <= BOUND


@pytest.mark.parametrize("step", STEPS, ids=label)
def test_infinity_is_the_limit_and_nan_stays(oracle: Any, step: ActivationStep) -> None:
    at_limits = transform(torch.tensor([math.inf, -math.inf, math.nan], dtype=torch.float64), [step]).tolist()
    assert math.isnan(at_limits[2])
    for sign, actual in zip((1, -1), at_limits, strict=False):
        limit = oracle.true_value(step, sign * 1e300)
        if limit is None:
            assert math.isnan(actual)
        elif abs(limit) > 100:  # log(1e300) = 690: it grows without bound
            assert actual == math.copysign(math.inf, limit)
        else:
            assert actual == pytest.approx(float(limit), abs=1e-100)


@pytest.mark.parametrize("step", [s for s in STEPS if s.operation is Operation.DERIVATIVE], ids=label)
def test_derivative_is_the_slope_of_the_true_function(oracle: Any, step: ActivationStep) -> None:
    """mpmath differentiates the forward function itself, so that the oracle's formula is checked too."""
    forward = ActivationStep(function=step.function, parameters=step.parameters, approximate=step.approximate)
    points = [0.15, 0.35, 0.62, 0.93, -0.2, -0.77, -1.9, 2.2, 7.0]
    slopes = transform(torch.tensor(points, dtype=torch.float64), [step]).tolist()
    for x, slope in zip(points, slopes, strict=True):
        if oracle.true_value(forward, x) is not None:
            assert slope == pytest.approx(float(central_difference(oracle, forward, x)), rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("step", [s for s in STEPS if s.operation is Operation.ANTIDERIVATIVE], ids=label)
def test_antiderivative_has_the_function_as_slope_and_is_0_at_0(oracle: Any, step: ActivationStep) -> None:
    forward = ActivationStep(function=step.function, parameters=step.parameters)
    points = [0.15, 0.35, 0.62, 0.93, -0.2, -0.77, -1.9, 2.2, 7.0]
    values = transform(torch.tensor(points, dtype=torch.float64), [forward]).tolist()
    for x, value in zip(points, values, strict=True):
        if oracle.true_value(forward, x) is not None:
            assert value == pytest.approx(float(central_difference(oracle, step, x)), rel=1e-12, abs=1e-14)
    at_0 = transform(torch.zeros(1, dtype=torch.float64), [step]).item()
    assert at_0 == (math.log(2) if step.function is Activation.SIGMOID else 0.0)


def central_difference(oracle: Any, step: ActivationStep, x: float) -> mpf:
    # steps are doubles, so that the oracle sees the very points; three of them remove the h^2 and h^4 terms
    def difference(h: float) -> mpf:
        return (oracle.true_value(step, x + h) - oracle.true_value(step, x - h)) / (mpf(x + h) - mpf(x - h))

    h = 2.0**-12
    d1, d2, d3 = difference(4 * h), difference(2 * h), difference(h)
    return (64 * d3 - 20 * d2 + d1) / 45


@pytest.mark.parametrize("step", [s for s in STEPS if s.operation is Operation.INVERSE], ids=label)
def test_inverse_undoes_forward(step: ActivationStep) -> None:
    forward = ActivationStep(function=step.function, parameters=step.parameters)
    x = torch.tensor([-0.9, -0.6, 0.2, 0.3, 0.55, 0.7, 1.2, 1.5], dtype=torch.float64)
    y = transform(x, [forward])
    back = transform(y, [step])
    unique = ~torch.isnan(back)
    assert unique.any()
    torch.testing.assert_close(back[unique], x[unique], rtol=1e-13, atol=1e-15)
