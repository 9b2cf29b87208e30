"""The features of a request's rows: columns as they are, or what preprocessing makes of them.

Legend: N rows, d features, K members, F folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.columns import Columns
from epochd_server.data.features import check_features, prepare_features
from epochd_server.data.fitness import UnusableRows
from epochd_server.data.grouping import Assignment
from epochd_server.data.preprocessing.features import check_transformed, prepare_transformed
from epochd_server.data.preprocessing.fitting import TrainingRows, fit_preprocessing
from epochd_server.data.preprocessing.folding import fit_folds
from epochd_server.domain.data import ColumnRoles
from epochd_server.domain.errors import Violations
from epochd_server.domain.fit_choice import needs_independent
from epochd_server.domain.preprocessing import FittedPreprocessing, Preprocessing
from epochd_server.domain.specs import Fit, Precision
from epochd_server.planning.cost import ITEM_BYTES
from epochd_server.planning.holding_out import HeldRows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureReader:
    """Reads features.

    Attributes:
        precision: Their type.
        keep: Whether they are wanted; otherwise they are only checked, in the memory of one column: a worker reads
            them by itself.
        fitted: What columns go through; None where they are features as they are.
    """

    precision: Precision
    keep: bool
    fitted: FittedPreprocessing | None = None

    def read(
        self,
        columns: Columns,
        indices: Sequence[int],
        violations: Violations,
        unusable: UnusableRows | None = None,
        members: NDArray[np.int64] | None = None,
    ) -> NDArray[np.floating] | None:
        """The features [N, d], or [F, N, d] where each fold has its own; None where they are not kept, or not sound.

        Args:
            columns: The rows; at least one.
            indices: The feature columns.
            violations: Takes what no training can use.
            unusable: Fleets: takes rows with features that are not finite instead.
            members: Fleets: the member of each row, [N].
        """
        if self.fitted is not None and self.fitted.folds:
            return self._read_folds(self.fitted.folds, columns, indices, violations)
        if self.fitted is not None:
            if self.keep:
                return prepare_transformed(
                    self.fitted, columns, self.precision, violations, unusable, members
                )
            check_transformed(self.fitted, columns, self.precision, violations, unusable, members)
        elif self.keep:
            return prepare_features(columns, indices, self.precision, violations, unusable)
        else:
            check_features(columns, indices, self.precision, violations, unusable)
        return None

    def _read_folds(
        self,
        folds: Sequence[FittedPreprocessing],
        columns: Columns,
        indices: Sequence[int],
        violations: Violations,
    ) -> NDArray[np.floating] | None:
        """As :meth:`read`; reports what is wrong with the rows of the first fold that has anything wrong."""
        kept: list[NDArray[np.floating]] = []
        for fold, fitted in enumerate(folds):
            found = Violations()
            features = replace(self, fitted=fitted).read(columns, indices, found)
            for violation in found.found:
                violations.add(violation.field, f"{violation.description} (with fold {fold} held out)")
            if found:
                return None
            if features is not None:
                kept.append(features)
        return np.stack(kept) if kept else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fitting:
    """Fits what is asked for.

    Attributes:
        asked: What is asked for.
        columns: The rows; at least one.
        indices: The feature columns.
        precision: Of the features.
        max_data_bytes: What all features may take.
        fit_of_model: How the model is fitted: an exact one without l2 needs features that do not add up to its bias.
        keep: Whether features are kept: those of all folds of a cross-validation at once.
    """

    asked: Preprocessing
    columns: Columns
    indices: Sequence[int]
    precision: Precision
    max_data_bytes: int
    fit_of_model: Fit
    keep: bool = False

    def fit(
        self,
        assignment: Assignment | None,
        held: HeldRows,
        weights: NDArray[np.floating] | None,
        violations: Violations,
    ) -> FittedPreprocessing | None:
        """What every row goes through; None, and violations, where anything is wrong.

        Args:
            assignment: Fleets: the member of each row.
            held: Which rows are held out and thus not learned from; nor are those of weight 0.
            weights: [N], or None where all rows count alike.
            violations: Takes everything that is wrong.
        """
        fitted = self._fitted(assignment, held, weights, violations)
        if fitted is None:
            return None
        width, copies = len(fitted.outputs), max(len(fitted.folds), 1) if self.keep else 1
        if copies * self.columns.rows * width * ITEM_BYTES[self.precision] > self.max_data_bytes:
            limit = f"with which the data takes more than {self.max_data_bytes:,} bytes"
            folds = f" for each of {copies} folds" if copies > 1 else ""
            violations.add("preprocess", f"gives {width:,} features{folds}, {limit}")
            return None
        return fitted

    def _fitted(
        self,
        assignment: Assignment | None,
        held: HeldRows,
        weights: NDArray[np.floating] | None,
        violations: Violations,
    ) -> FittedPreprocessing | None:
        independent = needs_independent(self.fit_of_model)
        if held.folds is not None:
            return fit_folds(
                self.asked,
                self.columns,
                self.indices,
                TrainingRows.of(None, weights),
                [TrainingRows.of(rows, weights) for rows in held.trained_in_folds()],
                violations,
                independent=independent,
            )
        training = TrainingRows.of(
            None if held.held is None else ~held.held,
            weights,
            members=None if assignment is None else assignment.members,
            count=1 if assignment is None else len(assignment.keys),
        )
        return fit_preprocessing(
            self.asked, self.columns, self.indices, training, violations, independent=independent
        )


def named_features(roles: ColumnRoles, fitted: FittedPreprocessing | None) -> ColumnRoles:
    """The roles with the names of the features that columns become."""
    return roles if fitted is None else replace(roles, features=fitted.outputs)
