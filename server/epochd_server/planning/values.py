"""The values of a request's rows: what can be trained on, and what is wrong with them.

Legend: N rows, K members.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from epochd_server.data.assembly import Fleet
from epochd_server.data.columns import Columns, PartedColumns
from epochd_server.data.fitness import UnusableRows, described, unfit_members
from epochd_server.data.grouping import Assignment, assign_members
from epochd_server.data.selection import Selection
from epochd_server.data.targets import Targets, prepare_targets
from epochd_server.data.weights import prepare_weights
from epochd_server.domain.commands import TrainCommand
from epochd_server.domain.data import DatasetReference
from epochd_server.domain.errors import Violations
from epochd_server.domain.large_tables import HELD_OUT_BYTES, RowSize
from epochd_server.domain.preprocessing import FittedPreprocessing
from epochd_server.domain.specs import CLASSIFICATION_LOSSES
from epochd_server.domain.validation import GivenRows
from epochd_server.planning.given_rows import GivenReader
from epochd_server.planning.holding_out import NO_VALIDATION_ROWS, HeldRows, Splitter
from epochd_server.planning.large import LargeReader
from epochd_server.planning.preparing import FeatureReader, Fitting
from epochd_server.planning.read_values import Values


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reader:
    """Reads values.

    Attributes:
        command: What the client asks for.
        columns: The rows; at least one.
        selection: Which columns play which role.
        outputs: Number of outputs that the model was given, or None where the targets are to decide it.
        max_members: How many members a fleet may have.
        seed: The training's: it decides which rows are held out.
        validation_dataset: The file of the stored dataset with held-out rows, if there is one.
        max_data_bytes: What the features may take.
        size: How wide rows are.
    """

    command: TrainCommand
    columns: Columns
    selection: Selection
    outputs: int | None
    max_members: int
    seed: int
    validation_dataset: Path | None
    max_data_bytes: int
    size: RowSize

    def read(self, violations: Violations) -> Values:
        """Reads everything; what is wrong goes to ``violations``, or of a fleet takes out the members it is in."""
        if (large := self._large_reader()) is not None:
            values = large.read(violations)
            return values if values.targets is None else self._with_given(values, values.targets, violations)
        before = len(violations.found)
        is_fleet = bool(self.command.roles.groups)
        unusable = UnusableRows() if is_fleet else None
        assignment = None
        if is_fleet:
            assignment = assign_members(self.columns, self.selection.groups, self.max_members, violations)
        values = self._read(violations, unusable)
        targets = values.targets
        if len(violations.found) > before or targets is None:
            self._check_preprocessing(assignment, violations)
            return values
        if assignment is not None and unusable is not None:
            values = self._with_fleet(values, assignment, unusable, violations)
        values = self._preprocessed(self._hold_out(values, targets, violations), violations)
        return self._with_given(values, targets, violations)

    def _large_reader(self) -> LargeReader | None:
        """Who reads a table that is too large for memory; None where it is not, or its rows are sorted by member."""
        columns = self.columns
        if not self.size.is_large(columns.rows) or self.command.roles.groups:
            return None
        if not isinstance(columns, PartedColumns):
            return None
        return LargeReader(
            command=self.command,
            columns=columns,
            selection=self.selection,
            outputs=self.outputs,
            seed=self.seed,
            size=self.size,
        )

    def _hold_out(self, values: Values, targets: Targets, violations: Violations) -> Values:
        """The values with the rows that are held out, if any are."""
        validation, fleet = self.command.validation, values.fleet
        if validation is None or violations or isinstance(validation.rows, GivenRows):
            return values
        splitter = Splitter(
            columns=self.columns,
            selection=self.selection,
            labels=None if targets.classes is None else targets.values,
            weights=values.weights,
            assignment=None if fleet is None else fleet.assignment,
            seed=self.seed,
            size=self.size,
        )
        held = splitter.split(validation.rows, violations)
        return replace(values, held=held, fleet=_without(fleet, held.unfit, violations))

    def _preprocessed(self, values: Values, violations: Violations) -> Values:
        """The values with the features that preprocessing makes, where it is asked for."""
        fitting, fleet = self._fitting(), values.fleet
        if fitting is None or violations:
            return values
        assignment = None if fleet is None else fleet.assignment
        fitted = fitting.fit(assignment, values.held, values.weights, violations)
        if fitted is None:
            return values
        unusable = None if assignment is None else UnusableRows()
        features = self._features(fitted).read(
            self.columns,
            self.selection.features,
            violations,
            unusable,
            None if assignment is None else assignment.members,
        )
        if assignment is not None and unusable is not None:
            unfit = unfit_members(assignment, unusable, None, None)
            fleet = _without(fleet, unfit, violations)
        return replace(values, features=features, fleet=fleet, preprocess=fitted)

    def _check_preprocessing(self, assignment: Assignment | None, violations: Violations) -> None:
        """Reports what is wrong with preprocessing, where something else is wrong already."""
        fitting = self._fitting()
        if fitting is not None and not (self.command.roles.groups and assignment is None):
            fitting.fit(assignment, HeldRows(), None, violations)

    def _fitting(self) -> Fitting | None:
        if self.command.preprocess is None:
            return None
        return Fitting(
            asked=self.command.preprocess,
            columns=self.columns,
            indices=self.selection.features,
            precision=self.command.data_precision,
            max_data_bytes=self.max_data_bytes,
            fit_of_model=self.command.fit,
            keep=self._keeps_features,
        )

    def _features(self, fitted: FittedPreprocessing | None = None) -> FeatureReader:
        precision = self.command.data_precision
        return FeatureReader(precision=precision, keep=self._keeps_features, fitted=fitted)

    @property
    def _keeps_features(self) -> bool:
        """Whether features are read here: of a dataset the worker reads them by itself."""
        return not isinstance(self.command.source, DatasetReference)

    def _with_given(self, values: Values, targets: Targets, violations: Violations) -> Values:
        """The values with held-out rows of their own, where there are any."""
        validation = self.command.validation
        if validation is None or violations or not isinstance(validation.rows, GivenRows):
            return values
        reader = GivenReader(
            command=self.command,
            dataset=self.validation_dataset,
            roles=self.selection.roles(self.columns.names),
            classes=targets.classes,
            fleet=values.fleet,
            max_data_bytes=HELD_OUT_BYTES if values.large else self.max_data_bytes,
            preprocess=values.preprocess,
        )
        given = reader.read(violations)
        if given is None or given.groups is None:
            return replace(values, given=given)
        empty = np.flatnonzero(np.diff(given.groups.offsets) == 0).tolist()
        fleet = _without(values.fleet, dict.fromkeys(empty, NO_VALIDATION_ROWS), violations)
        return replace(values, given=given, fleet=fleet)

    def _read(self, violations: Violations, unusable: UnusableRows | None) -> Values:
        columns, selection, precision = self.columns, self.selection, self.command.data_precision
        features = None
        if self.command.preprocess is None:
            features = self._features().read(columns, selection.features, violations, unusable)
        return Values(
            features=features,
            targets=self._targets(violations, unusable),
            weights=prepare_weights(columns, selection.weight, precision, violations, unusable),
            fleet=None,
        )

    def _targets(self, violations: Violations, unusable: UnusableRows | None) -> Targets | None:
        loss, indices = self.command.loss, self.selection.targets
        if loss is None or not indices:
            return None
        precision = self.command.data_precision
        return prepare_targets(self.columns, indices, loss, precision, self.outputs, violations, unusable)

    def _with_fleet(
        self, values: Values, assignment: Assignment, unusable: UnusableRows, violations: Violations
    ) -> Values:
        """The values with the members that can be trained; violations where there are none."""
        loss, labels = self.command.loss, None
        if loss is not None and loss.kind in CLASSIFICATION_LOSSES and values.targets is not None:
            labels = values.targets.values
        unfit = unfit_members(assignment, unusable, labels, values.weights)
        if len(unfit) == len(assignment.keys):
            # What takes out every member is a fault of its columns.
            self._read(violations, None)
            violations.add("data.group_columns", f"no member can be trained: {described(unfit)}")
        return Values(
            features=values.features,
            targets=values.targets,
            weights=values.weights,
            fleet=Fleet(assignment, unfit),
        )


def _without(fleet: Fleet | None, unfit: Mapping[int, str], violations: Violations) -> Fleet | None:
    """A fleet of which further members cannot be trained; a violation where that takes out the last."""
    if fleet is None or not unfit:
        return fleet
    reasons = dict(sorted({**unfit, **fleet.unfit}.items()))
    if len(reasons) == len(fleet.assignment.keys):
        violations.add("validation.rows", f"no member can be trained: {described(reasons)}")
    return Fleet(fleet.assignment, reasons)
