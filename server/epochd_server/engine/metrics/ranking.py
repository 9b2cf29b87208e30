"""Metrics of rankings: how well scores put rows of a class before the others. Ties count once, weights are exact.

Legend: n rows, T distinct scores.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from epochd_server.engine.metrics.predictions import ClassSample, Floats

_Score = Callable[[NDArray[np.bool_], Floats, Floats], float]


def roc_auc(sample: ClassSample) -> float:
    """Area under the ROC curve of the second of two classes; of more, the mean of each against the rest.

    NaN where a class that it takes does not occur, or no other does.
    """
    return _over_classes(sample, _area)


def average_precision(sample: ClassSample) -> float:
    """Average precision of the second of two classes; of more, the mean of each against the rest.

    A class that does not occur has 0.
    """
    return _over_classes(sample, _precision)


def _over_classes(sample: ClassSample, score: _Score) -> float:
    weights = sample.row_weights
    classes = [1] if sample.classes == 2 else range(sample.classes)
    scores = [score(sample.labels == one, sample.probabilities[:, one], weights) for one in classes]
    return float(np.mean(scores))


def _area(positive: NDArray[np.bool_], scores: Floats, weights: Floats) -> float:
    if positive.all() or not positive.any():
        return float("nan")
    hits, misses = _cumulated(positive, scores, weights)
    if not hits[-1] or not misses[-1]:
        return float("nan")
    widths, heights = np.diff(misses, prepend=0.0), hits + np.concatenate([[0.0], hits[:-1]])
    return float((widths * heights).sum() / (2 * hits[-1] * misses[-1]))


def _precision(positive: NDArray[np.bool_], scores: Floats, weights: Floats) -> float:
    """The sum over scores, descending, of the gain in recall times the precision."""
    hits, misses = _cumulated(positive, scores, weights)
    if not hits[-1]:
        return 0.0
    # each gain is > 0 only where there is a hit, and thus something to divide by
    gains = np.diff(hits, prepend=0.0)
    taken = hits + misses
    precision = np.divide(hits, taken, out=np.zeros_like(hits), where=taken != 0)
    return float((gains * precision).sum() / hits[-1])


def _cumulated(positive: NDArray[np.bool_], scores: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Weights [T] of positive and of other rows whose score is at least the first, second … largest one."""
    order = np.argsort(-scores, kind="stable")
    ordered, hit, weight = scores[order], positive[order], weights[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    return np.cumsum(np.where(hit, weight, 0.0))[last], np.cumsum(np.where(hit, 0.0, weight))[last]
