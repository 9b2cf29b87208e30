"""An activation function, as a layer of a model or as a step of ``client.activation``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

from epochd._typecheck import require

Operation: TypeAlias = Literal["forward", "inverse", "derivative", "antiderivative"]


@dataclass(frozen=True, slots=True, init=False)
class Activation:
    """One activation function; a plain name such as ``"relu"`` does where no argument is needed.

    Args:
        name: Such as ``"leaky_relu"``; docs/activations.md lists them all.
        op: What to take of it. A layer takes ``"forward"``.
        axis: For softmax, log_softmax and logsumexp only; None means the last.
        approximate: For gelu only: ``"none"`` or ``"tanh"``.
        **parameters: Arguments by PyTorch's names.

    Example:
        >>> print(Activation("leaky_relu", negative_slope=0.2))
        leaky_relu(negative_slope=0.2)
        >>> print(Activation("softmax", op="derivative", axis=0))
        softmax.derivative(axis=0)
    """

    name: str
    """Name of the function."""

    op: Operation = "forward"
    """What to take of it."""

    axis: int | None = None
    """The axis; None means the last."""

    approximate: str | None = None
    """Form of gelu."""

    parameters: Mapping[str, float] = field(default_factory=dict)
    """Arguments by PyTorch's names."""

    def __init__(
        self,
        name: str,
        *,
        op: Operation = "forward",
        axis: int | None = None,
        approximate: str | None = None,
        **parameters: float,
    ) -> None:
        values = (name, op, axis, approximate, MappingProxyType(parameters))
        for field_name, value in zip(self.__slots__, values, strict=True):
            object.__setattr__(self, field_name, value)
        require(self, "name", str)
        require(self, "axis", Integral, optional=True)
        require(self, "approximate", str, optional=True)
        if op not in get_args(Operation):
            raise TypeError(f"Activation: op must be one of {', '.join(get_args(Operation))}, not {op!r}")
        given: Mapping[str, object] = parameters
        for key, parameter in given.items():
            if not isinstance(parameter, Real):
                raise TypeError(f"Activation: {key} must be a number, not {parameter!r}")

    def __str__(self) -> str:
        arguments = [f"{key}={value:g}" for key, value in self.parameters.items()]
        arguments += [] if self.axis is None else [f"axis={self.axis}"]
        arguments += [] if self.approximate is None else [f"approximate={self.approximate!r}"]
        name = self.name if self.op == "forward" else f"{self.name}.{self.op}"
        return f"{name}({', '.join(arguments)})" if arguments else name

    def __hash__(self) -> int:
        return hash((self.name, self.op, self.axis, self.approximate, frozenset(self.parameters.items())))
