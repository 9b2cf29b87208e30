"""Steps on numbers: standardize, min-max, log1p.

Formulas and what they do to constant columns are those of scikit-learn's StandardScaler and MinMaxScaler.

Legend: n rows, m columns, K members.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.preprocessing.blocks import Block, Numbers, StepProblem, as_numbers
from epochd_server.data.preprocessing.grouped import Learner, Statistics
from epochd_server.domain.preprocessing import Affine, Log1p, MinMax, Standardize

_EPS = float(np.finfo(np.float64).eps)


def fit_scaling(step: Standardize | MinMax, block: Block, learner: Learner) -> Affine:
    """What a column, or each member's part of it, is moved and scaled by."""
    numbers = as_numbers(block, "standardize" if isinstance(step, Standardize) else "min_max")
    check_own(numbers, per_member=step.per_member)
    low = step.low if isinstance(step, MinMax) else 0.0
    centers, scales = [], []
    for column in numbers.values.T:
        segments = learner.segments(column, per_member=step.per_member)
        learn = learn_deviation if isinstance(step, Standardize) else learn_range
        center, scale = learn(step, segments)  # type: ignore[arg-type]
        centers.append(center)
        scales.append(scale)
    if step.per_member:
        return Affine(low=low, slot=learner.keep([*centers, *scales]))
    return Affine(center=_first(centers), scale=_first(scales), low=low)


def apply_scaling(
    state: Affine,
    block: Block,
    members: NDArray[np.int64] | None,
    statistics: NDArray[np.float64] | None,
) -> Numbers:
    """(x - center) / scale + low."""
    numbers = as_numbers(block, "scaling")
    if state.slot is None:
        center: NDArray[np.float64] = np.array(state.center)
        scale = np.array(state.scale)
    else:
        own = own_numbers(state.slot, 2, members, statistics)
        center, scale = own[:, :1], own[:, 1:]
    return Numbers((numbers.values - center) / scale + state.low, numbers.names)


def check_own(numbers: Numbers, *, per_member: bool) -> None:
    """Raises StepProblem where members cannot have numbers of their own: that is for one column."""
    if per_member and len(numbers.names) > 1:
        raise StepProblem(f"has become {len(numbers.names)} features, but per_member takes one")


def own_numbers(
    slot: int, count: int, members: NDArray[np.int64] | None, statistics: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """The numbers [n, count] that each row's member learned by itself."""
    if members is None or statistics is None:
        raise StepProblem("is scaled for each member by itself, but rows have no members")
    return statistics[members, slot : slot + count]


def check_log1p(block: Block) -> None:
    """Raises StepProblem where a number has no logarithm."""
    numbers = as_numbers(block, "log1p")
    wrong = np.asarray((numbers.values <= -1).any(axis=1))
    if wrong.any():
        row = int(np.argmax(wrong))
        count = int(np.count_nonzero(wrong))
        raise StepProblem(f"is {numbers.values[row].min():g}", row, count, "; log1p takes numbers > -1")


def apply_log1p(step: Log1p, block: Block) -> Numbers:
    """log(1 + x); NaN for x <= -1."""
    numbers = as_numbers(block, "log1p")
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.log1p(numbers.values)
    values[numbers.values <= -1] = np.nan
    return Numbers(values, tuple(f"log1p({name})" for name in numbers.names))


def learn_deviation(
    step: Standardize, segments: Statistics
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centers and scales [K] by means and deviations."""
    mean = segments.means()
    variance = segments.variances(mean)
    # As scikit-learn's _is_constant_feature: what rounding alone may have left is no variance.
    bound = segments.totals * _EPS * variance + (segments.totals * mean * _EPS) ** 2
    scale = np.where(variance <= bound, 1.0, np.sqrt(variance))
    center = mean if step.with_mean else np.zeros_like(mean)
    return center, scale if step.with_std else np.ones_like(mean)


def learn_range(step: MinMax, segments: Statistics) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centers and scales [K] by the smallest and largest values."""
    low, high = segments.extremes()
    span = high - low
    span[span < 10 * _EPS] = 1.0
    return low, span / (step.high - step.low)


def _first(columns: list[NDArray[np.float64]]) -> tuple[float, ...]:
    return tuple(float(column[0]) for column in columns)
