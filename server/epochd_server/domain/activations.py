"""A chain of activation steps: what a client may ask of ActivationTransform, and what is wrong with it.

No tensor library is needed here; the values are computed by ``engine.activations``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from epochd_server.domain.activation_catalog import (
    CATALOG,
    Activation,
    ActivationSpec,
    Operation,
    OperationSpec,
    ParameterSpec,
)
from epochd_server.domain.errors import Violations

__all__ = [
    "CATALOG",
    "DTYPES",
    "Activation",
    "ActivationSpec",
    "ActivationStep",
    "Operation",
    "OperationSpec",
    "ParameterSpec",
    "is_elementwise",
    "output_shape",
    "resolved_parameters",
    "validate_steps",
]

DTYPES = ("float16", "bfloat16", "float32", "float64")
"""The element types an activation is computed for; the result has the type of the input."""

MAX_STEPS = 64
"""The longest chain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationStep:
    """One step of a chain.

    Attributes:
        function: The activation.
        operation: Which of its operations.
        parameters: By PyTorch's name; those not given have PyTorch's default.
        approximate: ``none``, or ``tanh`` for gelu's approximation.
        axis: The axis of the softmax family, negative from the end; other functions ignore it.
    """

    function: Activation
    operation: Operation = Operation.FORWARD
    parameters: Mapping[str, float] = field(default_factory=dict)
    approximate: str = "none"
    axis: int = -1

    @property
    def reduces_axis(self) -> bool:
        """True when the result has no ``axis`` any more."""
        return (self.function, self.operation) in {
            (Activation.LOGSUMEXP, Operation.FORWARD),
            (Activation.SOFTMAX, Operation.ANTIDERIVATIVE),
        }

    @property
    def is_jacobian(self) -> bool:
        """True when the result has one more dimension, at the end, as long as ``axis``."""
        return self.operation is Operation.DERIVATIVE and self.function in {
            Activation.SOFTMAX,
            Activation.LOG_SOFTMAX,
        }


def resolved_parameters(step: ActivationStep) -> dict[str, float]:
    """Returns every parameter of the step's function, defaults filled in."""
    defaults = {name: spec.default for name, spec in CATALOG[step.function].parameters.items()}
    return defaults | dict(step.parameters)


def is_elementwise(steps: Sequence[ActivationStep]) -> bool:
    """True when each element of the result depends on the one element of the input at the same index.

    A tensor may then be cut into chunks anywhere and the chunks transformed one by one.
    """
    return not any(CATALOG[step.function].along_axis for step in steps)


def output_shape(shape: Sequence[int], steps: Sequence[ActivationStep]) -> tuple[int, ...]:
    """Returns the shape of the result of valid ``steps`` on an input of ``shape``."""
    result = list(shape)
    for step in steps:
        if step.reduces_axis:
            result.pop(step.axis)
        elif step.is_jacobian:
            result.append(result[step.axis])
    return tuple(result)


def validate_steps(steps: Sequence[ActivationStep], dtype: str, ndim: int, violations: Violations) -> None:
    """Adds everything that is wrong with a chain to ``violations``.

    Args:
        steps: The chain, first step first.
        dtype: The input's element type, one of ``DTYPES``.
        ndim: The input's number of dimensions.
        violations: Collects ``dtype``, ``steps`` and ``steps[2].parameters.alpha``-like fields.
    """
    if dtype not in DTYPES:
        violations.add("dtype", f"must be one of {', '.join(DTYPES)}, is {dtype}")
    if not 1 <= len(steps) <= MAX_STEPS:
        violations.add("steps", f"must have 1 to {MAX_STEPS} steps, has {len(steps)}")
    for index, step in enumerate(steps):
        with violations.within(f"steps[{index}]"):
            _check_operation(step, violations)
            _check_parameters(step, violations)
            _check_axis(step, ndim, violations)
            if step.is_jacobian and index < len(steps) - 1:
                violations.add(
                    "operation",
                    f"the derivative of {step.function.value} is a Jacobian and must be the last step",
                )
        ndim -= step.reduces_axis


def _check_operation(step: ActivationStep, violations: Violations) -> None:
    spec, name = CATALOG[step.function], step.function.value
    if step.approximate not in spec.approximations:
        allowed = " or ".join(spec.approximations)
        violations.add("approximate", f"must be {allowed} for {name}, is {step.approximate!r:.40}")
    approximated = step.approximate != "none"
    available = [
        operation.value
        for operation in spec.operations
        if not (approximated and operation is Operation.ANTIDERIVATIVE)
    ]
    if step.operation.value not in available:
        violations.add(
            "operation",
            f"{name} has no {step.operation.value} in closed form; it has {', '.join(available)}",
        )


def _check_parameters(step: ActivationStep, violations: Violations) -> None:
    specs, name = CATALOG[step.function].parameters, step.function.value
    with violations.within("parameters"):
        for parameter, value in step.parameters.items():
            if parameter not in specs:
                takes = ", ".join(specs) or "no parameters"
                violations.add(parameter, f"is not a parameter of {name}, which takes {takes}")
            else:
                _check_value(step, parameter, value, violations)
        values = resolved_parameters(step)
        if step.function is Activation.HARDTANH and not values["min_val"] < values["max_val"]:
            violations.add("max_val", f"must be > min_val = {values['min_val']:g}, is {values['max_val']:g}")


def _check_value(step: ActivationStep, parameter: str, value: float, violations: Violations) -> None:
    spec = CATALOG[step.function].parameters[parameter]
    if not spec.allows(value):
        violations.add(parameter, f"must be {spec.bounds}, is {value:g}")
        return
    floor = spec.inverse_minimum
    if step.operation is Operation.INVERSE and floor is not None and value <= floor:
        violations.add(parameter, f"must be > {floor:g} for the inverse to exist, is {value:g}")


def _check_axis(step: ActivationStep, ndim: int, violations: Violations) -> None:
    if not CATALOG[step.function].along_axis:
        return
    if ndim < 1:
        violations.add("axis", f"{step.function.value} needs an axis, and its input here is a scalar")
    elif not -ndim <= step.axis < ndim:
        violations.add("axis", f"must be in [{-ndim}, {ndim - 1}] for {ndim} dimensions, is {step.axis}")
