"""How large an expression sent to ``Differentiate`` may be, in every respect that costs time or memory."""

from __future__ import annotations

from dataclasses import dataclass, fields

MAX_SUPPORTED_DEPTH = 100
"""The parser recurses up to eight Python frames a level, and Python allows a thousand."""

MAX_SUPPORTED_EXPONENT = 65_504.0
"""The largest float16: a constant exponent must fit the narrowest type a variable may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpressionLimits:
    """Bounds that are checked before anything is allocated or computed. All are inclusive.

    Raises:
        ValueError: When a bound is not positive, or is beyond what the parser supports.
    """

    max_length: int = 4_096
    """Characters of the whole expression."""

    max_depth: int = 50
    """Nesting of parentheses, calls, unary minus and exponents. A sum of many terms does not nest."""

    max_nodes: int = 1_000
    """Numbers, names, operators and calls in all statements together."""

    max_statements: int = 100
    """Statements, blank ones not counted."""

    max_name_length: int = 64
    """Characters of one name."""

    max_variables: int = 100
    """Variables given with the request."""

    max_rank: int = 8
    """Dimensions of a variable; no operation adds any."""

    max_exponent: float = 1_000.0
    """Magnitude of a constant exponent. One that depends on a variable is not bounded."""

    max_elements: int = 2**20
    """Elements of a variable, of any intermediate result, and of an operand broadcast by matmul."""

    max_total_elements: int = 2**24
    """Elements of all intermediate results together, and of all gradients of all passes together."""

    max_multiplications: int = 2**31
    """Multiplications in all matrix products together, of the forward pass."""

    max_repeat: int = 1_000
    """Backward passes of one request."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name} must be > 0, is {getattr(self, field.name)}")
        if self.max_depth > MAX_SUPPORTED_DEPTH:
            raise ValueError(f"max_depth must be <= {MAX_SUPPORTED_DEPTH}, is {self.max_depth}")
        if self.max_exponent > MAX_SUPPORTED_EXPONENT:
            raise ValueError(f"max_exponent must be <= {MAX_SUPPORTED_EXPONENT}, is {self.max_exponent}")
