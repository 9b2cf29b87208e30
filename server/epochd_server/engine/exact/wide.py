"""Least squares of members with many coefficients: :mod:`.least_squares_kernel` with its factor from :mod:`.panels`.

What the kernel does for each row and column (scales, refinement, sums) takes a small part of the time and stays its.

Legend: n rows of the member, d features, t targets, p = d + bias coefficients, q = p + t, r = min(n, p) rows of the
factor, or p with a penalty.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from epochd_server.domain.exact_fits import LeastSquaresFit
from epochd_server.engine.exact import columns
from epochd_server.engine.exact import least_squares_kernel as kernel
from epochd_server.engine.exact.panels import (
    CHUNK,
    absorb_rows,
    estimated_inverse_norm,
    inverted,
    largest_column,
)
from epochd_server.engine.exact.task import Doubles, ExactRows
from epochd_server.engine.exact.triangles import BLOCK


class WideMember:
    """One member on its way to its coefficients.

    Args:
        fit: The penalty.
        bias: Whether there is a constant.
        rows: All members' rows.
        member: Which.
    """

    def __init__(self, fit: LeastSquaresFit, bias: bool, rows: ExactRows, member: int) -> None:
        self._fit, self._bias, self._rows = fit, bias, rows
        self._start, self._count = int(rows.starts[member]), int(rows.counts[member])
        self._columns, self._targets = rows.features.shape[1] + bias, rows.targets.shape[1]
        self.scales = np.zeros(self._columns)
        self.facts = np.zeros(columns.FACTS)
        """[:data:`.columns.FACTS`]"""
        self.spreads = np.full(self._columns, np.nan)
        """[p] the diagonal of (Aᵀ W A)⁻¹; NaN with a penalty, where nobody asks."""
        kernel.begin_member(
            rows.features, rows.weights, self._start, self._count, bias, self.facts, self.scales
        )
        height = self._columns if fit.l2 > 0.0 else min(self._count, self._columns)
        self._factor = torch.zeros(height, self._columns + self._targets, dtype=torch.float64)

    @property
    def factor(self) -> Doubles:
        """R [r, q] in scaled columns, and Qᵀ y."""
        return np.asarray(self._factor)

    def factorise(self, may_go_on: Callable[[], bool]) -> bool:
        """Finds the factor; False where it was left before."""
        if self._fit.l2 > 0.0:
            # √l2 · I is a triangle already: the rows come below it
            roots = math.sqrt(self._fit.l2) * torch.from_numpy(self.scales)
            roots[: self._bias and not self._fit.penalize_bias] = 0.0
            self._factor.diagonal()[: self._columns] = roots
        chunks = range(self._start, self._start + self._count, CHUNK)
        return all(absorb_rows(self._factor, self._chunk(begin), may_go_on) for begin in chunks)

    def measure(self) -> bool:
        """Finds the condition number, and without a penalty the spreads; False where the rank is deficient."""
        self.facts[columns.CONDITION] = math.inf
        triangle = self._factor[:, : self._columns]
        if len(triangle) < self._columns or not bool((triangle.diagonal() != 0.0).all()):
            return False
        if self._fit.l2 > 0.0:
            number = largest_column(triangle) * estimated_inverse_norm(triangle)
        else:
            inverse = inverted(triangle)
            number = largest_column(triangle) * largest_column(inverse)
            self.spreads = np.asarray(inverse.square_().sum(1)) * self.scales**2
        self.facts[columns.CONDITION] = number
        return bool(number < columns.rank_limit(self._count, self._columns))

    def solve(self, coefficients: Doubles, residuals: Doubles, totals: Doubles) -> None:
        """Fills in coefficients [t, p], and squares of residuals and totals [t]; see the kernel."""
        rows, fit, width = self._rows, self._fit, self._columns
        kernel.finish_member(
            rows.features, rows.numbers, rows.weights, self._start, self._count,
            self._bias, float(fit.l2), fit.penalize_bias, float(self.facts[columns.WEIGHT]),
            coefficients, residuals, totals, self.scales, self.factor,
            np.zeros((width + self._targets, BLOCK)), np.zeros((self._targets, width)),
            np.zeros((self._targets, 2, width)), np.zeros((2, BLOCK)),
        )  # fmt: skip

    def _chunk(self, begin: int) -> torch.Tensor:
        """Some rows from ``begin`` on, [m, q], columns scaled."""
        rows, first = self._rows, int(self._bias)
        own = slice(begin, min(begin + CHUNK, self._start + self._count))
        chunk = torch.empty(own.stop - begin, self._columns + self._targets, dtype=torch.float64)
        values = np.asarray(chunk)
        values[:, :first] = self.scales[:first]
        np.multiply(rows.features[own], self.scales[first:], out=values[:, first : self._columns])
        values[:, self._columns :] = rows.numbers[own]
        if len(rows.weights):
            values *= np.sqrt(rows.weights[own])[:, None]
        return chunk
