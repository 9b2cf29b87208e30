"""The words of validation: which rows are held out, what is measured on them, and when training stops early."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Metric(enum.Enum):
    """What is measured on held-out rows; each equals scikit-learn's function of that meaning.

    Regression: MSE to PINBALL, averaged over targets. Classification: ACCURACY to CALIBRATION_ERROR.
    """

    MSE = "mse"
    RMSE = "rmse"
    """Averaged over targets after the root."""
    MAE = "mae"
    MAPE = "mape"
    """A fraction, not percent."""
    R2 = "r2"
    """NaN with fewer than two rows."""
    PINBALL = "pinball"
    """At the quantile of a quantile loss; at the median otherwise."""
    ACCURACY = "accuracy"
    BALANCED_ACCURACY = "balanced_accuracy"
    PRECISION = "precision"
    """Of two classes that of the second; of more the macro average. So are recall and F1."""
    RECALL = "recall"
    F1 = "f1"
    PRECISION_MACRO = "precision_macro"
    RECALL_MACRO = "recall_macro"
    F1_MACRO = "f1_macro"
    PRECISION_MICRO = "precision_micro"
    RECALL_MICRO = "recall_micro"
    F1_MICRO = "f1_micro"
    ROC_AUC = "roc_auc"
    """Of more than two classes the macro average of one against the rest."""
    AVERAGE_PRECISION = "average_precision"
    """Of more than two classes the macro average of one against the rest."""
    LOG_LOSS = "log_loss"
    BRIER = "brier"
    """Of two classes the mean squared error of the second's probability; of more summed over classes."""
    CALIBRATION_ERROR = "calibration_error"
    """Expected calibration error of the predicted class's probability, 10 bins of equal width."""

    @property
    def greater_is_better(self) -> bool:
        """Whether a larger value is a better one."""
        return self not in _ERRORS

    @property
    def of_classes(self) -> bool:
        """Whether it measures classifiers; the others measure regressions."""
        return self not in REGRESSION_METRICS


REGRESSION_METRICS = frozenset({Metric.MSE, Metric.RMSE, Metric.MAE, Metric.MAPE, Metric.R2, Metric.PINBALL})

_ERRORS = (REGRESSION_METRICS - {Metric.R2}) | {Metric.LOG_LOSS, Metric.BRIER, Metric.CALIBRATION_ERROR}


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyStopping:
    """Ends a training that no longer gets better on the held-out rows.

    Attributes:
        metric: What is watched; None is the loss on the held-out rows.
        patience: Evaluations without an improvement after which training ends, ≥ 1.
        min_delta: By how much the best value must be beaten for an improvement, ≥ 0.
        restore_best: Whether the model keeps the parameters of its best evaluation, not those of its last epoch.
        every: Epochs between two evaluations, ≥ 1: epochs 0, every, 2·every … and the last are evaluated.
    """

    metric: Metric | None = None
    patience: int = 10
    min_delta: float = 0.0
    restore_best: bool = True
    every: int = 1


class Split(enum.Enum):
    """How held-out rows are chosen, within each member of a fleet."""

    RANDOM = "random"
    STRATIFIED = "stratified"
    """Each class in proportion."""
    TIME = "time"
    """The latest rows by a column; folds are then consecutive, and each is predicted from the rows before it."""
    GROUP = "group"
    """Whole groups by a column: no value of it is on both sides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldOut:
    """A part of the training rows is held out.

    Attributes:
        fraction: Of the rows (GROUP: of the groups), > 0 and < 1; at least one row on each side.
        split: How they are chosen.
        column: TIME and GROUP: the column that decides.
    """

    fraction: float = 0.2
    split: Split = Split.RANDOM
    column: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Folds:
    """Cross-validation: one member for each fold, trained on the other folds and measured on this one.

    Attributes:
        count: Number of folds, ≥ 2.
        split: How rows are dealt to folds.
        column: TIME and GROUP: the column that decides.
    """

    count: int
    split: Split = Split.RANDOM
    column: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenRows:
    """Rows of their own.

    Attributes:
        dataset: Digest of the dataset that holds them; None where the request does.
    """

    dataset: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What is held out of a training, and what is done with it.

    Attributes:
        rows: Which rows.
        metrics: What is measured on them beside the loss, at logged epochs and at the end.
        early_stopping: When training ends early; None is never.
    """

    rows: HoldOut | Folds | GivenRows
    metrics: tuple[Metric, ...] = ()
    early_stopping: EarlyStopping | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How a trained model does on its held-out rows; C classes.

    Attributes:
        rows: Number of held-out rows.
        loss: The training's loss on them.
        metrics: Values of the metrics that were asked for; NaN where one is not defined on these rows.
        best_epoch: The epoch whose parameters the model has, where early stopping restored the best.
        loss_deviation: Cross-validation: standard deviation over folds (n − 1); ``loss`` is then their mean.
        deviations: Cross-validation: those of the metrics.
        best: Sweeps: the key of the member with the smallest loss, without its fold; the evaluation is its own.
        classes: Classifiers: one a class, in the order of the model's classes.
        confusion: Classifiers: sums of weights, a row for each true class with a cell for each predicted one.
        calibration: Classifiers: the bins of the calibration error that hold a row.
    """

    rows: int
    loss: float
    metrics: tuple[tuple[Metric, float], ...] = ()
    best_epoch: int | None = None
    loss_deviation: float | None = None
    deviations: tuple[float, ...] = ()
    best: tuple[str | int | float, ...] | None = None
    classes: tuple[ClassEvaluation, ...] = ()
    confusion: tuple[tuple[float, ...], ...] = ()
    calibration: tuple[CalibrationBin, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassEvaluation:
    """One class against the rest.

    Attributes:
        support: Sum of the weights of the rows that are of it; their number without weights.
    """

    precision: float
    recall: float
    f1: float
    support: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationBin:
    """Rows whose predicted class has a probability in the same tenth.

    Attributes:
        confidence: Mean of these probabilities.
        accuracy: Share of the rows whose class was predicted.
        weight: Sum of the rows' weights.
    """

    confidence: float
    accuracy: float
    weight: float
