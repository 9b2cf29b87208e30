"""From what a model computes to what a request asked for.

Legend: n rows, C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.data import Classes
from epochd_server.domain.errors import Violations
from epochd_server.domain.specs import Loss, LossKind

Array = NDArray[np.floating]


def sigmoid(logits: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow, in the precision of its input, elementwise."""
    small: Array = np.exp(-np.abs(logits))  # in (0, 1]
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))


def softmax(logits: Array) -> Array:
    """exp(x) / sum(exp(x)) over the last axis of [n, C], without overflow, in the precision of its input."""
    shares: Array = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


def predictions(loss: Loss, outputs: Array) -> Array:
    """What a regression predicts [n, t]: rates of poisson_nll, means of gaussian_nll, else its outputs themselves."""
    if loss.kind is LossKind.POISSON_NLL and loss.log_input:
        rates: Array = np.exp(outputs)
        return rates
    return outputs[:, : outputs.shape[1] // 2] if loss.kind is LossKind.GAUSSIAN_NLL else outputs


class Labels:
    """Gives each row of logits its most probable class.

    Args:
        classes: In the order of the outputs; with one output, that of ``classes[1]``.
    """

    def __init__(self, classes: Classes) -> None:
        kind = object if isinstance(classes[0], str) else np.int64
        self._classes: NDArray[np.generic] = np.array(classes, dtype=kind)

    def of(self, logits: Array) -> NDArray[np.generic]:
        """Labels [n] of logits [n] of the second of two classes, or [n, C]; the first of equal ones wins.

        Raises:
            InvalidInput: A row has no finite logits (a missing feature, say), and thus no class.
        """
        if logits.ndim == 1:
            _refuse_undefined(np.isnan(logits))
            return self._pick((logits > 0).astype(np.intp))
        _refuse_undefined(np.asarray(np.logical_not(np.isfinite(logits)).any(axis=1)))
        return self._pick(np.asarray(logits.argmax(axis=1)))

    def _pick(self, indices: NDArray[np.intp]) -> NDArray[np.generic]:
        labels: NDArray[np.generic] = self._classes[indices]
        return labels


def _refuse_undefined(undefined: NDArray[np.bool_]) -> None:
    """Raises for rows whose logits are not defined, naming the first."""
    if not undefined.any():
        return
    violations = Violations()
    count = int(undefined.sum())
    others = f" (and {count - 1} more)" if count > 1 else ""
    violations.add(
        "rows",
        f"row {int(undefined.argmax())}{others} has no class: its logits are not finite; fill in missing values",
    )
    violations.raise_if_any()
