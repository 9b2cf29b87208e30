"""Targets: columns → what a loss compares the outputs with.

Legend: N rows, t targets, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.columns import Columns
from epochd_server.data.features import float_type, unusable
from epochd_server.domain.data import Classes, quoted
from epochd_server.domain.errors import Violations
from epochd_server.domain.specs import CLASSIFICATION_LOSSES, Loss, LossKind, Precision

_TOO_LARGE = 2.0**63


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
) -> Targets | None:
    """The targets that a loss needs.

    Args:
        columns: Where they are; at least one row.
        indices: Which columns they are.
        loss: What they are for.
        precision: The type of regression targets.
        outputs: Number of outputs that the model was given, or None where the targets are to decide it.
        violations: Takes everything that is wrong with them.
    """
    if loss.kind not in CLASSIFICATION_LOSSES:
        return _regression(columns, indices, precision, violations)
    if len(indices) > 1:
        problem = f"{loss.kind.value} takes one column of class labels, {len(indices)} are given"
        violations.add(_role_field(columns), problem)
        return None
    if not indices:
        return None
    classes = _find_classes(columns, indices[0], loss, outputs, violations)
    if classes is None:
        return None
    return Targets(index_labels(columns.values(indices[0]), classes, loss, precision), classes)


def load_targets(
    columns: Columns,
    indices: Sequence[int],
    loss: Loss,
    precision: Precision,
    classes: Classes | None,
) -> NDArray[np.generic]:
    """The targets that :func:`prepare_targets` found to be good before, with the classes that it found."""
    if classes is None:
        matrix = np.empty((columns.rows, len(indices)), dtype=float_type(precision))
        columns.fill(indices, matrix)
        return matrix
    return index_labels(columns.values(indices[0]), classes, loss, precision)


def index_labels(
    labels: NDArray[np.generic], classes: Classes, loss: Loss, precision: Precision
) -> NDArray[np.generic]:
    """Labels [N] as the loss takes them: int64 [N] indices into ``classes``, or [N, 1] of 0 and 1 for bce.

    Raises:
        KeyError: A text label is none of the classes.
    """
    if labels.dtype == object:
        numbers = {label: number for number, label in enumerate(classes)}
        found = np.fromiter((numbers[label] for label in labels), np.int64, len(labels))
    else:
        found = np.searchsorted(np.asarray(classes, np.int64), labels.astype(np.int64)).astype(np.int64)
    if loss.kind is LossKind.BCE_WITH_LOGITS:
        return found.astype(float_type(precision)).reshape(-1, 1)
    return found


def _regression(
    columns: Columns, indices: Sequence[int], precision: Precision, violations: Violations
) -> Targets | None:
    before = len(violations.found)
    for index in indices:
        problem = _wrong_number_column(columns, index, precision)
        if problem is not None:
            violations.add(columns.column_field(index), f"target {columns.names[index]!r} {problem}")
    if not indices or len(violations.found) > before:
        return None
    matrix = np.empty((columns.rows, len(indices)), dtype=float_type(precision))
    columns.fill(indices, matrix)
    return Targets(matrix, None)


def _wrong_number_column(columns: Columns, index: int, precision: Precision) -> str | None:
    if columns.is_text(index):
        return "is text; this loss needs numbers (text labels need cross_entropy or bce_with_logits)"
    return unusable(columns.values(index), precision)


def _find_classes(
    columns: Columns, index: int, loss: Loss, outputs: int | None, violations: Violations
) -> Classes | None:
    values = columns.values(index)
    found: Classes | str
    if columns.is_text(index):
        found = _text_classes(values, loss, outputs)
    elif loss.kind is LossKind.BCE_WITH_LOGITS:
        found = _binary_classes(values)
    else:
        found = _integer_classes(values, outputs)
    if isinstance(found, str):
        violations.add(columns.column_field(index), f"target {columns.names[index]!r} {found}")
        return None
    return found


def _text_classes(values: NDArray[np.generic], loss: Loss, outputs: int | None) -> Classes | str:
    distinct = set(values.tolist())
    if None in distinct:
        return f"is missing in row {values.tolist().index(None)}, counting from 0"
    classes = tuple(sorted(distinct))
    if len(classes) < 2:
        return f"has one class only, {quoted(classes)}; at least two are needed"
    if loss.kind is LossKind.BCE_WITH_LOGITS and len(classes) > 2:
        return f"has {len(classes)} classes ({quoted(classes)}), but bce_with_logits takes two"
    if loss.kind is LossKind.CROSS_ENTROPY and outputs is not None and outputs != len(classes):
        return f"has {len(classes)} classes ({quoted(classes)}), but the model has {outputs} outputs"
    return classes


def _binary_classes(values: NDArray[np.generic]) -> Classes | str:
    zeros, ones = values == 0, values == 1
    sound = zeros | ones
    if not sound.all():
        row = int(np.argmin(sound))
        return f"is {values[row]:g} in row {row}, counting from 0; bce_with_logits takes labels 0 and 1"
    if zeros.all() or ones.all():
        return f"has one class only, {int(values[0])}; at least two are needed"
    return (0, 1)


def _integer_classes(values: NDArray[np.generic], outputs: int | None) -> Classes | str:
    if values.dtype.kind == "f":
        # NaN and infinity fail the comparisons.
        sound = (np.floor(values) == values) & (np.abs(values) < _TOO_LARGE)
        if not sound.all():
            row = int(np.argmin(sound))
            return f"is {values[row]:g} in row {row}, counting from 0; class labels are whole numbers or text"
    labels = values.astype(np.int64)
    if outputs is not None and outputs >= 2:
        return _given_classes(labels, outputs)
    classes = tuple(np.unique(labels).tolist())
    if len(classes) < 2:
        return f"has one class only, {classes[0]}; at least two are needed"
    return classes


def _given_classes(labels: NDArray[np.int64], outputs: int) -> Classes | str:
    """0 … outputs − 1, whether all of them occur or not, as in PyTorch."""
    sound = (labels >= 0) & (labels < outputs)
    if sound.all():
        return tuple(range(outputs))
    row = int(np.argmin(sound))
    return (
        f"is {labels[row]} in row {row}, counting from 0; with {outputs} outputs labels are 0 to "
        f"{outputs - 1}; leave out_features unset to have the classes taken from the labels"
    )


def _role_field(columns: Columns) -> str:
    tensors = columns.field.startswith("data.tensors")
    return "data.tensors.targets.shape" if tensors else "data.target_columns"
