"""Checks a parsed program against its variables and limits: names, arguments, shapes, sizes, exponents.

The check walks the same postfix code as the evaluation, with shapes in place of tensors, so that all that could
go wrong is known before anything is allocated.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from epochd_server.domain.errors import Violations
from epochd_server.domain.expressions import ExpressionLimits
from epochd_server.engine.autodiff import shapes
from epochd_server.engine.autodiff.functions import FUNCTIONS, OPERATIONS, Operation, compute
from epochd_server.engine.autodiff.syntax import (
    Apply,
    Load,
    Number,
    Program,
    Statement,
    fold,
    listed,
    violation_at,
)

MAX_REPORTED = 20
"""Violations reported of one field; more would not fit the metadata that carries an error."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a value before it is computed.

    Attributes:
        shape: Its shape.
        constant: Its value when no variable takes part in it, else None.
    """

    shape: shapes.Shape
    constant: float | None = None


Fact = Known | None
"""What is known of a value; None when an error further down leaves it unknown, to report each error once."""


def check(
    program: Program,
    variables: Mapping[str, shapes.Shape],
    limits: ExpressionLimits,
    violations: Violations,
) -> dict[str, Fact]:
    """Checks every statement and adds what is wrong to ``violations``.

    Args:
        program: What the parser made of the expression.
        variables: Shapes of the given variables.
        limits: Exponents and sizes are checked here.
        violations: Collects violations of ``expression``.

    Returns:
        What is known of every name: the variables, and whatever the statements assign.
    """
    checker = _Checker(program, variables, limits, violations)
    for statement in program.statements[:-1]:
        checker.statement(statement)
        if statement.target is None:
            checker.report(
                statement.at, "this value is not used; assign it to a name or remove the statement"
            )
    output = checker.statement(program.statements[-1])
    checker.output(program.statements[-1], output)
    return checker.facts


def suggestion(name: str, among: Collection[str]) -> str:
    """The closest of the names as a question in parentheses; empty when none is close."""
    close = difflib.get_close_matches(name, among, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


class _Checker:
    """An algebra of :class:`Known` that reports instead of raising, and adds up what evaluation will cost."""

    def __init__(
        self,
        program: Program,
        variables: Mapping[str, shapes.Shape],
        limits: ExpressionLimits,
        violations: Violations,
    ) -> None:
        self.facts: dict[str, Fact] = {name: Known(shape) for name, shape in variables.items()}
        self._source = program.source
        self._variables = frozenset(variables)
        self._limits = limits
        self._violations = violations
        self._reported: set[str] = set()
        self._reports = 0
        self._elements = 0
        self._multiplications = 0

    def report(self, at: int, description: str) -> None:
        """Adds a violation at an offset of the source."""
        if self._reports < MAX_REPORTED:
            self._violations.found.append(violation_at(self._source, at, description))
        self._reports += 1

    def statement(self, statement: Statement) -> Fact:
        """Checks one statement and makes its name known to the next."""
        fact = fold(statement.code, self)
        if statement.target is not None and self._may_assign(statement.target, statement.at):
            self.facts[statement.target] = fact
        return fact

    def output(self, statement: Statement, fact: Fact) -> None:
        """The output must have one element: only a scalar has a gradient without a direction."""
        if fact is not None and math.prod(fact.shape) != 1:
            described = f"the output has shape {shapes.shown(fact.shape)}; take sum(...) or mean(...)"
            self.report(statement.at, described)

    def number(self, instruction: Number) -> Fact:
        return Known((), instruction.value)

    def load(self, instruction: Load) -> Fact:
        name = instruction.name
        if name in self.facts:
            return self.facts[name]
        if name in FUNCTIONS:
            self.report(instruction.at, f"{name} is a function; write {name}(...)")
        elif self._is_new(name):
            known = f"unknown name '{name}'{suggestion(name, self.facts)}; known here: {listed(self.facts)}"
            self.report(instruction.at, known)
        return None

    def apply(self, instruction: Apply, arguments: Sequence[Fact]) -> Fact:
        operation = OPERATIONS.get(instruction.operation)
        if operation is None:
            self._unknown_function(instruction)
            return None
        if len(arguments) not in operation.counts:
            expected = (
                " or ".join(map(str, operation.counts)) + " argument" + "s" * (operation.counts != (1,))
            )
            self.report(instruction.at, f"{instruction.operation} takes {expected}, {len(arguments)} given")
            return None
        known = [argument for argument in arguments if argument is not None]
        return self._apply(instruction, operation, known) if len(known) == len(arguments) else None

    def _apply(self, instruction: Apply, operation: Operation, arguments: Sequence[Known]) -> Fact:
        if instruction.operation == "**" and not self._exponent_fits(instruction, arguments[1]):
            return None
        try:
            outcome = operation.infer([argument.shape for argument in arguments])
        except shapes.ShapeError as error:
            self.report(instruction.at, str(error))
            return None
        if not self._affordable(instruction, outcome):
            return None
        constants = [argument.constant for argument in arguments if argument.constant is not None]
        if len(constants) < len(arguments):
            return Known(outcome.shape)
        return Known(outcome.shape, float(compute(operation, constants)))

    def _exponent_fits(self, instruction: Apply, exponent: Known) -> bool:
        # Written so that NaN does not fit.
        if exponent.constant is None or abs(exponent.constant) <= self._limits.max_exponent:
            return True
        bound = f"its magnitude may be at most {self._limits.max_exponent:g}"
        self.report(instruction.at, f"the exponent is {exponent.constant:g}; {bound}")
        return False

    def _affordable(self, instruction: Apply, outcome: shapes.Outcome) -> bool:
        limits = self._limits
        if outcome.largest > limits.max_elements:
            described = (
                f"needs a tensor of {outcome.largest} elements, at most {limits.max_elements} are allowed"
            )
            self.report(instruction.at, f"'{instruction.operation}' {described}")
            return False
        before = self._elements, self._multiplications
        self._elements += outcome.largest
        self._multiplications += outcome.multiplications
        if before[0] <= limits.max_total_elements < self._elements:
            described = (
                f"from here on the results hold more than {limits.max_total_elements} elements together"
            )
            self.report(instruction.at, described)
        if before[1] <= limits.max_multiplications < self._multiplications:
            described = (
                f"from here on the products take more than {limits.max_multiplications} multiplications"
            )
            self.report(instruction.at, described)
        return True

    def _unknown_function(self, instruction: Apply) -> None:
        name = instruction.operation
        if not self._is_new(name):
            return
        if name in self.facts:
            described = f"{name} is not a function; write {name}*(...) for a product"
        else:
            close = suggestion(name, FUNCTIONS)
            described = f"unknown function '{name}'{close}; functions: {listed(FUNCTIONS)}"
        self.report(instruction.at, described)

    def _is_new(self, name: str) -> bool:
        """Whether an unknown name is to be reported: once, and not the hundredth of its kind."""
        new = name not in self._reported and len(self._reported) < MAX_REPORTED
        self._reported.add(name)
        return new

    def _may_assign(self, name: str, at: int) -> bool:
        if name in FUNCTIONS:
            self.report(at, f"{name} is a function's name; choose another")
        elif name in self._variables:
            self.report(at, f"{name} is given as a variable and cannot be assigned; choose another name")
        elif name in self.facts:
            self.report(
                at, f"{name} is assigned before; choose another name, so that its gradient is of one value"
            )
        else:
            return True
        return False
