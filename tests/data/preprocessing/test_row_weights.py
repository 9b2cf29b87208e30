"""Row weights in what steps learn: StandardScaler's with sample_weight, and rows of weight 0 are not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from epochd_server.data.preprocessing.fitting import TrainingRows
from epochd_server.domain.preprocessing import (
    Affine,
    Bucketize,
    Fill,
    FittedPreprocessing,
    Impute,
    MinMax,
    OneHot,
    Ordinal,
    Standardize,
    Step,
    Unseen,
)

Fit = Callable[..., FittedPreprocessing]
ROWS = 400
RANDOM = np.random.default_rng(0)
VALUES = np.where(RANDOM.random(ROWS) < 0.1, np.nan, RANDOM.normal(1e3, 5, ROWS))
WEIGHTS = RANDOM.integers(0, 4, ROWS) * 0.3
MEMBERS = RANDOM.integers(0, 5, ROWS)


def scaler(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    learned = StandardScaler().fit(values[:, None], sample_weight=weights)
    return float(learned.mean_[0]), float(learned.scale_[0])


def test_standardize_is_that_of_scikit_learn_with_weights(fit: Fit) -> None:
    fitted = fit({"a": VALUES}, Standardize(), training=TrainingRows.of(None, WEIGHTS))
    state = fitted.columns[0].steps[0].state
    assert isinstance(state, Affine)
    np.testing.assert_allclose((*state.center, *state.scale), scaler(VALUES, WEIGHTS), rtol=1e-12)


def test_each_member_has_its_own_and_the_bits_of_its_rows_alone(fit: Fit) -> None:
    training = TrainingRows.of(None, WEIGHTS, MEMBERS, 5)
    steps = (Impute(per_member=True), Standardize(per_member=True))
    fitted = fit({"a": VALUES}, *steps, training=training)
    assert fitted.statistics is not None
    for member, learned in enumerate(fitted.statistics):
        own = member == MEMBERS
        alone = fit({"a": VALUES[own]}, Impute(), Standardize(), training=TrainingRows.of(None, WEIGHTS[own]))
        mean, state = alone.columns[0].steps[0].state, alone.columns[0].steps[1].state
        assert isinstance(state, Affine)
        assert learned.tolist() == [*mean.numbers, *state.center, *state.scale]
        there = own & ~np.isnan(VALUES)
        expected = np.average(VALUES[there], weights=WEIGHTS[there])
        np.testing.assert_allclose(learned[0], expected, rtol=1e-12)
        filled = np.where(np.isnan(VALUES[own]), learned[0], VALUES[own])
        np.testing.assert_allclose(learned[1:], scaler(filled, WEIGHTS[own]), rtol=1e-12)


def test_weights_that_are_all_the_same_change_no_bit(fit: Fit) -> None:
    ones = fit({"a": VALUES}, Impute(), Standardize(), training=TrainingRows.of(None, np.ones(ROWS)))
    assert ones == fit({"a": VALUES}, Impute(), Standardize())


def test_a_constant_column_is_left_as_it_is(fit: Fit) -> None:
    cells = {"a": np.full(ROWS, 0.1)}
    state = fit(cells, Standardize(), training=TrainingRows.of(None, WEIGHTS)).columns[0].steps[0].state
    assert isinstance(state, Affine)
    assert state.scale == (1.0,)


CODES = np.arange(ROWS) % 7
CELLS: list[tuple[Any, Step]] = [
    (VALUES, Impute(fill=Fill.MEDIAN)),
    (CODES.astype(float), Impute(fill=Fill.MOST_FREQUENT)),
    (VALUES, MinMax()),
    (VALUES, Bucketize(buckets=5)),
    ([f"{code}" for code in CODES], OneHot(max_categories=3, unseen=Unseen.OTHER)),
    ([f"{code}" for code in CODES], Ordinal()),
]


@pytest.mark.parametrize("case", range(len(CELLS)))
def test_what_is_no_average_is_learned_of_the_rows_that_count_at_all(fit: Fit, case: int) -> None:
    values, step = CELLS[case]
    weights = np.where(CODES == 6, 0.0, WEIGHTS + 0.1)
    there = np.flatnonzero(weights)
    kept = values[there] if isinstance(values, np.ndarray) else [values[row] for row in there]
    weighted = fit({"a": values}, step, training=TrainingRows.of(None, weights))
    assert weighted == fit({"a": kept}, step)
