"""Preprocessing for cross-validation: fitted to the training rows of each fold by itself, the features being the same.

A category, or a column that ``auto`` drops, may be missing in the training rows of one fold only. The features are then
those that any fold has, and 0 in every row of the folds that do not have them: no model learns anything of those.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from epochd_server.data.columns import Columns
from epochd_server.data.preprocessing.fitting import (
    ColumnFit,
    TrainingRows,
    check_size,
    distinct_names,
    planned,
)
from epochd_server.domain.errors import Violations
from epochd_server.domain.preprocessing import (
    Bucketize,
    FittedColumn,
    FittedPreprocessing,
    Preprocessing,
)


def fit_folds(
    asked: Preprocessing,
    columns: Columns,
    indices: Sequence[int],
    whole: TrainingRows,
    folds: Sequence[TrainingRows],
    violations: Violations,
    *,
    independent: bool = False,
) -> FittedPreprocessing | None:
    """What the rows of each fold's member go through; None where anything is wrong.

    Args:
        asked: What is asked for.
        columns: Where the columns are; at least one row.
        indices: The feature columns, in order.
        whole: All rows that any fold may be trained on.
        folds: The training rows of each.
        violations: Takes everything that is wrong with all rows, or else with those of the first such fold.
        independent: As for :func:`.fitting.fit_preprocessing`.
    """
    before = len(violations.found)
    plan = planned(asked, columns, indices, violations)
    if plan is None:
        return None
    merged: list[FittedColumn] = []
    apart: list[list[FittedColumn]] = []
    for index in indices:
        one = ColumnFit(columns, index, *plan[index], independent=independent)
        if (fitted := _fit(one, whole, folds, violations)) is not None:
            merged.append(fitted[0])
            apart.append(fitted[1])
    if len(violations.found) > before:
        return None
    result = _assembled(merged, apart)
    check_size(result, violations)
    empty = [fold for fold, steps in enumerate(result.folds) if not steps.inputs]
    if result.outputs and empty:
        violations.add("preprocess", f"no feature is left of the training rows of fold {empty[0]}")
    return result if len(violations.found) == before else None


def _assembled(
    merged: Sequence[FittedColumn], apart: Sequence[Sequence[FittedColumn]]
) -> FittedPreprocessing:
    """The columns with distinct names of features, and those of each fold with the same ones."""
    named = distinct_names(merged)
    folds = (
        tuple(replace(own, outputs=column.outputs) for column, own in zip(named, fold, strict=True))
        for fold in zip(*apart, strict=True)
    )
    return FittedPreprocessing(
        columns=named, folds=tuple(FittedPreprocessing(columns=fold) for fold in folds)
    )


def _fit(
    one: ColumnFit, all_rows: TrainingRows, folds: Sequence[TrainingRows], violations: Violations
) -> tuple[FittedColumn, list[FittedColumn]] | None:
    """What all rows make of a column, with the features that any fold has, and what each fold's do, at their places."""
    block = one.read()
    whole = one.fit(block, all_rows.rows, all_rows.learner(), violations)
    if whole is None:
        return None
    fitted: list[FittedColumn] = []
    for fold, training in enumerate(folds):
        found = Violations()
        column = one.fit(block, training.rows, training.learner(), found)
        if column is None:
            for violation in found.found:
                what = f"{violation.description} (of the training rows of fold {fold})"
                violations.add(violation.field, what)
            return None
        fitted.append(column)
    features = _features(whole, fitted)
    names = tuple(name for name, _ in features)
    return replace(whole, outputs=names), [_placed(column, whole, features) for column in fitted]


_Feature = tuple[str, int]
"""A feature by its name, and how many of the same column have that name before it: long labels are cut."""


def _features(whole: FittedColumn, folds: Sequence[FittedColumn]) -> list[_Feature]:
    """The features that any fold has: in the order of those of all rows, then the others."""
    if all(_is_alike(column, whole) for column in folds):
        return _numbered(whole)
    there = {feature for column in folds for feature in _numbered(column)}
    ordered = dict.fromkeys(feature for column in (whole, *folds) for feature in _numbered(column))
    return [feature for feature in ordered if feature in there]


def _placed(column: FittedColumn, whole: FittedColumn, features: list[_Feature]) -> FittedColumn:
    """A fold's column with the places of its features."""
    if features == _numbered(whole) and _is_alike(column, whole):
        return column
    places = {feature: place for place, feature in enumerate(features)}
    own = tuple(places[feature] for feature in _numbered(column))
    return column if own == tuple(range(len(features))) else replace(column, places=own)


def _is_alike(column: FittedColumn, whole: FittedColumn) -> bool:
    """Whether both have the same features but for their names: those of intervals have the edges in them."""
    if len(column.outputs) != len(whole.outputs):
        return False
    is_cut = any(isinstance(fitted.step, Bucketize) for fitted in whole.steps)
    return is_cut or column.outputs == whole.outputs


def _numbered(column: FittedColumn) -> list[_Feature]:
    seen: Counter[str] = Counter()
    features = []
    for name in column.outputs:
        features.append((name, seen[name]))
        seen[name] += 1
    return features
