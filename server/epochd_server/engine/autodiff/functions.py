"""The whitelist: every operator and function an expression may use, and the PyTorch function behind each."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import torch
import torch.nn.functional as F

from epochd_server.engine.autodiff import shapes
from epochd_server.engine.autodiff.syntax import NEGATE

Value: TypeAlias = torch.Tensor | float
"""A tensor, or a constant: a float that, as in PyTorch, takes on the type of the tensor it meets."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operator or function.

    Attributes:
        counts: The numbers of arguments it may be given.
        infer: Shapes of the arguments to the shape of the result.
        compute: The arguments to the result. At least one argument is a tensor; a scalar may be a float.
    """

    counts: tuple[int, ...]
    infer: Callable[[Sequence[shapes.Shape]], shapes.Outcome]
    compute: Callable[..., torch.Tensor]


def _max(*arguments: Value) -> torch.Tensor:
    if len(arguments) == 1:
        return torch.max(_as_tensor(arguments[0]))
    left, right = arguments
    return torch.maximum(_as_tensor(left, like=right), _as_tensor(right, like=left))


def _min(*arguments: Value) -> torch.Tensor:
    if len(arguments) == 1:
        return torch.min(_as_tensor(arguments[0]))
    left, right = arguments
    return torch.minimum(_as_tensor(left, like=right), _as_tensor(right, like=left))


def _matmul(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    # torch.matmul alone among these refuses mixed types instead of promoting them.
    dtype = torch.result_type(left, right)
    return torch.matmul(left.to(dtype), right.to(dtype))


def _as_tensor(value: Value, *, like: Value = 0.0) -> torch.Tensor:
    """A constant in the type and on the device of the tensor it meets, in float64 when it meets none."""
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(like, torch.Tensor):
        return torch.tensor(value, dtype=like.dtype, device=like.device)
    return torch.tensor(value, dtype=torch.float64)


def _elementwise(compute: Callable[[torch.Tensor], torch.Tensor]) -> Operation:
    return Operation((1,), shapes.elementwise, compute)


def _operator(compute: Callable[..., torch.Tensor], count: int = 2) -> Operation:
    return Operation((count,), shapes.elementwise, compute)


FUNCTIONS: Mapping[str, Operation] = MappingProxyType(
    {
        "abs": _elementwise(torch.abs),
        "cos": _elementwise(torch.cos),
        "exp": _elementwise(torch.exp),
        "log": _elementwise(torch.log),
        "logit": _elementwise(torch.logit),
        "matmul": Operation((2,), shapes.matrix_product, _matmul),
        "max": Operation((1, 2), shapes.extremum, _max),
        "mean": Operation((1,), shapes.reduction, torch.mean),
        "min": Operation((1, 2), shapes.extremum, _min),
        "relu": _elementwise(F.relu),
        "sigmoid": _elementwise(torch.sigmoid),
        "sin": _elementwise(torch.sin),
        "softplus": _elementwise(F.softplus),
        "sqrt": _elementwise(torch.sqrt),
        "sum": Operation((1,), shapes.reduction, torch.sum),
        "tanh": _elementwise(torch.tanh),
    }
)
"""The functions, by the name they are called with."""

OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        **FUNCTIONS,
        "+": _operator(operator.add),
        "-": _operator(operator.sub),
        "*": _operator(operator.mul),
        "/": _operator(operator.truediv),
        "**": _operator(operator.pow),
        NEGATE: _operator(operator.neg, count=1),
    }
)
"""The functions and the operators."""


def compute(operation: Operation, arguments: Sequence[Value]) -> Value:
    """Applies an operation; the result of constants alone is a constant again.

    Constants are computed as float64 tensors, since Python's own arithmetic would raise where IEEE 754 gives
    an infinity or NaN, and leave the real numbers for ``(-8)**0.5``.
    """
    constants = [argument for argument in arguments if isinstance(argument, float)]
    if len(constants) == len(arguments):
        return float(operation.compute(*map(_as_tensor, constants)))
    return operation.compute(*arguments)
