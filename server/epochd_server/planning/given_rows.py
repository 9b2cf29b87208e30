"""Held-out rows that a request gives by themselves: read as the training's are, and held against what it found.

Legend: n held-out rows, K members.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.assembly import Fleet, assemble, locate
from epochd_server.data.columns import Columns, TensorColumns
from epochd_server.data.grouping import Assignment
from epochd_server.data.selection import Selection, select
from epochd_server.data.targets import Targets, index_labels, prepare_targets
from epochd_server.data.weights import prepare_weights
from epochd_server.domain.commands import TrainCommand
from epochd_server.domain.data import Classes, ColumnRoles, DatasetReference, TrainingArrays
from epochd_server.domain.errors import Violations
from epochd_server.domain.member_index import UNKNOWN, MemberIndex
from epochd_server.domain.preprocessing import FittedPreprocessing
from epochd_server.domain.work import DatasetFile
from epochd_server.planning.cost import ITEM_BYTES
from epochd_server.planning.preparing import FeatureReader, named_features
from epochd_server.planning.sources import open_source

_SHOWN = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GivenReader:
    """Reads held-out rows.

    Attributes:
        command: What the client asks for; it has such rows.
        dataset: The file, where they are a stored dataset that exists.
        roles: The training's columns, all named.
        classes: The training's classes; None for a regression.
        fleet: The training's members; None where one model is trained.
        max_data_bytes: What the features may take.
        preprocess: What the training's columns go through.
    """

    command: TrainCommand
    dataset: Path | None
    roles: ColumnRoles
    classes: Classes | None
    fleet: Fleet | None
    max_data_bytes: int
    preprocess: FittedPreprocessing | None = None

    def read(self, violations: Violations) -> TrainingArrays | DatasetFile | None:
        """The rows, or where the worker finds them; None, and violations, where they do not fit the training."""
        inner = Violations()
        found = self._read(inner)
        kind = "dataset" if isinstance(self.command.validation_source, DatasetReference) else "rows"
        for violation in inner.found:
            path = violation.field
            own = path.startswith(("data.table", "data.tensors", "data.dataset"))
            field = path.replace("data.", "validation.", 1) if own else f"validation.{kind}"
            violations.add(field, violation.description)
        return None if inner else found

    def _read(self, violations: Violations) -> TrainingArrays | DatasetFile | None:
        source = self.command.validation_source
        columns = None if source is None else open_source(source, self.dataset, violations)
        selection = None if columns is None else self._select(columns, violations)
        if columns is None or selection is None or violations:
            return None
        if not columns.rows:
            violations.add(columns.field, "has no rows")
            return None
        if self._data_bytes(columns, selection) > self.max_data_bytes:
            violations.add(columns.field, f"takes more than {self.max_data_bytes:,} bytes")
            return None
        return self._values(columns, selection, violations)

    def _data_bytes(self, columns: Columns, selection: Selection) -> int:
        outputs = selection.features if self.preprocess is None else self.preprocess.outputs
        width = len(outputs) + len(selection.targets) + (selection.weight is not None)
        return columns.rows * width * ITEM_BYTES[self.command.data_precision]

    def _select(self, columns: Columns, violations: Violations) -> Selection | None:
        roles = replace(self.roles, split=None)
        if not isinstance(columns, TensorColumns):
            return select(columns.names, roles, violations)
        given = (len(columns.roles.features), len(columns.roles.targets))
        wanted = (len(roles.features), len(roles.targets))
        if given != wanted or roles.groups or roles.weight:
            shapes = f"{wanted[0]} features and {wanted[1]} targets"
            problem = f"must be as the training's rows: {shapes}, without keys and weights"
            violations.add(columns.field, problem)
            return None
        return select(columns.names, columns.roles, violations)

    def _values(
        self, columns: Columns, selection: Selection, violations: Violations
    ) -> TrainingArrays | DatasetFile | None:
        precision = self.command.data_precision
        # a worker that reads the training's rows from a file can read these too
        path = self.dataset if isinstance(self.command.source, DatasetReference) else None
        weights = prepare_weights(columns, selection.weight, precision, violations)
        targets = self._targets(columns, selection, violations)
        fleet = None if self.fleet is None else self._fleet(self.fleet, columns, selection, violations)
        reader = FeatureReader(precision=precision, keep=path is None, fitted=self.preprocess)
        members = None if fleet is None else fleet.assignment.members
        features = reader.read(columns, selection.features, violations, members=members)
        if violations or targets is None:
            return None
        if features is None:
            if path is None:
                return None
            return locate(path, self.roles, self.classes, fleet, preprocess=self.preprocess)
        return assemble(features, targets, weights, fleet, named_features(self.roles, self.preprocess))

    def _targets(self, columns: Columns, selection: Selection, violations: Violations) -> Targets | None:
        loss, precision = self.command.loss, self.command.data_precision
        if loss is None:
            return None
        if self.classes is None:
            return prepare_targets(columns, selection.targets, loss, precision, None, violations)
        index = selection.targets[0]
        labels = columns.values(index)
        unseen = _unseen(labels, self.classes)
        if not unseen.any():
            return Targets(index_labels(labels, self.classes, loss, precision), self.classes)
        row, count = int(np.argmax(unseen)), int(np.count_nonzero(unseen))
        more = f" and {count - 1:,} more" if count > 1 else ""
        problem = (
            f"is {str(labels[row])[:_SHOWN]!r} in row {row}{more}, counting from 0, which is no class of the"
        )
        violations.add(
            columns.column_field(index), f"target {columns.names[index]!r} {problem} training's rows"
        )
        return None

    def _fleet(
        self, fleet: Fleet, columns: Columns, selection: Selection, violations: Violations
    ) -> Fleet | None:
        """The members of the rows; those without any row are no fault here."""
        keys = fleet.assignment.keys
        for index, column in zip(selection.groups, keys.columns, strict=True):
            if columns.is_text(index) != (column.dtype == object):
                kinds = ("text", "numbers") if columns.is_text(index) else ("numbers", "text")
                problem = (
                    f"key {columns.names[index]!r} holds {kinds[0]}, but {kinds[1]} in the training's rows"
                )
                violations.add(columns.column_field(index), problem)
        if violations:
            return None
        members = MemberIndex(keys).find([columns.values(index) for index in selection.groups])
        unknown = members == UNKNOWN
        if unknown.any():
            row, count = int(np.argmax(unknown)), int(np.count_nonzero(unknown))
            problem = f"the key of row {row}, counting from 0, is of no member ({count:,} rows in all)"
            violations.add(columns.column_field(selection.groups[0]), problem)
            return None
        return Fleet(Assignment(keys, members), fleet.unfit)


def _unseen(labels: NDArray[np.generic], classes: Classes) -> NDArray[np.bool_]:
    """Bool [n]: labels that are no class."""
    if labels.dtype == object:
        known = frozenset(classes)
        return np.fromiter((label not in known for label in labels.tolist()), np.bool_, len(labels))
    if isinstance(classes[0], str):
        return np.ones(len(labels), np.bool_)
    return ~np.isin(labels, np.asarray(classes, np.int64))
