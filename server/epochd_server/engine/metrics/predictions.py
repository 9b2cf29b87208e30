"""From a model's outputs to what metrics compare with the targets.

Legend: n rows, t targets, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.specs import Loss, LossKind

Floats = NDArray[np.float64]
Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class RegressionSample:
    """Rows of a regression: targets and predictions [n, t], weights [n] or None."""

    targets: Floats
    predictions: Floats
    weights: Floats | None


@dataclass(frozen=True, slots=True, eq=False)
class ClassSample:
    """Rows of a classifier.

    Attributes:
        labels: int64 [n], the true classes.
        predicted: int64 [n], the most probable classes; the first of equally probable ones.
        probabilities: [n, C].
        weights: [n], or None where all rows count alike.
    """

    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probabilities: Floats
    weights: Floats | None

    @property
    def classes(self) -> int:
        """C."""
        return int(self.probabilities.shape[1])

    def part(self, rows: slice) -> ClassSample:
        """Some of the rows."""
        weights = None if self.weights is None else self.weights[rows]
        return ClassSample(self.labels[rows], self.predicted[rows], self.probabilities[rows], weights)

    @property
    def row_weights(self) -> Floats:
        """[n], ones where all rows count alike."""
        return np.ones(len(self.labels)) if self.weights is None else self.weights


Sample = RegressionSample | ClassSample


def sample_of(loss: Loss, outputs: Array, targets: Array, weights: Array | None) -> Sample:
    """The rows as metrics see them.

    Args:
        loss: What the model was trained with: it says what outputs mean.
        outputs: [n, outputs], as the model computes them; logits of a classifier.
        targets: [n, t]; int64 [n] for cross_entropy, [n, 1] of 0 and 1 for bce_with_logits.
        weights: [n], or None.
    """
    values: Floats = outputs.astype(np.float64)
    rows: Floats | None = None if weights is None else weights.astype(np.float64)
    if loss.kind is LossKind.CROSS_ENTROPY:
        return ClassSample(
            targets.astype(np.int64), values.argmax(1).astype(np.int64), _softmax(values), rows
        )
    if loss.kind is LossKind.BCE_WITH_LOGITS:
        second = _sigmoid(values[:, 0])
        predicted = (values[:, 0] > 0).astype(np.int64)
        labels = targets.reshape(-1).astype(np.int64)
        return ClassSample(labels, predicted, np.stack([1 - second, second], axis=1), rows)
    expected: Floats = targets.astype(np.float64).reshape(len(targets), -1)
    return RegressionSample(expected, _predicted(loss, values, expected.shape[1]), rows)


def _predicted(loss: Loss, outputs: Floats, targets: int) -> Floats:
    """What is predicted: rates of poisson_nll, means of gaussian_nll, else the outputs themselves."""
    if loss.kind is LossKind.POISSON_NLL and loss.log_input:
        rates: Floats = np.exp(outputs)
        return rates
    return outputs[:, :targets] if loss.kind is LossKind.GAUSSIAN_NLL else outputs


def _sigmoid(logits: Floats) -> Floats:
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))


def _softmax(logits: Floats) -> Floats:
    shares: Floats = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares
