"""``Differentiate``: the value of an expression and its gradients, with PyTorch's accumulation on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from epochd_server.domain.expressions import ExpressionLimits
from epochd_server.engine.autodiff.evaluate import Evaluation, evaluate
from epochd_server.engine.autodiff.functions import Value
from epochd_server.engine.autodiff.validate import INTEGERS, validate

Gradients = Mapping[str, torch.Tensor]
"""A gradient for each name, of that name's shape and type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Differentiation:
    """What :func:`differentiate` found. No tensor in it is part of an autograd graph.

    Attributes:
        value: The output; it has one element.
        intermediates: The value of each name the statements assign, in their order.
        history: What each name's ``.grad`` held after each backward pass, first pass first; never empty.
    """

    value: torch.Tensor
    intermediates: Mapping[str, torch.Tensor]
    history: tuple[Gradients, ...]

    @property
    def gradients(self) -> Gradients:
        """The gradients after the last pass."""
        return self.history[-1]


def differentiate(
    expression: str,
    variables: Mapping[str, torch.Tensor],
    *,
    gradients_of: Sequence[str] | None = None,
    repeat: int = 1,
    accumulate: bool = False,
    limits: ExpressionLimits | None = None,
) -> Differentiation:
    """Evaluates an expression and differentiates its output by PyTorch's autograd.

    Args:
        expression: Statements separated by ``;`` or line breaks, the last one the output.
        variables: A tensor of any shape for each name; integers are taken as float64. Not modified.
        gradients_of: Variables and assigned names to differentiate by; None or empty for all variables.
        repeat: How many backward passes to make.
        accumulate: Whether gradients add up from pass to pass, as in PyTorch when nothing zeroes them.
        limits: What the expression may cost; None for the defaults.

    Returns:
        The value, the gradients after every pass, and the values of intermediates. Where the output does not
        depend on a name, that name's gradient is zero.

    Raises:
        InvalidInput: Everything wrong with ``expression``, ``variables``, ``gradients_of`` and ``repeat``.
    """
    limits = limits if limits is not None else ExpressionLimits()
    program = validate(expression, variables, gradients_of or (), repeat, limits)
    wanted = list(gradients_of or variables)
    # The caller may be in inference mode, in which nothing is recorded.
    with torch.inference_mode(mode=False), torch.enable_grad():
        leaves = {name: _leaf(tensor) for name, tensor in variables.items()}
        evaluation = evaluate(program, leaves)
        once = _gradients(evaluation, wanted)
        return Differentiation(
            value=_detached(evaluation.output),
            intermediates={
                s.target: _detached(evaluation.names[s.target]) for s in program.statements if s.target
            },
            history=_passes(once, repeat, accumulate),
        )


def _gradients(evaluation: Evaluation, wanted: Sequence[str]) -> Gradients:
    """What one backward pass leaves in ``.grad`` of each wanted name."""
    inputs = [value for name in wanted if isinstance(value := evaluation.names[name], torch.Tensor)]
    if not isinstance(evaluation.output, torch.Tensor) or not inputs:
        return {name: torch.zeros_like(tensor) for name, tensor in zip(wanted, inputs, strict=True)}
    found = torch.autograd.grad(evaluation.output, inputs, materialize_grads=True)
    return {name: gradient.contiguous() for name, gradient in zip(wanted, found, strict=True)}


def _passes(once: Gradients, repeat: int, accumulate: bool) -> tuple[Gradients, ...]:
    """The gradients after each pass. Every pass over the same values finds the same, so one is enough."""
    history = [once]
    for _ in range(repeat - 1):
        last = history[-1]
        history.append({name: last[name] + once[name] for name in once} if accumulate else once)
    return tuple(history)


def _leaf(tensor: torch.Tensor) -> torch.Tensor:
    dtype = torch.float64 if tensor.dtype in INTEGERS else tensor.dtype
    return tensor.detach().to(dtype, copy=True).requires_grad_()


def _detached(value: Value) -> torch.Tensor:
    return value.detach() if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=torch.float64)
