"""The largest stable learning rate of a training that diverged, where it is cheap to know.

Gradient descent on a quadratic with curvatures λ converges for lr < 2 (1 + μ) / λ_max with momentum μ, and for
lr < 2 (1 + μ) / ((1 + 2 μ) λ_max) with Nesterov's (Polyak 1964; O'Donoghue and Candès 2015, section 2). Under mse on
full batches of a linear model the curvatures are the eigenvalues of 2 Xᵀ diag(w) X / (Σw · targets), X with a column
of ones for the bias, plus the weight decay.
"""

from __future__ import annotations

import numpy as np

from epochd_server.domain.specs import LinearModel, LossKind, OptimizerKind
from epochd_server.engine.rows import rows_of
from epochd_server.engine.task import CohortTask

_MOST_FEATURES = 256


def largest_stable_lr(task: CohortTask, member: int) -> float:
    """Of one member; NaN where it is not known: other models or losses, mini-batches, changing rates, large rows."""
    rows, values = rows_of(task), task.hyperparameters
    known = (
        isinstance(task.model, LinearModel)
        and task.loss.kind is LossKind.MSE
        and task.optimizer_kind is OptimizerKind.SGD
        and rows.batch[member] == rows.counts[member]
        and not rows.large[member]
        and rows.features.shape[1] <= _MOST_FEATURES
        and values.dampening[member] == 0
        and (task.schedule, task.warmup, task.clipping) == (None, None, None)
    )
    if not known:
        return float("nan")
    piece = slice(int(rows.starts[member]), int(rows.starts[member] + rows.counts[member]))
    x = rows.features[piece].astype(np.float64)
    if isinstance(task.model, LinearModel) and task.model.bias:
        x = np.column_stack([x, np.ones(len(x))])
    weights = np.ones(len(x)) if rows.weights is None else rows.weights[piece].astype(np.float64)
    targets = rows.targets.reshape(len(rows.targets), -1).shape[1]
    if not np.isfinite(x).all() or weights.sum() <= 0:
        return float("nan")
    gram = (x * weights[:, None]).T @ x * (2 / (weights.sum() * targets))
    curvature = float(np.linalg.eigvalsh(gram)[-1]) + float(values.weight_decay[member])
    momentum = float(values.momentum[member])
    reach = 2 * (1 + momentum) / (1 + 2 * momentum if values.nesterov else 1)
    return reach / curvature if curvature > 0 else float("nan")
