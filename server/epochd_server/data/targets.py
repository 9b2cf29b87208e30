"""Targets: columns → what a loss compares the outputs with.

Legend: N rows, t targets, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.columns import Columns
from epochd_server.data.features import float_type, not_finite, wrong_value
from epochd_server.data.fitness import TARGET_NOT_FINITE, UnusableRows
from epochd_server.data.labels import find_classes
from epochd_server.domain.data import Classes, ColumnKind
from epochd_server.domain.errors import Violations
from epochd_server.domain.specs import CLASSIFICATION_LOSSES, Loss, LossKind, Precision

TEXT_TARGET = "is text; this loss needs numbers (text labels need cross_entropy or bce_with_logits)"
_NONE = np.array(None, dtype=object)


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Targets ready to be trained on, as ``TrainingArrays.targets``, and the classes of a classifier."""

    values: NDArray[np.generic]
    classes: Classes | None


def prepare_targets(
    columns: Columns,
    indices: Sequence[int],
    loss: Loss,
    precision: Precision,
    outputs: int | None,
    violations: Violations,
    unusable: UnusableRows | None = None,
) -> Targets | None:
    """The targets that a loss needs.

    Args:
        columns: Where they are; at least one row.
        indices: Which columns they are.
        loss: What they are for.
        precision: The type of regression targets.
        outputs: Number of outputs that the model was given, or None where the targets are to decide it.
        violations: Takes everything that is wrong with them.
        unusable: Fleets: takes the rows whose targets are missing or infinite instead; labels that are missing
            become one of the others.
    """
    if not are_targets(columns, indices, loss, violations):
        return None
    if loss.kind not in CLASSIFICATION_LOSSES:
        found = _regression(columns, indices, precision, violations, unusable)
        if loss.kind is LossKind.POISSON_NLL and found is not None:
            _refuse_negative(columns, indices, found, violations)
        return found
    labels = _labels(columns, indices[0], unusable)
    classes = find_classes(columns, indices[0], labels, loss, outputs, violations)
    if classes is None:
        return None
    return Targets(index_labels(labels, classes, loss, precision), classes)


def load_targets(
    columns: Columns,
    indices: Sequence[int],
    loss: Loss,
    precision: Precision,
    classes: Classes | None,
    *,
    is_fleet: bool = False,
) -> NDArray[np.generic]:
    """The targets that :func:`prepare_targets` found to be good before, with the classes that it found.

    Labels that are missing, as members of a fleet may have them that are not trained, become the first class.
    """
    if classes is None:
        return _matrix(columns, indices, precision)
    labels = columns.values(indices[0])
    if is_fleet:
        labels = np.where(_missing(labels), np.array(classes[0], labels.dtype), labels)
    return index_labels(labels, classes, loss, precision)


def index_labels(
    labels: NDArray[np.generic], classes: Classes, loss: Loss, precision: Precision
) -> NDArray[np.generic]:
    """Labels [N] as the loss takes them: int64 [N] indices into ``classes``, or [N, 1] of 0 and 1 for bce.

    Raises:
        KeyError: A text label is none of the classes.
    """
    if labels.dtype == object:
        numbers = {label: number for number, label in enumerate(classes)}
        found = np.fromiter(map(numbers.__getitem__, labels.tolist()), np.int64, len(labels))
    else:
        found = np.searchsorted(np.asarray(classes, np.int64), labels.astype(np.int64)).astype(np.int64)
    if loss.kind is LossKind.BCE_WITH_LOGITS:
        return found.astype(float_type(precision)).reshape(-1, 1)
    return found


def _labels(columns: Columns, index: int, unusable: UnusableRows | None) -> NDArray[np.generic]:
    """A column of labels [N]; those of a fleet without missing ones, unless all are."""
    labels = columns.values(index)
    if unusable is None:
        return labels
    missing = _missing(labels)
    if not missing.any() or missing.all():
        return labels
    unusable.add(TARGET_NOT_FINITE, missing)
    return np.where(missing, labels[int(np.argmin(missing))], labels)


def _missing(labels: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Which labels [N] are missing or infinite."""
    if labels.dtype != object:
        return not_finite(labels, Precision.FLOAT64)
    missing: NDArray[np.bool_] = np.equal(labels, _NONE)
    return missing


def _matrix(columns: Columns, indices: Sequence[int], precision: Precision) -> NDArray[np.floating]:
    matrix = np.empty((columns.rows, len(indices)), dtype=float_type(precision))
    with np.errstate(over="ignore"):
        columns.fill(indices, matrix)
    return matrix


def _regression(
    columns: Columns,
    indices: Sequence[int],
    precision: Precision,
    violations: Violations,
    unusable: UnusableRows | None,
) -> Targets | None:
    before = len(violations.found)
    for index in indices:
        problem = _wrong_number_column(columns, index, precision, unusable)
        if problem is not None:
            violations.add(columns.column_field(index), f"target {columns.names[index]!r} {problem}")
    if not indices or len(violations.found) > before:
        return None
    return Targets(_matrix(columns, indices, precision), None)


def _refuse_negative(
    columns: Columns, indices: Sequence[int], found: Targets, violations: Violations
) -> None:
    values = np.asarray(found.values, np.float64)
    for place, index in enumerate(indices):
        negative = values[:, place] < 0
        if negative.any():
            row = int(negative.argmax())
            problem = negative_problem(float(values[row, place]), row)
            violations.add(columns.column_field(index), f"target {columns.names[index]!r} {problem}")


def negative_problem(value: float, row: int) -> str:
    """What is wrong with a target below 0 of a loss on counts."""
    return f"is {value:g} in row {row}, counting from 0; poisson_nll needs >= 0"


def _wrong_number_column(
    columns: Columns, index: int, precision: Precision, unusable: UnusableRows | None
) -> str | None:
    if columns.is_text(index):
        return TEXT_TARGET
    if unusable is None:
        return wrong_value(columns.values(index), precision)
    unusable.add(TARGET_NOT_FINITE, not_finite(columns.values(index), precision))
    return None


def are_targets(columns: Columns, indices: Sequence[int], loss: Loss, violations: Violations) -> bool:
    """Whether columns can be a loss's targets by what they hold and how many they are; reports why not."""
    times = [index for index in indices if columns.kind(index) is ColumnKind.TIMESTAMP]
    for index in times:
        problem = f"target {columns.names[index]!r} is a timestamp; targets are numbers or class labels"
        violations.add(columns.column_field(index), problem)
    if times or not indices:
        return False
    if loss.kind in CLASSIFICATION_LOSSES:
        if len(indices) == 1:
            return True
        problem = f"{loss.kind.value} takes one column of class labels, {len(indices)} are given"
        violations.add(_role_field(columns), problem)
        return False
    return True


def _role_field(columns: Columns) -> str:
    tensors = columns.field.startswith("data.tensors")
    return "data.tensors.targets.shape" if tensors else "data.target_columns"
