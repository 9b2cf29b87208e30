"""Filling in missing values, as scikit-learn's SimpleImputer does.

Legend: n rows, m columns, K members.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.preprocessing.blocks import Block, Numbers, StepProblem, Texts, object_array
from epochd_server.data.preprocessing.grouped import Learner, Statistics
from epochd_server.data.preprocessing.scaling import check_own, own_numbers
from epochd_server.domain.preprocessing import Fill, Filled, Impute

NOTHING = "has no value in any training row: there is nothing to impute with but a constant"


def fit_impute(step: Impute, block: Block, learner: Learner) -> Filled:
    """What takes the place of missing values."""
    match block:
        case Numbers():
            return _fit_numbers(step, block, learner)
        case Texts():
            return _fit_texts(step, block)
        case _:
            raise StepProblem("is timestamps, which cannot be imputed; impute after time_parts")


def apply_impute(
    state: Filled,
    block: Block,
    members: NDArray[np.int64] | None,
    statistics: NDArray[np.float64] | None,
) -> Block:
    """The block without missing values."""
    if isinstance(block, Texts):
        return _fill_texts(state, block)
    if not isinstance(block, Numbers):
        raise StepProblem("is timestamps, which cannot be imputed; impute after time_parts")
    missing = np.isnan(block.values)
    if not missing.any():
        return block
    if state.slot is None:
        fill: NDArray[np.float64] = np.array(state.numbers)
    else:
        fill = own_numbers(state.slot, 1, members, statistics)
    return Numbers(np.where(missing, fill, block.values), block.names)


def _fit_numbers(step: Impute, block: Numbers, learner: Learner) -> Filled:
    width = len(block.names)
    check_own(block, per_member=step.per_member)
    if step.fill is Fill.CONSTANT:
        if step.number is None:
            raise StepProblem("is numbers, but the constant to impute is text")
        return Filled(numbers=(step.number,) * width)
    found = []
    for column in block.values.T:
        segments = learner.segments(column, per_member=step.per_member)
        if not segments.counts.any():
            raise StepProblem(NOTHING)
        found.append(middle(step.fill, segments))
    if step.per_member:
        return Filled(slot=learner.keep(found))
    return Filled(numbers=tuple(float(column[0]) for column in found))


def middle(fill: Fill, segments: Statistics) -> NDArray[np.float64]:
    """What is imputed for each member [K]: the mean, the median or the most frequent value."""
    match fill:
        case Fill.MEDIAN:
            return segments.medians()
        case Fill.MOST_FREQUENT:
            return segments.most_frequent()
        case _:
            return np.where(segments.counts > 0, segments.means(), np.nan)


def _fit_texts(step: Impute, block: Texts) -> Filled:
    if step.fill is Fill.CONSTANT:
        if step.text is None:
            raise StepProblem("is text, but the constant to impute is a number")
        return Filled(text=step.text)
    if step.fill is not Fill.MOST_FREQUENT:
        raise StepProblem(f"is text, which has no {step.fill.value}; impute a constant or the most frequent")
    return most_frequent_text(block.distinct, np.bincount(block.codes[block.codes >= 0], minlength=1))


def most_frequent_text(distinct: NDArray[np.generic], counts: NDArray[np.int64]) -> Filled:
    """The first of the most frequent texts [C], of which there are so many [C].

    Raises:
        StepProblem: There is none.
    """
    if not counts.any():
        raise StepProblem(NOTHING)
    return Filled(text=str(distinct[int(np.argmax(counts))]))


def _fill_texts(state: Filled, block: Texts) -> Texts:
    missing = block.codes < 0
    if not missing.any():
        return block
    position = np.flatnonzero(block.distinct == state.text)
    if len(position):
        return Texts(block.distinct, np.where(missing, position[0], block.codes), block.name)
    distinct = np.append(block.distinct, object_array([state.text]))
    return Texts(distinct, np.where(missing, len(block.distinct), block.codes), block.name)
