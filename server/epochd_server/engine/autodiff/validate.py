"""Finds everything wrong with a request to differentiate, before any of it is computed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from epochd_server.domain.errors import FieldViolation, InvalidInput, Violations
from epochd_server.domain.expressions import ExpressionLimits
from epochd_server.engine.autodiff import shapes
from epochd_server.engine.autodiff.check import MAX_REPORTED, Fact, check, suggestion
from epochd_server.engine.autodiff.functions import FUNCTIONS
from epochd_server.engine.autodiff.parse import parse
from epochd_server.engine.autodiff.syntax import Program, listed
from epochd_server.engine.autodiff.tokens import NAME

_FLOATS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
INTEGERS = frozenset({torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64})
"""Types that are taken as float64: an integer has no derivative."""


def validate(
    expression: str,
    variables: Mapping[str, torch.Tensor],
    gradients_of: Sequence[str],
    repeat: int,
    limits: ExpressionLimits,
) -> Program:
    """Checks every part of a request together.

    Args:
        expression: Statements separated by ``;`` or line breaks.
        variables: A tensor for each name.
        gradients_of: Names asked for; empty for all variables.
        repeat: Backward passes asked for.
        limits: What the request may cost.

    Returns:
        The parsed expression. Evaluating it raises nothing and allocates no more than ``limits`` say.

    Raises:
        InvalidInput: Everything that is wrong; of a syntax error only the first.
    """
    violations = Violations()
    sizes = _check_variables(variables, limits, violations)
    if not 1 <= repeat <= limits.max_repeat:
        violations.add("repeat", f"must be 1 to {limits.max_repeat}, is {repeat}")
    try:
        program = parse(expression, limits)
    except InvalidInput as error:
        raise InvalidInput([*violations.found, *error.violations]) from None
    facts = check(program, sizes, limits, violations)
    _check_wanted(gradients_of, facts, violations)
    violations.raise_if_any()
    _check_history(gradients_of or list(variables), facts, repeat, limits, violations)
    violations.raise_if_any()
    return program


def _check_variables(
    variables: Mapping[str, torch.Tensor], limits: ExpressionLimits, violations: Violations
) -> dict[str, shapes.Shape]:
    """The shapes of the variables that have a usable name."""
    if len(variables) > limits.max_variables:
        described = f"{len(variables)} are given, at most {limits.max_variables} are allowed"
        raise InvalidInput([FieldViolation("variables", described)])
    shapes_by_name: dict[str, shapes.Shape] = {}
    for name, tensor in variables.items():
        if NAME.fullmatch(name) is None or len(name) > limits.max_name_length:
            rule = f"at most {limits.max_name_length} ASCII letters, digits and _, no digit first"
            violations.add("variables", f"{name[:40]!r} is not a name: {rule}")
            continue
        shapes_by_name[name] = tuple(tensor.shape)
        with violations.within(f"variables.{name}"):
            _check_variable(name, tensor, limits, violations)
    return shapes_by_name


def _check_variable(
    name: str, tensor: torch.Tensor, limits: ExpressionLimits, violations: Violations
) -> None:
    if name in FUNCTIONS:
        violations.add("", f"{name} is a function's name; choose another")
    if tensor.dtype not in _FLOATS | INTEGERS:
        violations.add("", f"must hold real numbers, holds {str(tensor.dtype).removeprefix('torch.')}")
    if tensor.dim() > limits.max_rank:
        violations.add("", f"has {tensor.dim()} dimensions, at most {limits.max_rank} are allowed")
    if tensor.numel() > limits.max_elements:
        violations.add("", f"has {tensor.numel()} elements, at most {limits.max_elements} are allowed")


def _check_wanted(wanted: Sequence[str], facts: Mapping[str, Fact], violations: Violations) -> None:
    reports = 0
    for index, name in enumerate(wanted):
        problem = _wrong_with_wanted(name, facts)
        if problem is None and name in wanted[:index]:
            problem = f"{name} is listed before"
        if problem is not None:
            violations.add(f"gradients_of[{index}]", problem)
            reports += 1
        if reports == MAX_REPORTED:
            return


def _wrong_with_wanted(name: str, facts: Mapping[str, Fact]) -> str | None:
    if name not in facts:
        shown = name[:40]
        return f"unknown name {shown!r}{suggestion(shown, facts)}; names here: {listed(facts)}"
    fact = facts[name]
    if fact is not None and fact.constant is not None:
        return f"{name} depends on no variable; give it as a variable to differentiate by it"
    return None


def _check_history(
    wanted: Sequence[str],
    facts: Mapping[str, Fact],
    repeat: int,
    limits: ExpressionLimits,
    violations: Violations,
) -> None:
    elements = sum(math.prod(fact.shape) for name in wanted if (fact := facts[name]) is not None)
    if repeat * elements > limits.max_total_elements:
        described = (
            f"gradients of {elements} elements, {repeat} times, are more than {limits.max_total_elements}"
        )
        violations.add("repeat", f"{described} elements together")
