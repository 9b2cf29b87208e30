"""Validation: what is held out of a training, when it stops early, and how the model does on the held-out rows.

Example:
    >>> HoldOut(0.25, time="day")
    HoldOut(fraction=0.25, stratify=None, time='day', group=None)
    >>> EarlyStopping(patience=5).restore_best
    True
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochd.errors import invalid
from epochd.keys import Key, key_text

METRICS = (
    "mse",
    "rmse",
    "mae",
    "mape",
    "r2",
    "pinball",
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "precision_macro",
    "recall_macro",
    "f1_macro",
    "precision_micro",
    "recall_micro",
    "f1_micro",
    "roc_auc",
    "average_precision",
    "log_loss",
    "brier",
    "calibration_error",
)
"""What can be measured: those up to ``pinball`` of regressions, the others of classifiers; equal to scikit-learn's."""


@dataclass(frozen=True, slots=True)
class HoldOut:
    """A part of the rows is held out: at random, each class in proportion, the latest, or whole groups.

    Of a fleet, of each member. With folds only the way to split counts: leave ``fraction`` unset there.
    """

    fraction: float | None = None
    """Of the rows (of the groups), > 0 and < 1; None: 0.2."""

    stratify: bool | None = None
    """Whether each class is held out in proportion; None: for classifiers."""

    time: str | None = None
    """A column of numbers or texts such as ISO dates: the latest rows by it are held out."""

    group: str | None = None
    """A column of texts or integers: no value of it is on both sides."""

    def __post_init__(self) -> None:
        if sum((self.stratify is not None, self.time is not None, self.group is not None)) > 1:
            raise invalid("validation.split", "takes one of stratify, time and group")


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyStopping:
    """Ends a training that no longer gets better on the held-out rows."""

    patience: int = 10
    """Evaluations without an improvement after which training ends, >= 1."""

    metric: str | None = None
    """What is watched; None: the loss on the held-out rows."""

    min_delta: float = 0.0
    """By how much the best value must be beaten, >= 0."""

    restore_best: bool = True
    """Whether the model keeps the parameters of its best evaluation instead of its last ones."""

    every: int = 1
    """Epochs between two evaluations, >= 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassEvaluation:
    """One class against the rest, on the held-out rows."""

    precision: float
    """Share of the rows predicted to be of the class that are."""

    recall: float
    """Share of the class's rows that were predicted to be."""

    f1: float
    """Harmonic mean of the two."""

    support: float
    """Sum of the weights of the class's rows: their number where there are no weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationBin:
    """Held-out rows whose predicted class has a probability in the same tenth."""

    confidence: float
    """Mean of these probabilities."""

    accuracy: float
    """Share of the rows whose class was predicted."""

    weight: float
    """Sum of the rows' weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How a model does on its held-out rows; ``print(evaluation)`` shows it.

    Of a fleet the medians over its members; of a sweep that of the best combination, over its folds the means.
    """

    rows: int
    """Held-out rows."""

    loss: float
    """The training's loss on them."""

    metrics: Mapping[str, float]
    """The metrics that were asked for; NaN where one is not defined on these rows."""

    best_epoch: int | None = None
    """The epoch whose parameters the model has, where early stopping restored the best; None otherwise."""

    classes: Mapping[str | int, ClassEvaluation] = field(default_factory=dict)
    """Classifiers: each class, in the order of the model's classes."""

    confusion: NDArray[Any] | None = field(default=None, compare=False)
    """Classifiers: sums of weights [classes, classes], true ones × predicted ones; None otherwise."""

    calibration: tuple[CalibrationBin, ...] = ()
    """Classifiers: how right the model is where it is so sure."""

    loss_deviation: float | None = None
    """Cross-validation: standard deviation of the loss over folds."""

    deviations: Mapping[str, float] = field(default_factory=dict)
    """Cross-validation: those of the metrics."""

    best: Key | None = None
    """Sweeps: the best combination's key, without its fold."""

    def __str__(self) -> str:
        shown = {"loss": (self.loss, self.loss_deviation)}
        shown |= {name: (value, self.deviations.get(name)) for name, value in self.metrics.items()}
        parts = [f"{name} {_with_deviation(*value)}" for name, value in shown.items()]
        if self.best_epoch is not None:
            parts.append(f"of epoch {self.best_epoch:,}")
        if self.best is not None:
            parts.append(f"best {key_text(self.best)}")
        return ", ".join([f"{self.rows:,} rows", *parts])


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """One combination of hyperparameters in a cross-validation."""

    values: Mapping[str, Any]
    """Its hyperparameters by name; empty where none are swept."""

    losses: NDArray[np.float64] = field(compare=False)
    """The loss on each fold [folds]; NaN where a fold's model failed."""

    scores: Mapping[str, NDArray[np.float64]] = field(compare=False)
    """The metrics on each fold, [folds] each."""

    @property
    def loss(self) -> float:
        """The mean loss over folds."""
        return float(np.mean(self.losses))

    @property
    def loss_deviation(self) -> float:
        """The standard deviation of the loss over folds (of the sample, n − 1)."""
        return float(np.std(self.losses, ddof=1))

    @property
    def metrics(self) -> dict[str, float]:
        """The mean of each metric over folds."""
        return {name: float(np.mean(values)) for name, values in self.scores.items()}

    @property
    def deviations(self) -> dict[str, float]:
        """The standard deviation of each metric over folds (of the sample, n − 1)."""
        return {name: float(np.std(values, ddof=1)) for name, values in self.scores.items()}

    def __str__(self) -> str:
        names = [f"{name}={value:g}" for name, value in self.values.items()]
        parts = [f"loss {_with_deviation(self.loss, self.loss_deviation)}"]
        spread = self.deviations
        parts += [f"{name} {_with_deviation(mean, spread[name])}" for name, mean in self.metrics.items()]
        return "  ".join([*names, *parts])


class CrossValidation(Sequence[Combination]):
    """The combinations of a cross-validation, the smallest mean loss first; it prints as a table.

    Args:
        combinations: In that order.
        folds: How many folds there are.
    """

    def __init__(self, combinations: Sequence[Combination], folds: int) -> None:
        self._combinations = list(combinations)
        self.folds = folds

    @property
    def best(self) -> Combination:
        """That with the smallest mean loss."""
        return self._combinations[0]

    def __len__(self) -> int:
        return len(self._combinations)

    def __getitem__(self, index: Any) -> Any:
        return self._combinations[index]

    def __str__(self) -> str:
        return "\n".join([f"{self.folds} folds", *(f"  {one}" for one in self._combinations)])

    def __repr__(self) -> str:
        return f"<CrossValidation of {len(self):,} combinations over {self.folds} folds>"


def ranked(combinations: Sequence[Combination]) -> list[Combination]:
    """The smallest mean loss first, NaN last."""
    return sorted(combinations, key=lambda one: (math.isnan(one.loss), one.loss))


def _with_deviation(value: float, deviation: float | None) -> str:
    return f"{value:.6g}" if deviation is None else f"{value:.6g} ± {deviation:.2g}"
