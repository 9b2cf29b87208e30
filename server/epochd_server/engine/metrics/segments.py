"""Sums and means over the rows of many members at once, each as it would be for the member alone.

Legend: N rows, M members, each of which has some.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from epochd_server.engine.metrics.predictions import Floats


class Segments:
    """Rows of members, one member after the other.

    Args:
        counts: int64 [M], rows of each, ≥ 1.
    """

    def __init__(self, counts: NDArray[np.int64]) -> None:
        self.counts = counts
        self._starts = np.cumsum(counts) - counts

    def slices(self) -> list[slice]:
        """Where each member's rows are."""
        ends = self._starts + self.counts
        return [slice(*pair) for pair in zip(self._starts.tolist(), ends.tolist(), strict=True)]

    def sum(self, values: Floats, weights: Floats | None) -> Floats:
        """Weighted sums: [N, …] → [M, …]."""
        if weights is not None:
            values = values * weights.reshape(-1, *[1] * (values.ndim - 1))
        return np.add.reduceat(values, self._starts, axis=0)

    def mean(self, values: Floats, weights: Floats | None) -> Floats:
        """Weighted means: [N, …] → [M, …]; NaN where a member has no weight."""
        totals = self.counts if weights is None else np.add.reduceat(weights, self._starts)
        with np.errstate(divide="ignore", invalid="ignore"):
            means: Floats = self.sum(values, weights) / totals.reshape(-1, *[1] * (values.ndim - 1))
        return means

    def spread(self, values: Floats) -> Floats:
        """Each member's value for each of its rows: [M, …] → [N, …]."""
        return np.repeat(values, self.counts, axis=0)
