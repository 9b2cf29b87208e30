"""Parses an expression by precedence climbing (Pratt, "Top Down Operator Precedence", POPL 1973).

The grammar is written out in ``docs/differentiate.md``. Nothing but this grammar is understood: no attributes, no
indexing, comparisons or keywords, and names are only ever looked up in tables of this package.
"""

from __future__ import annotations

import math
from typing import NoReturn

from epochd_server.domain.errors import FieldViolation, InvalidInput
from epochd_server.domain.expressions import ExpressionLimits
from epochd_server.engine.autodiff.syntax import (
    NEGATE,
    Apply,
    Instruction,
    Load,
    Number,
    Program,
    Statement,
    violation_at,
)
from epochd_server.engine.autodiff.tokens import Kind, Token, tokenize

_LEFT_POWER = {"+": 1, "-": 1, "*": 2, "/": 2, "**": 4}
"""How tightly each operator binds what is on its left."""
_RIGHT_POWER = {"+": 2, "-": 2, "*": 3, "/": 3, "**": 4}
"""What an operator leaves to those on its right: all but ** associate to the left."""
_NEGATE_POWER = 3
"""Unary minus binds tighter than a product and looser than a power: -x**2 is -(x**2)."""


def parse(expression: str, limits: ExpressionLimits) -> Program:
    """Parses the whole expression.

    Args:
        expression: Statements separated by ``;`` or line breaks.
        limits: Length, depth, nodes, statements and name length are checked here.

    Returns:
        The program, its statements in postfix order. Names and functions are not looked up yet.

    Raises:
        InvalidInput: The first error, as one violation of ``expression`` with its line and column.
    """
    if len(expression) > limits.max_length:
        described = f"has {len(expression)} characters, at most {limits.max_length} are allowed"
        raise InvalidInput([FieldViolation("expression", described)])
    return _Parser(expression.replace("−", "-"), limits).program()


class _Parser:
    """One pass over the tokens of one source."""

    def __init__(self, source: str, limits: ExpressionLimits) -> None:
        self._source = source
        self._limits = limits
        self._tokens = tokenize(source)
        self._next = 0
        self._depth = 0
        self._nodes = 0
        self._code: list[Instruction] = []

    def program(self) -> Program:
        """All statements up to the end of the source."""
        statements: list[Statement] = []
        while self._peek().kind is not Kind.END:
            if self._take_sign(";", "\n"):
                continue
            if len(statements) == self._limits.max_statements:
                self._fail(self._peek(), f"more than {self._limits.max_statements} statements")
            statements.append(self._statement())
        if not statements:
            described = "is empty; write one such as 2*w**2 + 5"
            raise InvalidInput([FieldViolation("expression", described)])
        return Program(self._source, tuple(statements))

    def _statement(self) -> Statement:
        first, second = self._peek(), self._peek(1)
        target = first.text if first.kind is Kind.NAME and second.is_sign("=") else None
        if target is not None:
            self._check_name(first)
            self._next += 2
        self._code = []
        self._expression(0)
        self._end_statement()
        return Statement(target, tuple(self._code), first.at)

    def _end_statement(self) -> None:
        token = self._peek()
        if token.kind is Kind.END or token.is_sign(";", "\n"):
            return
        if token.is_sign("="):
            self._fail(token, "'=' assigns to one name at the start of a statement; there is no comparison")
        if token.is_sign(")"):
            self._fail(token, "')' closes no parenthesis")
        if token.is_sign(","):
            self._fail(token, "',' separates the arguments of a function and stands nowhere else")
        self._fail(token, f"{token.shown()} follows a value without an operator; write * for a product")

    def _expression(self, minimum: int) -> None:
        """Emits one operand and every operator after it that binds at least as tightly as ``minimum``."""
        self._operand()
        while (operator := self._peek()).kind is Kind.SIGN and _LEFT_POWER.get(operator.text, -1) >= minimum:
            self._next += 1
            if operator.text == "**":
                self._nested(operator, _RIGHT_POWER["**"])
            else:
                self._expression(_RIGHT_POWER[operator.text])
            self._emit(Apply(operator.text, 2, operator.at))

    def _operand(self) -> None:
        token = self._advance()
        if token.kind is Kind.NUMBER:
            self._number(token)
        elif token.kind is Kind.NAME:
            self._name(token)
        elif token.is_sign("-"):
            self._nested(token, _NEGATE_POWER)
            self._emit(Apply(NEGATE, 1, token.at))
        elif token.is_sign("("):
            self._nested(token, 0)
            self._close(token)
        else:
            self._fail(token, f"expected a number, a name, '-' or '(', found {token.shown()}")

    def _nested(self, token: Token, minimum: int) -> None:
        """An expression one level deeper than the one that ``token`` stands in."""
        self._depth += 1
        if self._depth > self._limits.max_depth:
            self._fail(token, f"nested deeper than {self._limits.max_depth} levels; assign parts to names")
        self._expression(minimum)
        self._depth -= 1

    def _number(self, token: Token) -> None:
        value = float(token.text)
        if math.isinf(value):
            self._fail(token, "the number is larger than float64 can hold (about 1.8e308)")
        following = self._peek()
        if following.kind is Kind.NAME and following.at == token.at + len(token.text):
            self._fail(following, f"'{following.text[:20]}' follows a number without an operator; write *")
        self._emit(Number(value, token.at))

    def _name(self, token: Token) -> None:
        self._check_name(token)
        if self._take_sign("("):
            self._emit(Apply(token.text, self._arguments(token), token.at))
        else:
            self._emit(Load(token.text, token.at))

    def _arguments(self, function: Token) -> int:
        """Emits the arguments up to the closing parenthesis and returns how many there were."""
        opening = self._tokens[self._next - 1]
        if self._take_sign(")"):
            return 0
        self._nested(function, 0)
        count = 1
        while self._take_sign(","):
            self._nested(function, 0)
            count += 1
        self._close(opening)
        return count

    def _close(self, opening: Token) -> None:
        if self._take_sign(")"):
            return
        if self._peek().kind is Kind.END:
            self._fail(opening, "'(' is never closed")
        self._fail(self._peek(), f"expected an operator or ')', found {self._peek().shown()}")

    def _check_name(self, token: Token) -> None:
        if len(token.text) > self._limits.max_name_length:
            self._fail(token, f"a name longer than {self._limits.max_name_length} characters")

    def _emit(self, instruction: Instruction) -> None:
        self._nodes += 1
        if self._nodes > self._limits.max_nodes:
            described = f"more than {self._limits.max_nodes} numbers, names and operations"
            raise InvalidInput([violation_at(self._source, instruction.at, described)])
        self._code.append(instruction)

    def _peek(self, ahead: int = 0) -> Token:
        return self._tokens[min(self._next + ahead, len(self._tokens) - 1)]

    def _advance(self) -> Token:
        token = self._peek()
        self._next += 1
        return token

    def _take_sign(self, *signs: str) -> bool:
        """Steps over the next token when it is one of these signs."""
        found = self._peek().is_sign(*signs)
        self._next += found
        return found

    def _fail(self, token: Token, description: str) -> NoReturn:
        raise InvalidInput([violation_at(self._source, token.at, description)])
