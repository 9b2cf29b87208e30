"""The arrays of some rows of a dataset, whose training was planned.

Legend: n rows, d features, t targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.columns import Columns
from epochd_server.data.features import prepare_features
from epochd_server.data.fitness import UnusableRows
from epochd_server.data.preprocessing.features import prepare_transformed
from epochd_server.data.selection import Selection
from epochd_server.data.targets import load_targets
from epochd_server.data.weights import load_weights
from epochd_server.domain.errors import EpochdError, Reason, Violations
from epochd_server.domain.specs import TrainingSpec
from epochd_server.domain.work import DatasetFile


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """Features [n, d], targets [n, t] or int64 [n], and weights [n] or None of some rows."""

    features: NDArray[np.floating]
    targets: NDArray[np.generic]
    weights: NDArray[np.floating] | None

    def part(self, rows: NDArray[np.bool_]) -> Arrays:
        """Some of the rows, bool [n]."""
        weights = None if self.weights is None else self.weights[rows]
        return Arrays(self.features[rows], self.targets[rows], weights)


@dataclass(frozen=True, slots=True, eq=False)
class ArrayReader:
    """Reads arrays.

    Attributes:
        file: What planning found out about the dataset.
        spec: What is trained.
        selection: Which columns play which role.
    """

    file: DatasetFile
    spec: TrainingSpec
    selection: Selection

    def read(self, columns: Columns) -> Arrays:
        """The arrays of some rows; of a fleet, of all.

        Raises:
            InvalidInput: The rows do not fit the plan.
        """
        file, spec, selection = self.file, self.spec, self.selection
        violations = Violations()
        features = self._features(columns, violations)
        violations.raise_if_any()
        if features is None:
            raise EpochdError(Reason.ARTIFACT_CORRUPT)
        is_fleet = file.groups is not None
        targets = load_targets(
            columns, selection.targets, spec.loss, spec.data_precision, file.classes, is_fleet=is_fleet
        )
        return Arrays(features, targets, load_weights(columns, selection.weight, spec.data_precision))

    def _features(self, columns: Columns, violations: Violations) -> NDArray[np.floating] | None:
        file, precision = self.file, self.spec.data_precision
        # What is unusable in a fleet's rows is known already.
        unusable = None if file.groups is None else UnusableRows()
        if file.preprocess is None:
            return prepare_features(columns, self.selection.features, precision, violations, unusable)
        members = None
        if file.groups is not None:
            members = np.repeat(np.arange(len(file.groups.offsets) - 1), np.diff(file.groups.offsets))
        return prepare_transformed(file.preprocess, columns, precision, violations, unusable, members)
