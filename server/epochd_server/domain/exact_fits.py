"""Exact fits: what is minimised to the last digits rather than descended for a number of epochs.

All of them compute in float64 and return the result in the training's precision. Rows i have weights wᵢ.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import ClassVar

MAX_NEWTON_ITERATIONS = 10_000
MAX_LBFGS_ITERATIONS = 1_000_000
MAX_HISTORY = 100


class RankRule(enum.Enum):
    """What is done where features depend on each other."""

    REFUSE = "refuse"
    MINIMUM_NORM = "minimum_norm"
    """Of all best weights those with the smallest sum of squares; the bias is not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastSquaresFit:
    """Minimises Σ wᵢ (yᵢ − f(xᵢ))² + l2 ‖weights‖²: l2 is the ``alpha`` of scikit-learn's Ridge."""

    l2: float = 0.0
    rank: RankRule = RankRule.REFUSE
    penalize_bias: bool = False
    automatic: bool = False
    """Whether the server chose it, as ``auto`` asked."""
    batch_size: ClassVar[None] = None
    """All rows are taken together."""

    @property
    def epochs(self) -> int:
        """It is done at once."""
        return 1


@dataclass(frozen=True, slots=True, kw_only=True)
class NewtonFit:
    """Minimises Σ wᵢ lossᵢ + l2/2 ‖weights‖² by Newton's method: l2 is 1/C of scikit-learn's LogisticRegression."""

    l2: float = 0.0
    penalize_bias: bool = False
    max_iterations: int = 100
    tolerance: float = 1e-12
    automatic: bool = False
    """Whether the server chose it, as ``auto`` asked."""
    batch_size: ClassVar[None] = None
    """All rows are taken together."""

    @property
    def epochs(self) -> int:
        """Iterations at most."""
        return self.max_iterations


@dataclass(frozen=True, slots=True, kw_only=True)
class LbfgsFit:
    """Minimises Σ wᵢ lossᵢ + l2/2 ‖weights‖² by L-BFGS."""

    l2: float = 0.0
    penalize_bias: bool = False
    max_iterations: int = 1000
    tolerance: float = 1e-10
    history: int = 10
    automatic: bool = False
    """Whether the server chose it, as ``auto`` asked."""
    batch_size: ClassVar[None] = None
    """All rows are taken together."""

    @property
    def epochs(self) -> int:
        """Iterations at most."""
        return self.max_iterations


ExactFit = LeastSquaresFit | NewtonFit | LbfgsFit


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoFit:
    """Leaves the choice to :func:`epochd_server.domain.fit_choice.choose_fit`."""

    l2: float = 0.0
