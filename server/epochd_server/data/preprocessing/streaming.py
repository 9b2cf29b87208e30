"""Fitting to tables too large for memory: each step learns from its column in one pass or a few, some rows at a time.

What is learned is what :mod:`.fitting` would learn of all rows at once; means and deviations are to rounding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.columns import Columns, PartedColumns
from epochd_server.data.preprocessing.automatic import Traits
from epochd_server.data.preprocessing.blocks import (
    Block,
    Numbers,
    StepProblem,
    Texts,
    as_labels,
    as_numbers,
    object_array,
)
from epochd_server.data.preprocessing.buckets import inner_edges
from epochd_server.data.preprocessing.categories import chosen_categories
from epochd_server.data.preprocessing.fitting import check_size, distinct_names, planned
from epochd_server.data.preprocessing.grouped import Learner
from epochd_server.data.preprocessing.imputing import NOTHING, middle, most_frequent_text
from epochd_server.data.preprocessing.reading import read_block
from epochd_server.data.preprocessing.scaling import learn_deviation, learn_range
from epochd_server.data.preprocessing.selecting import Floats, StreamedValues
from epochd_server.data.preprocessing.steps import Walk, learn
from epochd_server.domain.errors import Violations
from epochd_server.domain.preprocessing import (
    Affine,
    Auto,
    Bucketize,
    Categories,
    Drop,
    Edges,
    Fill,
    Filled,
    FittedColumn,
    FittedPreprocessing,
    FittedStep,
    Impute,
    MinMax,
    OneHot,
    Ordinal,
    Preprocessing,
    Standardize,
    Step,
)

_MOST_DISTINCT = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class PartRows:
    """The rows of a part to learn from.

    Attributes:
        chosen: Bool [n]; None is all.
        weights: [n], how much each row of the part counts, above 0 for those that are chosen; None: all count alike.
    """

    chosen: NDArray[np.bool_] | None = None
    weights: NDArray[np.floating] | None = None


Training = Callable[[Columns, int], PartRows]
"""Those of a part, the first row of which has that place."""


def fit_streamed(
    asked: Preprocessing,
    columns: PartedColumns,
    rows: int,
    indices: Sequence[int],
    training: Training,
    violations: Violations,
    *,
    independent: bool = False,
) -> FittedPreprocessing | None:
    """What every row goes through; None where anything is wrong.

    Args:
        asked: What is asked for.
        columns: Where the columns are; at least one row.
        rows: How many are read at a time.
        indices: The feature columns, in order.
        training: The rows to learn from.
        violations: Takes everything that is wrong; paths are those of a TrainRequest.
        independent: Whether the features that are chosen for a column must not add up to a constant.
    """
    before = len(violations.found)
    plan = planned(asked, columns, indices, violations)
    if plan is None:
        return None
    fitted: list[FittedColumn] = []
    for index in indices:
        steps, path = plan[index]
        column = _Column(columns, rows, index, training)
        try:
            fitted.append(column.fit(steps, independent=independent))
        except StepProblem as problem:
            at = f"{path}.steps[{column.step}]" if path and column.step < len(steps) else path
            told = problem.told(column.first)
            violations.add(at or columns.column_field(index), f"feature {columns.names[index]!r} {told}")
    if len(violations.found) > before:
        return None
    result = FittedPreprocessing(columns=distinct_names(fitted))
    check_size(result, violations)
    return result if len(violations.found) == before else None


@dataclass(slots=True, eq=False)
class _Column:
    """A column on its way through its steps.

    Attributes:
        step: The step that learns now.
        first: The place of the first row that it looks at.
    """

    columns: PartedColumns
    rows: int
    index: int
    training: Training
    step: int = 0
    first: int = 0

    def fit(self, steps: tuple[Step, ...], *, independent: bool) -> FittedColumn:
        name, kind = self.columns.names[self.index], self.columns.kind(self.index)
        note = ""
        if steps == (Auto(),):
            traits = Traits()
            for part in self.parts(()):
                traits.add(part.block)
            steps, note = traits.steps(kind, independent=independent)
        if steps == (Drop(),):
            return FittedColumn(name=name, kind=kind, steps=(FittedStep(Drop()),), outputs=(), note=note)
        learned: list[FittedStep] = []
        for self.step, step in enumerate(steps):
            learned.append(_learn(step, lambda so_far=tuple(learned): self.parts(so_far)))  # type: ignore[misc]
        self.step = len(steps)
        outputs = next(self._walks(learned))[0].arrive().names
        return FittedColumn(name=name, kind=kind, steps=tuple(learned), outputs=outputs, note=note)

    def parts(self, learned: Sequence[FittedStep]) -> Iterator[_Part]:
        """The training rows, some at a time, after the steps that have learned."""
        return (_Part(walk.block, weights) for walk, weights in self._walks(learned))

    def _walks(self, learned: Sequence[FittedStep]) -> Iterator[tuple[Walk, Floats | None]]:
        for first, part in self.columns.parts(self.rows):
            self.first = first
            block = read_block(part, self.index)
            training = self.training(part, first)
            weights = None if training.weights is None else training.weights.astype(np.float64)
            if training.chosen is not None:
                block = block.take(np.flatnonzero(training.chosen))
                weights = None if weights is None else weights[training.chosen]
            walk = Walk(self.columns.names[self.index], block)
            for fitted in learned:
                walk.go(fitted)
            yield walk, weights


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Some of the training rows, and how much they count, [n]; None: all count alike."""

    block: Block
    weights: Floats | None


