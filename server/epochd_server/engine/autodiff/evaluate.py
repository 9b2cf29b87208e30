"""Computes a checked program with PyTorch, recording for autograd what its gradients need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from epochd_server.engine.autodiff.functions import OPERATIONS, Value, compute
from epochd_server.engine.autodiff.syntax import Apply, Load, Number, Program, fold


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The values of a program.

    Attributes:
        output: Of the last statement.
        names: Of the variables and of every name a statement assigns. A float depends on no variable.
    """

    output: Value
    names: Mapping[str, Value]


def evaluate(program: Program, leaves: Mapping[str, torch.Tensor]) -> Evaluation:
    """Computes every statement in order.

    Args:
        program: A program that :func:`~epochd_server.engine.autodiff.check.check` found nothing wrong with.
        leaves: The variables, as leaves of the autograd graph to be recorded.

    Returns:
        The output and all names.
    """
    algebra = _Tensors(leaves)
    output: Value = 0.0
    for statement in program.statements:
        output = fold(statement.code, algebra)
        if statement.target is not None:
            algebra.names[statement.target] = output
    return Evaluation(output, algebra.names)


class _Tensors:
    """The algebra of tensors and constants."""

    def __init__(self, leaves: Mapping[str, torch.Tensor]) -> None:
        self.names: dict[str, Value] = dict(leaves)

    def number(self, instruction: Number) -> Value:
        return instruction.value

    def load(self, instruction: Load) -> Value:
        return self.names[instruction.name]

    def apply(self, instruction: Apply, arguments: Sequence[Value]) -> Value:
        return compute(OPERATIONS[instruction.operation], arguments)
