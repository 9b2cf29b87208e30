"""Splits an expression into tokens. Only ASCII has a meaning here, apart from the typographic minus."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass

from epochd_server.domain.errors import InvalidInput
from epochd_server.engine.autodiff.syntax import violation_at

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""What a variable may be called."""

_TOKEN = re.compile(
    r"""
      (?P<space>[ \t\r\f\v]+)
    | (?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<sign>\*\*|[-+*/(),=;\n])
    """,
    re.VERBOSE,
)

_HINTS = {
    "^": "write ** for a power",
    "²": "write **2",
    "³": "write **3",
    "×": "write * for a product",
    "·": "write * for a product",
    "÷": "write / for a quotient",
    "@": "write matmul(a, b) for a matrix product",
    ".": "names have no attributes here",
    "[": "there is no indexing here",
    "#": "there are no comments here",
}
_SIGNS = "+ - * / ** ( ) , = ;"


class Kind(enum.Enum):
    """What a token is."""

    NUMBER = enum.auto()
    NAME = enum.auto()
    SIGN = enum.auto()
    END = enum.auto()


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the source.

    Attributes:
        kind: What it is.
        text: The characters; empty for the end.
        at: Offset of its first character in the source.
    """

    kind: Kind
    text: str
    at: int

    def is_sign(self, *signs: str) -> bool:
        """Whether this is one of the signs."""
        return self.kind is Kind.SIGN and self.text in signs

    def shown(self) -> str:
        """How an error message calls this token."""
        if self.kind is Kind.END:
            return "the end of the expression"
        return "the end of the line" if self.text == "\n" else f"'{self.text[:20]}'"


def tokenize(source: str) -> list[Token]:
    """The tokens of ``source``, an END last. Line breaks inside parentheses are spaces, others are signs.

    Raises:
        InvalidInput: A character that no token starts with; names its line and column.
    """
    tokens = []
    open_parentheses = 0
    for token in _scan(source):
        if token.is_sign("("):
            open_parentheses += 1
        elif token.is_sign(")"):
            open_parentheses -= 1
        if open_parentheses <= 0 or not token.is_sign("\n"):
            tokens.append(token)
    tokens.append(Token(Kind.END, "", len(source)))
    return tokens


def _scan(source: str) -> Iterator[Token]:
    at = 0
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None:
            raise InvalidInput([violation_at(source, at, _unexpected(source[at]))])
        at = match.end()
        if match.lastgroup != "space":
            yield Token(Kind[str(match.lastgroup).upper()], match.group(), match.start())


def _unexpected(character: str) -> str:
    shown = f"'{character}'" if character.isascii() and character.isprintable() else f"U+{ord(character):04X}"
    hint = _HINTS.get(
        character, f"an expression is made of numbers, names of ASCII letters, digits and _, and {_SIGNS}"
    )
    return f"unexpected character {shown}; {hint}"