Parts = Callable[[], Iterator[_Part]]


def _learn(step: Step, parts: Parts) -> FittedStep:
    """A step with what it learns.

    Raises:
        StepProblem: It can do nothing with the column.
    """
    match step:
        case Standardize():
            found = [learn_deviation(step, values) for values in _numbers(parts, "standardize")]
            return FittedStep(step, Affine(center=_first(found, 0), scale=_first(found, 1)))
        case MinMax():
            found = [learn_range(step, values) for values in _numbers(parts, "min_max")]
            return FittedStep(step, Affine(center=_first(found, 0), scale=_first(found, 1), low=step.low))
        case Impute():
            return FittedStep(step, _learn_fill(step, parts))
        case OneHot() | Ordinal():
            return FittedStep(step, _learn_categories(step, parts))
        case Bucketize(buckets=int()):
            return FittedStep(step, _learn_edges(step, parts))
    for part in parts():  # it learns nothing, but may refuse values
        fitted = learn(step, part.block, Learner())
    return fitted


def _numbers(parts: Parts, step: str) -> list[StreamedValues]:
    """The columns that one column has become."""
    width = len(as_numbers(next(parts()).block, step).names)

    def of(place: int) -> StreamedValues:
        return StreamedValues(
            lambda: ((as_numbers(part.block, step).values[:, place], part.weights) for part in parts())
        )

    return [of(place) for place in range(width)]


def _first(found: Sequence[tuple[NDArray[np.float64], ...]], place: int) -> tuple[float, ...]:
    return tuple(float(one[place][0]) for one in found)


def _learn_fill(step: Impute, parts: Parts) -> Filled:
    block = next(parts()).block
    if step.fill is Fill.CONSTANT or not isinstance(block, Numbers | Texts):
        state = learn(step, block, Learner()).state
        if not isinstance(state, Filled):
            raise TypeError("an impute step learns what it fills in")
        return state
    if isinstance(block, Numbers):
        columns = _numbers(parts, "impute")
        if not all(values.counts.any() for values in columns):
            raise StepProblem(NOTHING)
        return Filled(numbers=tuple(float(middle(step.fill, values)[0]) for values in columns))
    if step.fill is not Fill.MOST_FREQUENT:
        learn(step, block, Learner())  # refuses it
    distinct, counts, _ = _counted(parts, "impute")
    return most_frequent_text(distinct, counts)


def _learn_categories(step: OneHot | Ordinal, parts: Parts) -> Categories:
    are_texts = isinstance(next(parts()).block, Texts)
    distinct, counts, missing = _counted(parts, "one_hot" if isinstance(step, OneHot) else "ordinal")
    if isinstance(step, Ordinal) and step.categories:
        return Categories(labels=step.categories)
    return chosen_categories(step, distinct, counts, missing=missing, are_texts=are_texts)


def _learn_edges(step: Bucketize, parts: Parts) -> Edges:
    learn(
        Bucketize(edges=(0.0,)), next(parts()).block, Learner()
    )  # refuses what is not one column of numbers
    (values,) = _numbers(parts, "bucketize")
    if not values.counts.any():
        raise StepProblem("has no value in any training row: there are no quantiles")
    return inner_edges(values.quantiles(np.linspace(0, 1, (step.buckets or 1) + 1)))


def _counted(parts: Parts, step: str) -> tuple[NDArray[np.generic], NDArray[np.int64], bool]:
    """Labels in their order, texts or decimals of numbers, how often each occurs, and whether one is missing."""
    counted: Counter[str] = Counter()
    are_texts, missing = True, False
    for part in parts():
        are_texts = isinstance(part.block, Texts)
        labels = as_labels(part.block, step)
        missing = missing or bool((labels.codes < 0).any())
        counts = np.bincount(labels.codes[labels.codes >= 0], minlength=len(labels.distinct))
        used = np.flatnonzero(counts)
        counted.update(dict(zip(labels.distinct[used].tolist(), counts[used].tolist(), strict=True)))
        if len(counted) > _MOST_DISTINCT:
            raise StepProblem(f"has more than {_MOST_DISTINCT:,} categories; use hashing")
    ordered = sorted(counted, key=None if are_texts else float)
    return object_array(ordered), np.array([counted[label] for label in ordered], np.int64), missing
