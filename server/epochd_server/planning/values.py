"""The values of a request's rows: what can be trained on, and what is wrong with them.

Legend: N rows, K members.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.assembly import Fleet
from epochd_server.data.columns import Columns
from epochd_server.data.features import check_features, prepare_features
from epochd_server.data.fitness import UnusableRows, described, unfit_members
from epochd_server.data.grouping import Assignment, assign_members
from epochd_server.data.selection import Selection
from epochd_server.data.targets import Targets, prepare_targets
from epochd_server.data.weights import prepare_weights
from epochd_server.domain.commands import TrainCommand
from epochd_server.domain.data import DatasetReference
from epochd_server.domain.errors import Violations
from epochd_server.domain.specs import CLASSIFICATION_LOSSES


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Values:
    """What was read; None where a fault kept it from being read.

    Attributes:
        features: [N, d]; None too where they are a dataset's, which the worker reads by itself.
        targets: As the loss takes them.
        weights: [N]; None too where all rows count alike.
        fleet: The members; None too where one model is trained.
    """

    features: NDArray[np.floating] | None
    targets: Targets | None
    weights: NDArray[np.floating] | None
    fleet: Fleet | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reader:
    """Reads values.

    Attributes:
        command: What the client asks for.
        columns: The rows; at least one.
        selection: Which columns play which role.
        outputs: Number of outputs that the model was given, or None where the targets are to decide it.
        max_members: How many members a fleet may have.
    """

    command: TrainCommand
    columns: Columns
    selection: Selection
    outputs: int | None
    max_members: int

    def read(self, violations: Violations) -> Values:
        """Reads everything; what is wrong goes to ``violations``, or of a fleet takes out the members it is in."""
        before = len(violations.found)
        is_fleet = bool(self.command.roles.groups)
        unusable = UnusableRows() if is_fleet else None
        assignment = None
        if is_fleet:
            assignment = assign_members(self.columns, self.selection.groups, self.max_members, violations)
        values = self._read(violations, unusable)
        if assignment is None or unusable is None or len(violations.found) > before:
            return values
        return self._with_fleet(values, assignment, unusable, violations)

    def _read(self, violations: Violations, unusable: UnusableRows | None) -> Values:
        columns, selection, precision = self.columns, self.selection, self.command.precision
        features = None
        if isinstance(self.command.source, DatasetReference):
            check_features(columns, selection.features, precision, violations, unusable)
        else:
            features = prepare_features(columns, selection.features, precision, violations, unusable)
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
        precision = self.command.precision
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
