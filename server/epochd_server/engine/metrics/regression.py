"""Metrics of regressions: weighted means over rows, then means over targets, as scikit-learn's ``uniform_average``.

Legend: M members, t targets.
"""

from __future__ import annotations

import numpy as np

from epochd_server.engine.metrics.predictions import Floats, RegressionSample
from epochd_server.engine.metrics.segments import Segments

_SMALLEST = float(np.finfo(np.float64).eps)


def mse(sample: RegressionSample, members: Segments) -> Floats:
    """Mean squared error [M]."""
    return _over_targets(_squared_errors(sample, members))


def rmse(sample: RegressionSample, members: Segments) -> Floats:
    """Root of the mean squared error of each target, averaged over targets [M]."""
    return _over_targets(np.sqrt(_squared_errors(sample, members)))


def mae(sample: RegressionSample, members: Segments) -> Floats:
    """Mean absolute error [M]."""
    return _over_targets(members.mean(np.abs(sample.targets - sample.predictions), sample.weights))


def mape(sample: RegressionSample, members: Segments) -> Floats:
    """Mean absolute error relative to the target, whose magnitude counts as 2.2e-16 at least [M]."""
    relative = np.abs(sample.predictions - sample.targets) / np.maximum(np.abs(sample.targets), _SMALLEST)
    return _over_targets(members.mean(relative, sample.weights))


def pinball(sample: RegressionSample, members: Segments, quantile: float) -> Floats:
    """Mean pinball loss [M]: ``quantile`` times what is above the prediction, 1 − ``quantile`` times what is below."""
    difference = sample.targets - sample.predictions
    losses = np.where(difference >= 0, quantile * difference, (quantile - 1) * difference)
    return _over_targets(members.mean(losses, sample.weights))


def r2(sample: RegressionSample, members: Segments) -> Floats:
    """Coefficient of determination [M]; of a constant target 1 where it is met exactly, else 0; NaN below two rows."""
    targets, weights = sample.targets, sample.weights
    left = members.sum((targets - sample.predictions) ** 2, weights)
    total = members.sum((targets - members.spread(members.mean(targets, weights))) ** 2, weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = np.where(total != 0, 1 - left / total, np.where(left == 0, 1.0, 0.0))
    return np.where(members.counts < 2, np.nan, _over_targets(scores))


def _squared_errors(sample: RegressionSample, members: Segments) -> Floats:
    """[M, t]"""
    return members.mean((sample.targets - sample.predictions) ** 2, sample.weights)


def _over_targets(values: Floats) -> Floats:
    """[M, t] → [M]"""
    mean: Floats = values.mean(axis=1)
    return mean
