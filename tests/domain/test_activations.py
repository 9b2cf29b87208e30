"""Every violation of a chain is found at once, under its field path."""

from __future__ import annotations

import math

import pytest

from epochd_server.domain.activations import (
    CATALOG,
    DTYPES,
    Activation,
    ActivationStep,
    Operation,
    is_elementwise,
    output_shape,
    resolved_parameters,
    validate_steps,
)
from epochd_server.domain.errors import Violations


def found(*steps: ActivationStep, dtype: str = "float32", ndim: int = 2) -> dict[str, str]:
    violations = Violations()
    validate_steps(steps, dtype, ndim, violations)
    return {violation.field: violation.description for violation in violations.found}


def step(
    function: str, operation: str = "forward", approximate: str = "none", axis: int = -1, **parameters: float
):  # type: ignore[no-untyped-def]
    return ActivationStep(
        function=Activation(function),
        operation=Operation(operation),
        approximate=approximate,
        axis=axis,
        parameters=parameters,
    )


def test_every_offered_operation_of_every_activation_is_valid_alone() -> None:
    for function, spec in CATALOG.items():
        for operation in spec.operations:
            assert found(step(function.value, operation.value)) == {}


def test_every_other_operation_is_refused_and_the_offered_ones_are_listed() -> None:
    for function, spec in CATALOG.items():
        for operation in set(Operation) - set(spec.operations):
            description = found(step(function.value, operation.value))["steps[0].operation"]
            for offered in spec.operations:
                assert offered.value in description


def test_an_operation_without_closed_form_says_which_exist() -> None:
    assert found(step("silu", "inverse")) == {
        "steps[0].operation": "silu has no inverse in closed form; it has forward, derivative"
    }


def test_all_violations_of_all_steps_come_at_once() -> None:
    fields = found(
        step("silu", "antiderivative", alpha=1.0),
        step("softmax", axis=5),
        step("elu", alpha=math.nan, beta=2.0),
        step("tanh", approximate="tanh"),
        dtype="int64",
    )
    assert set(fields) == {
        "dtype",
        "steps[0].operation",
        "steps[0].parameters.alpha",
        "steps[1].axis",
        "steps[2].parameters.alpha",
        "steps[2].parameters.beta",
        "steps[3].approximate",
    }


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_four_types_are_accepted(dtype: str) -> None:
    assert found(step("relu"), dtype=dtype) == {}


@pytest.mark.parametrize("count", [0, 65])
def test_the_number_of_steps_is_bounded(count: int) -> None:
    assert "has " + str(count) in found(*[step("relu")] * count)["steps"]


@pytest.mark.parametrize(
    ("bad", "description"),
    [
        (step("softplus", beta=0.0), "must be finite and > 0, is 0"),
        (step("softplus", beta=math.inf), "must be finite and > 0, is inf"),
        (step("celu", alpha=-1.0), "must be finite and > 0, is -1"),
        (step("elu", alpha=-0.5), "must be finite and >= 0, is -0.5"),
        (step("elu", "inverse", alpha=0.0), "must be > 0 for the inverse to exist, is 0"),
        (step("softshrink", lambd=-0.5), "must be finite and >= 0, is -0.5"),
        (step("leaky_relu", negative_slope=math.nan), "must be finite, is nan"),
        (step("leaky_relu", "inverse", negative_slope=-0.1), "must be > 0 for the inverse to exist, is -0.1"),
        (step("hardtanh", min_val=2.0), "must be > min_val = 2, is 1"),
        (step("relu", slope=1.0), "is not a parameter of relu, which takes no parameters"),
        (step("softplus", threshold=20.0), "is not a parameter of softplus, which takes beta"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.function.value,
)
def test_a_bad_parameter_is_described(bad: ActivationStep, description: str) -> None:
    assert description in found(bad).values()


def test_gelus_approximation_has_no_antiderivative() -> None:
    assert found(step("gelu", "antiderivative", approximate="tanh")) == {
        "steps[0].operation": "gelu has no antiderivative in closed form; it has forward, derivative"
    }
    assert found(step("gelu", approximate="tanh")) == {}
    assert "none or tanh" in found(step("gelu", approximate="sigmoid"))["steps[0].approximate"]


@pytest.mark.parametrize(
    ("axis", "ndim", "valid"), [(0, 1, True), (-2, 2, True), (2, 2, False), (-3, 2, False)]
)
def test_an_axis_must_exist(axis: int, ndim: int, valid: bool) -> None:
    assert ("steps[0].axis" not in found(step("softmax", axis=axis), ndim=ndim)) is valid


def test_a_scalar_has_no_axis() -> None:
    assert "scalar" in found(step("logsumexp"), ndim=0)["steps[0].axis"]


def test_an_axis_is_checked_against_the_dimensions_that_earlier_steps_leave() -> None:
    chain = [step("logsumexp"), step("softmax", "antiderivative"), step("softmax")]
    assert set(found(*chain, ndim=2)) == {"steps[2].axis"}
    assert found(*chain, ndim=3) == {}


def test_a_jacobian_must_come_last() -> None:
    assert "must be the last step" in found(step("softmax", "derivative"), step("log"))["steps[0].operation"]
    assert found(step("log"), step("log_softmax", "derivative")) == {}
    assert found(step("logsumexp", "derivative"), step("log")) == {}


def test_the_output_shape_follows_the_chain() -> None:
    assert output_shape((2, 3, 4), [step("relu")]) == (2, 3, 4)
    assert output_shape((2, 3, 4), [step("logsumexp", axis=1)]) == (2, 4)
    assert output_shape((2, 3, 4), [step("softmax", "antiderivative", axis=0), step("tanh")]) == (3, 4)
    assert output_shape((2, 3, 4), [step("softmax", "derivative", axis=1)]) == (2, 3, 4, 3)


def test_only_the_softmax_family_is_not_elementwise() -> None:
    family = {Activation.SOFTMAX, Activation.LOG_SOFTMAX, Activation.LOGSUMEXP}
    assert {f for f in Activation if not is_elementwise([ActivationStep(function=f)])} == family


def test_parameters_are_resolved_over_the_defaults() -> None:
    assert resolved_parameters(step("hardtanh", max_val=3.0)) == {"min_val": -1.0, "max_val": 3.0}
