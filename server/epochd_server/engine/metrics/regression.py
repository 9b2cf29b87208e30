"""Metrics of regressions: weighted means over rows, then means over targets, as scikit-learn's ``uniform_average``."""

from __future__ import annotations

import numpy as np

from epochd_server.engine.metrics.predictions import Floats, RegressionSample, average

_SMALLEST = float(np.finfo(np.float64).eps)


def mse(sample: RegressionSample) -> float:
    """Mean squared error."""
    return float(_squared_errors(sample).mean())


def rmse(sample: RegressionSample) -> float:
    """Root of the mean squared error of each target, averaged over targets."""
    return float(np.sqrt(_squared_errors(sample)).mean())


def mae(sample: RegressionSample) -> float:
    """Mean absolute error."""
    return float(average(np.abs(sample.targets - sample.predictions), sample.weights).mean())


def mape(sample: RegressionSample) -> float:
    """Mean absolute error relative to the target, whose magnitude counts as 2.2e-16 at least."""
    relative = np.abs(sample.predictions - sample.targets) / np.maximum(np.abs(sample.targets), _SMALLEST)
    return float(average(relative, sample.weights).mean())


def pinball(sample: RegressionSample, quantile: float) -> float:
    """Mean pinball loss: ``quantile`` times what lies above the prediction, 1 − ``quantile`` times what lies below."""
    difference = sample.targets - sample.predictions
    losses = np.where(difference >= 0, quantile * difference, (quantile - 1) * difference)
    return float(average(losses, sample.weights).mean())


def r2(sample: RegressionSample) -> float:
    """Coefficient of determination; of a constant target 1 where it is met exactly, else 0; NaN below two rows."""
    targets, weights = sample.targets, sample.weights
    if len(targets) < 2:
        return float("nan")
    rows = np.ones((len(targets), 1)) if weights is None else weights[:, None]
    left = (rows * (targets - sample.predictions) ** 2).sum(0)
    total = (rows * (targets - average(targets, weights)) ** 2).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = np.where(total != 0, 1 - left / total, np.where(left == 0, 1.0, 0.0))
    return float(scores.mean())


def _squared_errors(sample: RegressionSample) -> Floats:
    """[t]"""
    return average((sample.targets - sample.predictions) ** 2, sample.weights)
