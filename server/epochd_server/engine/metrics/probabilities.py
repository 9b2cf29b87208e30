"""Metrics of probabilities.

Legend: n rows, C classes, M members.
"""

from __future__ import annotations

import numpy as np

from epochd_server.domain.validation import CalibrationBin
from epochd_server.engine.metrics.predictions import ClassSample, Floats
from epochd_server.engine.metrics.segments import Segments

_EPS = float(np.finfo(np.float64).eps)
_EDGES = np.linspace(0.0, 1.0, 11)[1:-1]


def log_loss(sample: ClassSample, members: Segments) -> Floats:
    """Mean negative logarithm of the true class's probability, clipped to [2.2e-16, 1 − 2.2e-16]; [M]."""
    probabilities = np.clip(_of_true_class(sample), _EPS, 1 - _EPS)
    return members.mean(-np.log(probabilities), sample.weights)


def brier(sample: ClassSample, members: Segments) -> Floats:
    """Mean squared error of the second of two classes' probability; of more classes, summed over classes; [M]."""
    others = sample.probabilities.copy()
    others[np.arange(len(others)), sample.labels] -= 1
    squares = (others**2).sum(1)
    return members.mean(squares, sample.weights) / (2 if sample.classes == 2 else 1)


def calibration_error(sample: ClassSample) -> float:
    """Expected calibration error: by how much bins' confidence and accuracy differ, weighted by their rows.

    Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks (2017), equation 3, with 10 bins.
    """
    bins = calibration_bins(sample)
    total = sum(one.weight for one in bins)
    if not total:
        return float("nan")
    return sum(one.weight * abs(one.confidence - one.accuracy) for one in bins) / total


def calibration_bins(sample: ClassSample) -> tuple[CalibrationBin, ...]:
    """The bins (0, 0.1], (0.1, 0.2] … of the predicted class's probability that have any weight."""
    confidence = np.take_along_axis(sample.probabilities, sample.predicted[:, None], axis=1)[:, 0]
    weights, places = sample.row_weights, np.searchsorted(_EDGES, confidence)
    right = sample.labels == sample.predicted
    columns = (weights, weights * confidence, weights * right)
    sums = [np.bincount(places, column, minlength=len(_EDGES) + 1).tolist() for column in columns]
    return tuple(
        CalibrationBin(confidence=confident / weight, accuracy=hits / weight, weight=weight)
        for weight, confident, hits in zip(*sums, strict=True)
        if weight > 0
    )


def _of_true_class(sample: ClassSample) -> Floats:
    """[n]"""
    return np.take_along_axis(sample.probabilities, sample.labels[:, None], axis=1)[:, 0]
