"""Activation steps as messages."""

from __future__ import annotations

from collections.abc import Iterable

from epochd.activations import Activation
from epochd.errors import invalid
from epochd.v1 import activation_pb2

FUNCTIONS = {
    name.removeprefix("ACTIVATION_FUNCTION_").lower(): number
    for name, number in activation_pb2.ActivationFunction.items()
    if number != activation_pb2.ACTIVATION_FUNCTION_UNSPECIFIED
}
"""Every activation function by name."""


def function_number(name: str, field: str) -> activation_pb2.ActivationFunction.ValueType:
    """The enum value of a function.

    Raises:
        InvalidArgument: Naming ``field``, when there is no such function.
    """
    number = FUNCTIONS.get(name.lower().replace("-", "_"))
    if number is None:
        raise invalid(field, f"must be one of {', '.join(sorted(FUNCTIONS))}, is {name!r}")
    return number


def operation_number(op: str) -> activation_pb2.ActivationOperation.ValueType:
    """The enum value of an operation."""
    return activation_pb2.ActivationOperation.Value(f"ACTIVATION_OPERATION_{op.upper()}")


def encode_steps(steps: Iterable[Activation | str]) -> list[activation_pb2.ActivationStep]:
    """The messages of a chain of steps.

    Raises:
        InvalidArgument: When a function has no such name.
    """
    return [_step(Activation(s) if isinstance(s, str) else s, index) for index, s in enumerate(steps)]


def _step(step: Activation, index: int) -> activation_pb2.ActivationStep:
    return activation_pb2.ActivationStep(
        function=function_number(step.name, f"chain[{index}].function"),
        operation=operation_number(step.op),
        parameters=step.parameters,
        approximate=step.approximate or "",
        axis=step.axis,
    )
