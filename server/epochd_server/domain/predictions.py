"""What a prediction gives back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.models import ModelVersion


@dataclass(slots=True, kw_only=True, eq=False)
class Prediction:
    """Predictions for N rows, in their order. Never changed; not frozen, which would cost small ones dear.

    Attributes:
        version: The version that made them, or those that ``canary`` did not.
        values: Regression: of the model's precision, [N] for one target, else [N, t]. Classification: [N], the
            label of the most probable class: int64, or Python strings (dtype object).
        probabilities: [N] for two classes by one logit (of ``classes[1]``), else [N, C]; None unless asked for.
        logits: Shape as of probabilities; None unless asked for.
        canary: The second version, where it predicted some of the rows.
        canary_rows: Their positions, ascending.
    """

    version: ModelVersion
    values: NDArray[np.generic]
    probabilities: NDArray[np.floating] | None = None
    logits: NDArray[np.floating] | None = None
    canary: ModelVersion | None = None
    canary_rows: NDArray[np.int64] | None = None
