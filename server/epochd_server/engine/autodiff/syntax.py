"""What the parser produces: statements whose syntax trees are written in postfix order.

Postfix order is the tree itself, read from the leaves to the root: ``2*w**2`` is ``2 w 2 ** *``. Walking it
is a loop over a stack, so that a sum of a thousand terms costs no recursion in any later stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from epochd_server.domain.errors import FieldViolation

T = TypeVar("T")

NEGATE = "unary -"
"""The operation of a minus sign with nothing on its left."""


@dataclass(frozen=True, slots=True)
class Number:
    """A literal.

    Attributes:
        value: The float64 nearest to the decimal digits.
        at: Offset of its first character in the source.
    """

    value: float
    at: int


@dataclass(frozen=True, slots=True)
class Load:
    """The value of a variable, or of a name that an earlier statement assigned.

    Attributes:
        name: The name as written.
        at: Offset of its first character in the source.
    """

    name: str
    at: int


@dataclass(frozen=True, slots=True)
class Apply:
    """An operator or a call, applied to the ``count`` values before it.

    Attributes:
        operation: An operator's sign, :data:`NEGATE`, or the name written before the parenthesis.
        count: How many arguments it takes from the stack.
        at: Offset of the sign or name in the source.
    """

    operation: str
    count: int
    at: int


Instruction = Number | Load | Apply


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement.

    Attributes:
        target: The name it assigns; None for a bare expression.
        code: The expression in postfix order; never empty.
        at: Offset of its first character in the source.
    """

    target: str | None
    code: tuple[Instruction, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Program:
    """A parsed expression.

    Attributes:
        source: The text it was parsed from, with the typographic minus replaced by the plain one.
        statements: At least one; the last is the output.
    """

    source: str
    statements: tuple[Statement, ...]


class Algebra(Protocol[T]):
    """What numbers, names and operations mean to a stage: shapes in the check, tensors after it."""

    def number(self, instruction: Number) -> T:
        """The meaning of a literal."""
        ...

    def load(self, instruction: Load) -> T:
        """The meaning of a name."""
        ...

    def apply(self, instruction: Apply, arguments: Sequence[T]) -> T:
        """The meaning of an operation on arguments whose meanings are known."""
        ...


def fold(code: Sequence[Instruction], algebra: Algebra[T]) -> T:
    """Walks an expression from its leaves to its root and returns the root's meaning."""
    stack: list[T] = []
    for instruction in code:
        match instruction:
            case Number():
                stack.append(algebra.number(instruction))
            case Load():
                stack.append(algebra.load(instruction))
            case Apply(count=count):
                arguments = stack[len(stack) - count :]
                del stack[len(stack) - count :]
                stack.append(algebra.apply(instruction, arguments))
    return stack.pop()


def violation_at(source: str, at: int, description: str) -> FieldViolation:
    """A violation of the field ``expression`` that names the line and the column, both counted from 1."""
    before = source[:at]
    line = before.count("\n") + 1
    column = at - (before.rfind("\n") + 1) + 1
    return FieldViolation("expression", f"line {line}, column {column}: {description}")


def listed(names: Mapping[str, object] | Sequence[str], limit: int = 20) -> str:
    """The names in order, for a message; the rest is counted when there are more than ``limit``."""
    shown = list(names)[:limit]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "") if shown else "none"
