"""Fits that go to the optimum itself, for ``client.train(…, fit=…)`` instead of an optimizer and epochs.

All of them compute in float64. ``l2`` penalises the weights, not the bias unless asked to; rows count by their weights.

Example:
    >>> LeastSquares(l2=1.0)
    LeastSquares(l2=1.0, rank='refuse', penalize_bias=False)
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal, TypeAlias, get_args

from epochd._typecheck import require

RankRule: TypeAlias = Literal["refuse", "minimum_norm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastSquares:
    """Least squares of a linear model with mse, by QR and to the last digits.

    Minimises Σ wᵢ (yᵢ − f(xᵢ))² + l2 ‖weights‖², so that l2 is the ``alpha`` of scikit-learn's Ridge.
    """

    l2: float = 0.0
    """Penalty, >= 0."""

    rank: RankRule = "refuse"
    """What is done where features depend on each other: fail, or take the best weights of smallest norm."""

    penalize_bias: bool = False
    """Whether the penalty counts the bias, too."""

    def __post_init__(self) -> None:
        require(self, "l2", Real)
        require(self, "penalize_bias", bool)
        if self.rank not in get_args(RankRule):
            raise TypeError(
                f"LeastSquares: rank must be one of {', '.join(get_args(RankRule))}, not {self.rank!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Newton:
    """Newton's method for a linear model with bce_with_logits or cross_entropy.

    Minimises Σ wᵢ lossᵢ + l2/2 ‖weights‖², so that l2 is 1/C of scikit-learn's LogisticRegression.
    """

    l2: float = 0.0
    """Penalty, >= 0."""

    penalize_bias: bool = False
    """Whether the penalty counts the bias, too."""

    max_iterations: int = 100
    """Iterations at most."""

    tolerance: float = 1e-12
    """Relative change of the objective that ends the fit."""

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class LBFGS:
    """L-BFGS with a line search, full batch, for linear and sequential models with smooth layers and a smooth loss.

    Minimises Σ wᵢ lossᵢ + l2/2 ‖weights‖².
    """

    l2: float = 0.0
    """Penalty of the weights of all layers, >= 0."""

    penalize_bias: bool = False
    """Whether the penalty counts biases, too."""

    max_iterations: int = 1000
    """Iterations at most."""

    tolerance: float = 1e-10
    """Largest gradient of the mean objective that ends the fit."""

    history: int = 10
    """Updates that are remembered."""

    def __post_init__(self) -> None:
        _check(self)
        require(self, "history", Integral)


Fit: TypeAlias = LeastSquares | Newton | LBFGS


def _check(fit: Newton | LBFGS) -> None:
    for name in ("l2", "tolerance"):
        require(fit, name, Real)
    require(fit, "penalize_bias", bool)
    require(fit, "max_iterations", Integral)
