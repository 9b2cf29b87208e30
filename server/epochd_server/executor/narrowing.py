"""Exact fits of folds without the features that say nothing in their training rows.

A feature that has one value in all rows that a fold is trained on (a category that only held-out rows have) leaves
least squares and Newton's method without a single best solution. A fold is fitted without it, as if its coefficient
were 0, which is what the solution of smallest norm has there.

Legend: n rows, d features, of which a fold has e; o outputs, p = e + bias coefficients of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.data import TrainingArrays
from epochd_server.domain.fit_choice import needs_independent
from epochd_server.domain.specs import LinearModel, TrainingSpec
from epochd_server.engine.cohort import CohortData
from epochd_server.executor.wire import Stacked

_WEIGHT = "linear.weight"
_OF_FEATURES: Mapping[str, float] = {"coefficients": 0.0, "standard_errors": np.nan}
"""Statistics that have a number for each feature, and before that of the bias → what those that are left out have."""


@dataclass(frozen=True, slots=True, eq=False)
class Narrowing:
    """Which features a fold is fitted with.

    Attributes:
        places: int64 [e], ascending.
        features: d.
    """

    places: NDArray[np.int64]
    features: int

    def model(self, spec: TrainingSpec) -> TrainingSpec:
        """The same training of a model with e features."""
        if not isinstance(spec.model, LinearModel):
            raise TypeError("linear models are fitted so")
        return replace(spec, model=replace(spec.model, in_features=len(self.places)))

    def rows(self, data: CohortData) -> CohortData:
        """The same rows with e features."""
        return replace(data, features=np.ascontiguousarray(data.features[:, self.places]))

    def parameters(self, named: Stacked) -> Stacked:
        """The parameters [M, …] of models with all d features."""
        return {
            name: self._widened(array, 0.0, self.features) if name == _WEIGHT else array
            for name, array in named.items()
        }

    def statistics(self, named: Stacked) -> Stacked:
        """What there is to know of the fits [M, …], with d features."""
        return {name: self._of_features(name, array) for name, array in named.items()}

    def _of_features(self, name: str, array: NDArray[np.floating]) -> NDArray[np.floating]:
        if name not in _OF_FEATURES:
            return array
        rest = array.shape[-1] - len(self.places)
        return self._widened(array, _OF_FEATURES[name], self.features + rest)

    def _widened(self, array: NDArray[np.floating], fill: float, width: int) -> NDArray[np.floating]:
        wide = np.full((*array.shape[:-1], width), fill, array.dtype)
        wide[..., self.places] = array[..., : len(self.places)]
        wide[..., self.features :] = array[..., len(self.places) :]
        return wide


def narrowing_of(spec: TrainingSpec, data: TrainingArrays, trained: NDArray[np.bool_]) -> Narrowing | None:
    """What a fold is fitted without; None where that is nothing, or would be everything.

    Args:
        spec: What is trained.
        data: The rows, with the features of this fold.
        trained: Bool [n], those that it is trained on.
    """
    if not isinstance(spec.model, LinearModel) or not needs_independent(spec.fit):
        return None
    counted = trained if data.weights is None else trained & (data.weights > 0)
    features = data.features[counted]
    tells = np.asarray((features != features[:1]).any(axis=0))
    if not spec.model.bias and len(features):
        tells |= features[0] != 0
    if tells.all() or not tells.any():
        return None
    return Narrowing(np.flatnonzero(tells), data.features.shape[1])
