"""Metrics of predicted labels, most of them from the confusion matrix.

Legend: C classes; a confusion matrix [C, C] has true classes × predicted ones, as scikit-learn's.
"""

from __future__ import annotations

import numpy as np

from epochd_server.engine.metrics.predictions import ClassSample, Floats
from epochd_server.engine.metrics.segments import Segments


def confusion_matrix(sample: ClassSample) -> Floats:
    """Sums of weights [C, C]."""
    classes = sample.classes
    cells = sample.labels * classes + sample.predicted
    sums = np.bincount(cells, weights=sample.weights, minlength=classes * classes)
    return sums.astype(np.float64).reshape(classes, classes)


def accuracy(sample: ClassSample, members: Segments) -> Floats:
    """Share of rows whose class was predicted [M]."""
    right = (sample.labels == sample.predicted).astype(np.float64)
    return members.mean(right, sample.weights)


def balanced_accuracy(confusion: Floats) -> float:
    """Mean recall of the classes that occur; NaN where none does."""
    support = confusion.sum(1)
    occurs = support > 0
    return float((np.diag(confusion)[occurs] / support[occurs]).mean()) if occurs.any() else float("nan")


def class_scores(confusion: Floats) -> Floats:
    """Precision, recall and F1 of each class [3, C]; 0 where one is 0 / 0, as scikit-learn's zero_division=0."""
    right, predicted, true = np.diag(confusion), confusion.sum(0), confusion.sum(1)
    return np.stack([_ratios(right, predicted), _ratios(right, true), _ratios(2 * right, predicted + true)])


def binary_or_macro(sample: ClassSample, confusion: Floats, score: int) -> float:
    """A row of :func:`class_scores`: that of the second of two classes, or the macro average of more."""
    if sample.classes == 2:
        return float(class_scores(confusion)[score, 1])
    return macro(sample, confusion, score)


def macro(sample: ClassSample, confusion: Floats, score: int) -> float:
    """A row of :func:`class_scores`, averaged over the classes that occur or are predicted."""
    occurring = np.union1d(sample.labels, sample.predicted)
    return float(class_scores(confusion)[score, occurring].mean())


def micro(confusion: Floats) -> float:
    """Precision, recall and F1 over all classes together: with one class a row they are all the accuracy."""
    total = float(confusion.sum())
    return float(np.trace(confusion)) / total if total else 0.0


def _ratios(parts: Floats, wholes: Floats) -> Floats:
    return np.divide(parts, wholes, out=np.zeros_like(parts), where=wholes != 0)
