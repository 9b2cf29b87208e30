"""The activations a ``Sequential`` may hold: their names, parameters and defaults, all PyTorch's."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

ACTIVATION_PARAMETERS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "identity": {},
        "relu": {},
        "relu6": {},
        "leaky_relu": {"negative_slope": 0.01},
        "elu": {"alpha": 1.0},
        "selu": {},
        "celu": {"alpha": 1.0},
        "gelu": {},
        "silu": {},
        "mish": {},
        "softplus": {"beta": 1.0, "threshold": 20.0},
        "softsign": {},
        "tanh": {},
        "tanhshrink": {},
        "sigmoid": {},
        "log_sigmoid": {},
        "hardtanh": {"min_val": -1.0, "max_val": 1.0},
        "hardsigmoid": {},
        "hardswish": {},
    }
)
"""Name in ``torch.nn.functional`` (``log_sigmoid`` for logsigmoid) → parameter → PyTorch's default."""

GELU_APPROXIMATIONS = ("none", "tanh")
"""What ``approximate`` of gelu may be."""


def activation_arguments(function: str, given: Mapping[str, float]) -> dict[str, float]:
    """All parameters of an activation: those given, and PyTorch's defaults for the others.

    Args:
        function: A key of :data:`ACTIVATION_PARAMETERS`.
        given: Parameters by name; each must be one of this activation's.

    Raises:
        KeyError: Unknown activation or parameter.
    """
    arguments = dict(ACTIVATION_PARAMETERS[function])
    for name, value in given.items():
        if name not in arguments:
            raise KeyError(name)
        arguments[name] = float(value)
    return arguments
