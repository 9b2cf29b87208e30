"""What an exact fit of one model takes: memory beside its rows, and multiplications."""

from __future__ import annotations

from dataclasses import dataclass

from epochd_server.domain.exact_fits import LeastSquaresFit, NewtonFit
from epochd_server.domain.specs import Fit, LinearModel, Model

USUAL_ITERATIONS = 10
"""That Newton's method takes."""
AUTO_OPERATIONS = 10**13
"""Multiplications from which on ``auto`` takes L-BFGS instead of Newton's method: half an hour of one core."""
_CHUNK_ROWS = 4096
"""Rows that least squares takes into its factor at once."""


@dataclass(frozen=True, slots=True)
class ExactCost:
    """What the fit of one member takes.

    Attributes:
        nbytes: Of square matrices over the coefficients, and rows in work.
        operations: Multiplications.
    """

    nbytes: int
    operations: int

    def exceeds(self, limit: ExactCost) -> bool:
        """Whether it takes more of either."""
        return self.nbytes > limit.nbytes or self.operations > limit.operations


def exact_cost(fit: Fit, model: Model, rows: int) -> ExactCost | None:
    """About what a fit takes that solves for all coefficients at once; None of others, whose cost is that of descent.

    Args:
        fit: The fit.
        model: The model, its sizes filled in.
        rows: Of the member; the largest of a fleet.
    """
    if not isinstance(model, LinearModel):
        return None
    width, outputs = (model.in_features or 0) + model.bias, model.out_features or 1
    if isinstance(fit, LeastSquaresFit):
        return _least_squares(fit, width, outputs, rows)
    return _newton(width, outputs, rows) if isinstance(fit, NewtonFit) else None


def _least_squares(fit: LeastSquaresFit, width: int, targets: int, rows: int) -> ExactCost:
    """A factor R with Qᵀ y, without a penalty R⁻¹ too, and a chunk of rows; R has no more rows than the data."""
    height = width if fit.l2 else min(rows, width)
    inverse = 0 if fit.l2 or rows < width else width
    numbers = (height + min(rows, _CHUNK_ROWS)) * (width + targets) + 3 * inverse * width // 2
    return ExactCost(8 * numbers, rows * height * (width + targets) + inverse**3 // 3)


def _newton(width: int, outputs: int, rows: int) -> ExactCost:
    """Two triangles of one output, and of several outputs the second derivatives between all coefficients."""
    together = outputs * width
    if outputs == 1:
        return ExactCost(16 * width**2, USUAL_ITERATIONS * 2 * rows * width**2 + width**3)
    operations = USUAL_ITERATIONS * (rows * together**2 // 2 + together**3 // 6) + width**3
    return ExactCost(8 * (2 * width**2 + together**2), operations)
