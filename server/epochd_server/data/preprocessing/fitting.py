"""Fitting: from what was asked for and the training rows to what every row goes through.

Legend: N rows, n training rows, K members of a fleet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.columns import Columns
from epochd_server.data.preprocessing.automatic import choose_steps
from epochd_server.data.preprocessing.blocks import Block, StepProblem
from epochd_server.data.preprocessing.grouped import Learner
from epochd_server.data.preprocessing.reading import read_block
from epochd_server.data.preprocessing.steps import Walk, learn
from epochd_server.domain.data import quoted
from epochd_server.domain.errors import Violations
from epochd_server.domain.preprocessing import (
    Auto,
    Categories,
    Drop,
    FittedColumn,
    FittedPreprocessing,
    FittedStep,
    Passthrough,
    Preprocessing,
    Remainder,
    Step,
)

_PER_MEMBER = "per_member is for fleets by data.group_columns"
MAX_FEATURES = 100_000
MAX_LABEL_BYTES = 1_000_000
MAX_FOLD_LABEL_BYTES = 8_000_000
_MAX_REPORTED = 20
_SHOWN = 64
_REMAINDERS: dict[Remainder, Step] = {
    Remainder.AUTO: Auto(),
    Remainder.PASSTHROUGH: Passthrough(),
    Remainder.DROP: Drop(),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingRows:
    """The rows that steps learn from.

    Attributes:
        rows: Their numbers, int64 [n]; None: all.
        members: Fleets: the member of every row of the table, int64 [N].
        count: Fleets: K.
        weights: How much every row of the table counts, [N], above 0 for those of ``rows``; None where all count alike.
    """

    rows: NDArray[np.int64] | None = None
    members: NDArray[np.int64] | None = None
    count: int = 1
    weights: NDArray[np.floating] | None = None

    def learner(self) -> Learner:
        """Learns from these rows."""
        members, weights = self.members, self.weights
        if self.rows is not None:
            members = None if members is None else members[self.rows]
            weights = None if weights is None else weights[self.rows]
        return Learner(members, self.count, None if weights is None else weights.astype(np.float64))

    @classmethod
    def of(
        cls,
        trained: NDArray[np.bool_] | None,
        weights: NDArray[np.floating] | None,
        members: NDArray[np.int64] | None = None,
        count: int = 1,
    ) -> TrainingRows:
        """Those of some rows, bool [N] (None: of all), that have a weight above 0, [N] (None: all have)."""
        if weights is not None and not weights.all():
            trained = weights > 0 if trained is None else trained & (weights > 0)
        rows = None if trained is None else np.flatnonzero(trained)
        return cls(rows=rows, members=members, count=count, weights=weights)


def fit_preprocessing(
    asked: Preprocessing,
    columns: Columns,
    indices: Sequence[int],
    training: TrainingRows,
    violations: Violations,
    *,
    independent: bool = False,
) -> FittedPreprocessing | None:
    """What every row goes through.

    Args:
        asked: What is asked for.
        columns: Where the columns are; at least one row.
        indices: The feature columns, in order.
        training: The rows to learn from.
        violations: Takes everything that is wrong; paths are those of a TrainRequest.
        independent: Whether the features that are chosen for a column must not add up to a constant, because the
            model has no single best solution then.

    Returns:
        None where anything is wrong.
    """
    before = len(violations.found)
    plan = planned(asked, columns, indices, violations, has_members=training.members is not None)
    if plan is None:
        return None
    learner = training.learner()
    fitted: list[FittedColumn] = []
    for index in indices:
        one = ColumnFit(columns, index, *plan[index], independent=independent)
        if (column := one.fit(one.read(), training.rows, learner, violations)) is not None:
            fitted.append(column)
    if len(violations.found) > before:
        return None
    result = FittedPreprocessing(columns=distinct_names(fitted), statistics=learner.statistics())
    check_size(result, violations)
    return result if len(violations.found) == before else None


@dataclass(frozen=True, slots=True, eq=False)
class ColumnFit:
    """Fits the steps of one column.

    Attributes:
        columns: All columns.
        index: The one.
        steps: What is asked for.
        path: Where it was asked for; "": nowhere.
        independent: As for :func:`fit_preprocessing`.
    """

    columns: Columns
    index: int
    steps: tuple[Step, ...]
    path: str
    independent: bool

    def read(self) -> Block | None:
        """All rows of the column; None where nobody needs them."""
        return None if self.steps == (Drop(),) else read_block(self.columns, self.index)

    def fit(
        self,
        block: Block | None,
        rows: NDArray[np.int64] | None,
        learner: Learner,
        violations: Violations,
    ) -> FittedColumn | None:
        """What some rows make of the column; None, and a violation, where something is wrong with it.

        Args:
            block: What :meth:`read` gave.
            rows: Those to learn from, int64 [n]; None: all.
            learner: Learns from them.
            violations: Takes what is wrong.
        """
        name, kind = self.columns.names[self.index], self.columns.kind(self.index)
        if block is None:
            return FittedColumn(name=name, kind=kind, steps=(FittedStep(Drop()),), outputs=())
        if rows is not None:
            block = block.take(rows)
        steps, note = self.steps, ""
        if steps == (Auto(),):
            steps, note = choose_steps(block, kind, independent=self.independent)
        if steps == (Drop(),):
            return FittedColumn(name=name, kind=kind, steps=(FittedStep(Drop()),), outputs=(), note=note)
        learned: list[FittedStep] = []
        walk = Walk(name, block, learner.members)
        try:
            for step in steps:
                learned.append(learn(step, walk.block, learner))
                walk.statistics = learner.statistics()
                walk.go(learned[-1])
            outputs = walk.arrive().names
        except StepProblem as problem:
            told = problem.told(rows=rows)
            at = (
                f"{self.path}.steps[{len(learned)}]" if self.path and len(learned) < len(steps) else self.path
            )
            violations.add(at or self.columns.column_field(self.index), f"feature {name!r} {told}")
            return None
        return FittedColumn(name=name, kind=kind, steps=tuple(learned), outputs=outputs, note=note)


def planned(
    asked: Preprocessing,
    columns: Columns,
    indices: Sequence[int],
    violations: Violations,
    *,
    has_members: bool = False,
) -> dict[int, tuple[tuple[Step, ...], str]] | None:
    """The steps of each feature column, and where they were asked for ("": nowhere); None where anything is wrong.

    Args:
        asked: What is asked for.
        columns: Where the columns are.
        indices: The feature columns, in order.
        violations: Takes everything that is wrong.
        has_members: Whether steps can learn from each member's rows by themselves.
    """
    before = len(violations.found)
    by_name = {columns.names[index]: index for index in indices}
    rest: tuple[Step, ...] = (_REMAINDERS[asked.remainder],)
    plan = dict.fromkeys(indices, (rest, ""))
    for number, entry in enumerate(asked.columns):
        path = f"preprocess.columns[{number}]"
        for position, name in enumerate(entry.columns):
            index = by_name.get(name)
            if index is None:
                problem = f"{name[:_SHOWN]!r} is no feature column; there are {quoted(tuple(by_name))}"
                violations.add(f"{path}.columns[{position}]", problem)
            elif entry.steps:
                plan[index] = (entry.steps, path)
    if asked.is_per_member and not has_members:
        violations.add("preprocess", _PER_MEMBER)
    return plan if len(violations.found) == before else None


def distinct_names(columns: Sequence[FittedColumn]) -> tuple[FittedColumn, ...]:
    """The columns with distinct names of features: the second ``a`` becomes ``a#2``."""
    seen: dict[str, int] = {}
    renamed = []
    for column in columns:
        outputs = []
        for name in column.outputs:
            unique = name
            while unique in seen:
                seen[name] += 1
                unique = f"{name}#{seen[name]}"
            seen[unique] = 1
            outputs.append(unique)
        renamed.append(replace(column, outputs=tuple(outputs)))
    return tuple(renamed)


