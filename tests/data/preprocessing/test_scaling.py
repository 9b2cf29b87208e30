"""Scaling and imputing numbers, against scikit-learn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import KBinsDiscretizer, MinMaxScaler, StandardScaler

from epochd_server.domain.errors import InvalidInput
from epochd_server.domain.preprocessing import Bucketize, Fill, Impute, Log1p, MinMax, Standardize

Run = Callable[..., NDArray[np.float64]]
NUMBERS = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=2, max_size=30)


def close(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@settings(max_examples=50)
@given(NUMBERS, NUMBERS)
def test_standardize_is_scikit_learns(run: Run, training: list[float], others: list[float]) -> None:
    scaler = StandardScaler().fit(np.array(training)[:, None])
    if scaler.var_[0] <= 1e-16 * scaler.mean_[0] ** 2:
        return  # nothing but rounding: constant for one, not for the other
    ours = run({"x": np.array(training)}, {"x": np.array(others)}, Standardize())
    theirs = scaler.transform(np.array(others)[:, None])
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12 * max(1.0, np.abs(theirs).max()))


@pytest.mark.parametrize(("with_mean", "with_std"), [(True, False), (False, True), (False, False)])
def test_standardize_without_mean_or_deviation(run: Run, with_mean: bool, with_std: bool) -> None:
    x = np.random.default_rng(1).normal(3, 2, 50)
    scaler = StandardScaler(with_mean=with_mean, with_std=with_std).fit(x[:, None])
    close(
        run({"x": x}, {"x": x[:9]}, Standardize(with_mean=with_mean, with_std=with_std)),
        scaler.transform(x[:9, None]),
    )


def test_standardize_counts_no_missing_values(run: Run) -> None:
    x = np.array([1.0, np.nan, 4.0, 7.0])
    close(run({"x": x}, {"x": x}, Standardize()), StandardScaler().fit_transform(x[:, None]))


def test_a_constant_column_is_moved_to_zero(run: Run) -> None:
    close(run({"x": np.full(5, 0.1)}, {"x": np.array([0.1, 1.1])}, Standardize()), np.array([[0.0], [1.0]]))


@settings(max_examples=50)
@given(NUMBERS, NUMBERS)
def test_min_max_is_scikit_learns(run: Run, training: list[float], others: list[float]) -> None:
    scaler = MinMaxScaler(feature_range=(-1, 2)).fit(np.array(training)[:, None])
    theirs = scaler.transform(np.array(others)[:, None])
    ours = run({"x": np.array(training)}, {"x": np.array(others)}, MinMax(low=-1.0, high=2.0))
    scale = 1.0 + np.abs(np.array(others)).max() / scaler.data_range_[0] if scaler.data_range_[0] else 1e6
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12 * scale)


@pytest.mark.parametrize("fill", [Fill.MEAN, Fill.MEDIAN, Fill.MOST_FREQUENT])
def test_impute_is_scikit_learns(run: Run, fill: Fill) -> None:
    x = np.array([3.0, np.nan, 1.0, 1.0, 3.0, 8.5, np.nan])
    imputer = SimpleImputer(strategy=fill.value, add_indicator=True).fit(x[:, None])
    others = np.array([np.nan, 2.0])
    close(run({"x": x}, {"x": others}, Impute(fill=fill, indicator=True)), imputer.transform(others[:, None]))


def test_steps_go_one_after_the_other_and_the_indicator_stays(run: Run) -> None:
    x = np.array([0.0, np.nan, 3.0])
    ours = run({"x": x}, {"x": x}, Impute(indicator=True), Log1p(), MinMax())
    np.testing.assert_allclose(ours, [[0, 0], [np.log(2.5) / np.log(4), 1], [1, 0]])


@pytest.mark.parametrize("one_hot", [True, False])
@pytest.mark.parametrize("buckets", [2, 5, 30])
def test_buckets_are_scikit_learns(run: Run, buckets: int, one_hot: bool) -> None:
    x = np.random.default_rng(2).integers(0, 40, 200).astype(float)
    others = np.array([-5.0, 0.0, 7.0, 20.0, 39.0, 99.0])
    encode = "onehot-dense" if one_hot else "ordinal"
    discretizer = KBinsDiscretizer(
        buckets, encode=encode, strategy="quantile", quantile_method="linear", subsample=None
    )
    with (
        np.errstate(all="ignore"),
        pytest.warns(UserWarning, match="too small") if buckets == 30 else _quiet(),
    ):
        discretizer.fit(x[:, None])
    ours = run({"x": x}, {"x": others}, Bucketize(buckets=buckets, one_hot=one_hot))
    np.testing.assert_array_equal(ours, discretizer.transform(others[:, None]))


def test_given_edges_belong_to_the_bucket_above(run: Run) -> None:
    ours = run({"x": [1.0]}, {"x": np.array([0.9, 1.0, 2.5, np.nan])}, Bucketize(edges=(1.0, 2.0)))
    np.testing.assert_array_equal(ours, [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])


def test_log1p_refuses_what_has_no_logarithm_in_training(run: Run) -> None:
    with pytest.raises(InvalidInput, match=r"steps\[0\].*'x' is -1 in row 1 and 1 more"):
        run({"x": [0.0, -1.0, -1.0]}, {"x": [0.0]}, Log1p())


def test_log1p_of_the_same_in_other_rows_is_nan(run: Run) -> None:
    assert np.isnan(run({"x": [0.0, 1.0]}, {"x": [-3.0]}, Log1p()))[0, 0]


def test_numbers_that_are_all_missing_cannot_be_imputed_by_their_mean(run: Run) -> None:
    with pytest.raises(InvalidInput, match="has no value in any training row"):
        run({"x": np.full(3, np.nan)}, {"x": [1.0]}, Impute())


class _quiet:  # noqa: N801 - a context manager that does nothing
    def __enter__(self) -> None: ...
    def __exit__(self, *error: object) -> None: ...
