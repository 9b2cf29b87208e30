"""The triangular factor of a matrix of many columns, by products of large matrices.

The same reflections as :func:`.triangles.absorb` makes, a panel of columns at a time: LAPACK finds those of a panel,
and what they do to the columns behind it are three matrix products (Schreiber and Van Loan, "A storage-efficient WY
representation for products of Householder transformations", 1989). It can be left between two panels.

Below :data:`MANY` columns the kernel is as fast, and its bits are the same on any machine; these are so on one machine.

Legend: p coefficients, q = p + right-hand sides, r ≤ p rows of the factor, m rows of the matrix, b columns of a panel.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

MANY = 512
"""Coefficients from which on a member is fitted this way."""
PANEL = 64
"""Columns of a panel."""
CHUNK = 4096
"""Rows that are taken into the factor at once."""
_LEAF = 128
_LOOKS = 5


def absorb_rows(factor: torch.Tensor, rows: torch.Tensor, may_go_on: Callable[[], bool]) -> bool:
    """Makes ``factor`` [r, q] that of its rows and ``rows``; False where it was left before.

    Args:
        factor: Upper trapezoidal in its first p columns; the others are Qᵀ times the right-hand sides.
        rows: [m, q], overwritten.
        may_go_on: Is asked before each panel.
    """
    for begin in range(0, len(factor), PANEL):
        if not may_go_on():
            return False
        end = min(begin + PANEL, len(factor))
        panel = torch.cat([factor[begin:end, begin:end], rows[:, begin:end]])
        reflected, lengths = torch.geqrf(panel)
        factor[begin:end, begin:end] = reflected[: end - begin].triu()
        _reflect(reflected, lengths, factor[begin:end, end:], rows[:, end:])
    return True


def _reflect(
    reflected: torch.Tensor, lengths: torch.Tensor, above: torch.Tensor, below: torch.Tensor
) -> None:
    """Applies a panel's reflections to the columns behind it.

    Args:
        reflected: [b + m, b] the reflections' vectors below the diagonal, whose heads are 1, as LAPACK leaves them.
        lengths: [b] 2 over their squared lengths, or 0 of those that change nothing.
        above: [b, …] rows of the factor, overwritten.
        below: [m, …] the other rows, overwritten.
    """
    width = len(lengths)
    idle = lengths == 0.0
    heads = reflected[:width].tril(-1)
    heads.fill_diagonal_(1.0)
    tails = reflected[width:].contiguous()
    heads[:, idle] = 0.0
    tails[:, idle] = 0.0
    # T⁻¹ of Q = I − V T Vᵀ
    order = (heads.T @ heads + tails.T @ tails).triu(1)
    order.diagonal().copy_(torch.where(idle, 1.0, 1.0 / lengths))
    shares = (heads.T @ above).addmm_(tails.T, below)
    shares = torch.linalg.solve_triangular(order.T, shares, upper=False)
    above.addmm_(heads, shares, alpha=-1.0)
    below.addmm_(tails, shares, alpha=-1.0)


def inverted(triangle: torch.Tensor) -> torch.Tensor:
    """The inverse of an upper triangle [p, p] without zeros on its diagonal, half by half."""
    size = len(triangle)
    if size <= _LEAF:
        unit = torch.eye(size, dtype=triangle.dtype)
        leaf: torch.Tensor = torch.linalg.solve_triangular(triangle, unit, upper=True)
        return leaf
    half = size // 2
    inverse = torch.zeros_like(triangle)
    inverse[:half, :half] = inverted(triangle[:half, :half])
    inverse[half:, half:] = inverted(triangle[half:, half:])
    inverse[:half, half:] = -inverse[:half, :half] @ (triangle[:half, half:] @ inverse[half:, half:])
    return inverse


def largest_column(triangle: torch.Tensor) -> float:
    """The 1-norm of a matrix."""
    return float(triangle.abs().sum(0).max())


def estimated_inverse_norm(triangle: torch.Tensor) -> float:
    """The 1-norm of the inverse of an upper triangle [p, p], or a little less.

    Hager's estimate ("Condition estimates", 1984), which is nearly always within a factor of three, at the cost of a
    few solutions.
    """
    size = len(triangle)
    point = torch.full((size, 1), 1.0 / size, dtype=triangle.dtype)
    norm = 0.0
    for _ in range(_LOOKS):
        image = torch.linalg.solve_triangular(triangle, point, upper=True)
        norm = max(norm, float(image.abs().sum()))
        slope = torch.linalg.solve_triangular(triangle.T, torch.sign(image), upper=False)
        steepest = int(slope.abs().argmax())
        if float(slope[steepest].abs()) <= float((slope.T @ point).abs()):
            break
        point = torch.zeros_like(point)
        point[steepest] = 1.0
    return norm