def check_size(fitted: FittedPreprocessing, violations: Violations) -> None:
    """Reports that no feature is left, or too many are, or that their labels, of all folds, take too much."""
    outputs = fitted.outputs
    if not outputs:
        notes = "; ".join(
            f"{column.name!r} {column.note or 'is dropped'}" for column in fitted.columns[:_MAX_REPORTED]
        )
        violations.add("preprocess", f"no feature is left: {notes}")
    if len(outputs) > MAX_FEATURES:
        violations.add("preprocess", f"gives {len(outputs):,} features, at most {MAX_FEATURES:,} are allowed")
    remedy = "are kept with a model; use hashing or max_categories"
    if (size := _label_bytes(fitted)) > MAX_LABEL_BYTES:
        limit = f"at most {MAX_LABEL_BYTES:,} {remedy}"
        violations.add("preprocess", f"the categories have {size:,} bytes in all, {limit}")
    elif (size := sum(map(_label_bytes, fitted.folds))) > MAX_FOLD_LABEL_BYTES:
        limit = f"at most {MAX_FOLD_LABEL_BYTES:,} {remedy}"
        violations.add("preprocess", f"the categories of all folds have {size:,} bytes, {limit}")


def _label_bytes(fitted: FittedPreprocessing) -> int:
    return sum(
        len(label.encode())
        for column in fitted.columns
        for step in column.steps
        if isinstance(step.state, Categories)
        for label in step.state.labels
    )
