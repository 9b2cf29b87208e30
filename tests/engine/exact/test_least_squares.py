"""Least squares against certified coefficients, statsmodels, scikit-learn and exact arithmetic."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, Ridge

from epochd_server.domain.exact_fits import LeastSquaresFit, RankRule
from epochd_server.domain.specs import Precision
from epochd_server.engine.exact import least_squares
from epochd_server.engine.task import MemberState

X = np.arange(21.0)
POWERS = np.stack([X**k for k in range(1, 6)], 1)
DELTA = np.array(
    [759, -2048, 2048, -2048, 2523, -2048, 2048, -2048, 1838, -2048, 2048,
     -2048, 1838, -2048, 2048, -2048, 2523, -2048, 2048, -2048, 759], np.float64,
)  # fmt: skip
ONES = [1.0] * 6
TENTHS = [1.0, 0.1, 0.01, 0.001, 0.0001, 0.00001]


def polynomial(coefficients: list[float]) -> np.ndarray:
    return sum(c * X**k for k, c in enumerate(coefficients))


WAMPLER = {
    1: (polynomial(ONES), ONES, 14),
    2: (polynomial(TENTHS), TENTHS, 12),
    3: (polynomial(ONES) + DELTA, ONES, 14),
    4: (polynomial(ONES) + 100 * DELTA, ONES, 14),
    5: (polynomial(ONES) + 10_000 * DELTA, ONES, 14),
}
"""Wampler, "A report on the accuracy of some widely used least squares computer programs" (1970): y is a polynomial of
degree 5 plus noise that is orthogonal to it. Targets, coefficients and digits; float64 QR reaches 9, 12, 9, 7.5
and 5.5 of them. In the second the targets themselves are rounded."""


@pytest.mark.parametrize("number", WAMPLER)
def test_certified_coefficients_of_wampler(fit, digits, number):
    targets, certified, least = WAMPLER[number]
    fitted = fit(POWERS, targets, LeastSquaresFit())
    found = [*fitted.bias[0], *fitted.weight[0, 0]]
    assert digits(found, certified) >= least


def test_certified_coefficients_of_longley(fit, digits):
    data = sm.datasets.longley.load_pandas()
    fitted = fit(data.exog.to_numpy(), data.endog.to_numpy(), LeastSquaresFit())
    # NIST StRD Longley, as certified
    certified = [
        -3482258.63459582, 15.0618722713733, -0.358191792925910e-01, -2.02022980381683,
        -1.03322686717359, -0.511041056535807e-01, 1829.15146461355,
    ]  # fmt: skip
    assert digits([*fitted.bias[0], *fitted.weight[0, 0]], certified) >= 12


def test_a_badly_conditioned_polynomial_is_solved_to_the_last_digit(fit, digits):
    """The exact solution of the very numbers given, by rational arithmetic."""
    points = [Fraction(k, 16) for k in range(-40, -8)]
    matrix = [[Fraction(float(p**k)) for k in range(9)] for p in points]
    targets = [Fraction(math.sin(p)) for p in points]
    exact = solve_exactly(matrix, targets)
    features = np.array([[float(v) for v in row[1:]] for row in matrix])
    fitted = fit(features, np.array([float(t) for t in targets]), LeastSquaresFit())
    assert digits([*fitted.bias[0], *fitted.weight[0, 0]], [float(v) for v in exact]) >= 14


def solve_exactly(matrix, targets):
    """The normal equations by Gauss and Jordan in rational arithmetic."""
    n = len(matrix[0])
    rows = [
        [sum(r[i] * r[j] for r in matrix) for j in range(n)]
        + [sum(r[i] * t for r, t in zip(matrix, targets, strict=True))]
        for i in range(n)
    ]
    for i in range(n):
        rows[i] = [v / rows[i][i] for v in rows[i]]
        for j in range(n):
            if j != i:
                rows[j] = [a - rows[j][i] * b for a, b in zip(rows[j], rows[i], strict=True)]
    return [row[-1] for row in rows]


@pytest.fixture
def sample():
    random = np.random.default_rng(3)
    features = random.standard_normal((60, 4)) * [1, 100, 0.01, 5] + [0, 30, 0, 1000]
    targets = features @ [1.0, 0.1, -3.0, 0.2] + 2 + random.standard_normal(60)
    return features, targets, random.uniform(0.1, 3.0, 60)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_statistics_are_those_of_statsmodels(fit, sample, bias, weighted):
    features, targets, weights = sample
    fitted = fit(features, targets, LeastSquaresFit(), bias=bias, weights=weights if weighted else None)
    exog = np.c_[features, np.ones(60)] if bias else features
    model = sm.WLS(targets, exog, weights=weights) if weighted else sm.OLS(targets, exog)
    right = model.fit()
    found = {name: array[0] for name, array in fitted.statistics.items()}
    np.testing.assert_allclose(found["coefficients"][0], right.params, rtol=1e-9)
    np.testing.assert_allclose(found["standard_errors"][0], right.bse, rtol=1e-9)
    np.testing.assert_allclose(found["residual_squares"], right.ssr, rtol=1e-9)
    total = right.centered_tss if bias else right.uncentered_tss
    np.testing.assert_allclose(found["total_squares"], total, rtol=1e-9)
    np.testing.assert_allclose(fitted.losses, right.ssr / (weights.sum() if weighted else 60), rtol=1e-9)


@pytest.mark.parametrize("l2", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("bias", [True, False])
def test_l2_is_alpha_of_ridge(fit, sample, l2, bias):
    features, targets, weights = sample
    features = (features - features.mean(0)) / features.std(0) + 1
    right = Ridge(alpha=l2, fit_intercept=bias, solver="svd").fit(features, targets, sample_weight=weights)
    fitted = fit(features, targets, LeastSquaresFit(l2=l2), weights=weights, bias=bias)
    np.testing.assert_allclose(fitted.weight[0, 0], right.coef_, rtol=1e-10)
    if bias:
        np.testing.assert_allclose(fitted.bias[0, 0], right.intercept_, rtol=1e-10)
    assert np.isnan(fitted.statistics["standard_errors"]).all()  # there is no theory for them


def test_the_penalty_counts_the_bias_when_asked(fit, sample):
    features, targets, _ = sample
    fitted = fit(features, targets, LeastSquaresFit(l2=2.0, penalize_bias=True))
    right = Ridge(alpha=2.0, fit_intercept=False, solver="svd").fit(np.c_[features, np.ones(60)], targets)
    np.testing.assert_allclose([*fitted.weight[0, 0], *fitted.bias[0]], right.coef_, rtol=1e-9)


def test_rows_of_weight_zero_do_not_count(fit, sample):
    features, targets, weights = sample
    weights[::3] = 0.0
    whole = fit(features, targets, LeastSquaresFit(), weights=weights)
    kept = weights > 0
    part = fit(features[kept], targets[kept], LeastSquaresFit(), weights=weights[kept])
    np.testing.assert_allclose(whole.weight, part.weight, rtol=1e-12)
    np.testing.assert_allclose(
        whole.statistics["standard_errors"], part.statistics["standard_errors"], rtol=1e-12
    )


def test_several_targets_are_fitted_each_for_itself(fit, sample):
    features, targets, _ = sample
    both = fit(features, np.stack([targets, targets**2], 1), LeastSquaresFit(), outputs=2)
    for place, target in enumerate((targets, targets**2)):
        alone = fit(features, target, LeastSquaresFit())
        np.testing.assert_allclose(both.weight[0, place], alone.weight[0, 0], rtol=1e-12)


def test_dependent_features_are_refused(fit, sample):
    features, targets, _ = sample
    fitted = fit(np.c_[features, features[:, 0] - features[:, 1]], targets, LeastSquaresFit())
    assert fitted.states.tolist() == [MemberState.RANK_DEFICIENT]
    assert fitted.statistics["ranks"][0] == 5
    assert fitted.statistics["conditions"][0] > 1e13


@pytest.mark.parametrize(
    ("kind", "bias"),
    [
        ("dependent", True),
        ("dependent", False),
        ("constant", True),
        ("few rows", True),
        ("few rows", False),
        ("constants", True),
        ("constants", False),
    ],
)
def test_minimum_norm_is_that_of_scikit_learn(fit, sample, kind, bias):
    features, targets, _ = sample
    features = (features - features.mean(0)) / features.std(0)
    if kind == "dependent":
        features = np.c_[features, features[:, 0] - 2 * features[:, 1]]
    elif kind == "constant":
        features = np.c_[features, np.full(60, 3.0)]
    elif kind == "few rows":
        features, targets = features[:3], targets[:3]
    else:
        features = np.c_[np.full(60, 3.0), np.full(60, 2.0)]
    fitted = fit(features, targets, LeastSquaresFit(rank=RankRule.MINIMUM_NORM), bias=bias)
    right = LinearRegression(fit_intercept=bias).fit(features, targets)
    np.testing.assert_allclose(fitted.weight[0, 0], right.coef_, rtol=1e-9, atol=1e-12)
    if bias:
        np.testing.assert_allclose(fitted.bias[0, 0], right.intercept_, rtol=1e-9)
    squares = ((targets - right.predict(features)) ** 2).sum()
    np.testing.assert_allclose(fitted.statistics["residual_squares"], [[squares]], rtol=1e-9, atol=1e-18)


@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(5, 300), min_size=2, max_size=9))
def test_a_member_has_the_bits_it_would_have_alone(fit, seed, sizes):
    random = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    features = random.standard_normal((offsets[-1], 3)) * 10.0 ** random.integers(-3, 4, 3)
    targets = random.standard_normal(offsets[-1])
    how = LeastSquaresFit(l2=float(random.integers(0, 2)))
    fleet = fit(features, targets, how, offsets=offsets)
    for member, (begin, end) in enumerate(itertools.pairwise(offsets.tolist())):
        alone = fit(features[begin:end], targets[begin:end], how)
        assert fleet.weight[member].tobytes() == alone.weight[0].tobytes()
        assert fleet.bias[member].tobytes() == alone.bias[0].tobytes()
        for name, values in alone.statistics.items():
            assert fleet.statistics[name][member].tobytes() == values[0].tobytes()


def test_the_result_has_the_precision_of_the_run(fit, sample):
    features, targets, _ = sample
    single = fit(features, targets, LeastSquaresFit(), precision=Precision.FLOAT32)
    double = fit(features, targets, LeastSquaresFit())
    assert single.weight.dtype == np.float32
    np.testing.assert_array_equal(single.weight, double.weight.astype(np.float32))
    assert single.statistics["coefficients"].dtype == np.float64


def test_one_epoch_is_logged_with_the_fits_loss(fit, sample):
    features, targets, _ = sample
    fitted = fit(features, targets, LeastSquaresFit(), log_parameters=True)
    (batch,) = fitted.logs
    assert batch.epochs.tolist() == [0]
    assert fitted.epochs.tolist() == [1]
    assert batch.losses == fitted.losses
    np.testing.assert_array_equal(batch.parameters[0]["linear.weight"], fitted.weight[0])


def test_a_member_that_shall_stop_is_not_fitted(fit, sample, watcher):
    features, targets, _ = sample
    fitted = fit(
        features, targets, LeastSquaresFit(), offsets=np.array([0, 30, 60]), watcher=watcher(stop={1})
    )
    assert fitted.states.tolist() == [MemberState.FINISHED, MemberState.STOPPED]


def many(rows, seed=0, features=600):
    """Rows of so many features that the factor comes from panels."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((rows, features)) * 10.0 ** random.integers(-3, 4, features)
    return values, values[:, 0] * 2 + random.standard_normal(rows), random.uniform(0.5, 2.0, rows)


@pytest.mark.parametrize("l2", [0.0, 5.0])
def test_panels_come_to_what_the_kernel_does(fit, monkeypatch, l2):
    """Both refine; a penalty's own slope is not summed in twice the precision."""
    features, targets, weights = many(900)
    panels = fit(features, targets, LeastSquaresFit(l2=l2), weights=weights)
    monkeypatch.setattr(least_squares, "MANY", 10_000)
    kernel = fit(features, targets, LeastSquaresFit(l2=l2), weights=weights)
    np.testing.assert_allclose(panels.weight, kernel.weight, rtol=1e-12 if l2 else 0.0)
    np.testing.assert_allclose(panels.bias, kernel.bias, rtol=1e-12 if l2 else 0.0)
    np.testing.assert_allclose(
        panels.statistics["standard_errors"], kernel.statistics["standard_errors"], rtol=1e-10
    )
    number = panels.statistics["conditions"] / kernel.statistics["conditions"]
    assert 1 / 3 < number[0] < 1 + 1e-9  # with a penalty it is estimated, from below


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [60, 700])
def test_the_minimum_norm_of_many_coefficients_is_that_of_scikit_learn(fit, rows, bias):
    features, targets, _ = many(rows)
    features /= features.std(0)
    features[:, -1] = features[:, 0]
    fitted = fit(features, targets, LeastSquaresFit(rank=RankRule.MINIMUM_NORM), bias=bias)
    right = LinearRegression(fit_intercept=bias).fit(features, targets)
    np.testing.assert_allclose(fitted.weight[0, 0], right.coef_, rtol=1e-7, atol=1e-11)
    assert fit(features, targets, LeastSquaresFit(), bias=bias).states[0] == MemberState.RANK_DEFICIENT


def test_members_of_many_coefficients_have_the_bits_they_would_have_alone(fit):
    sizes = [700, 650, 900]
    parts = [many(rows, seed) for seed, rows in enumerate(sizes)]
    features, targets, weights = (np.concatenate(each) for each in zip(*parts, strict=True))
    offsets = np.array([0, *itertools.accumulate(sizes)])
    together = fit(features, targets, LeastSquaresFit(), offsets=offsets, weights=weights)
    for member, (own, target, weight) in enumerate(parts):
        alone = fit(own, target, LeastSquaresFit(), weights=weight)
        assert alone.weight[0].tobytes() == together.weight[member].tobytes()
        assert alone.statistics["standard_errors"][0].tobytes() == (
            together.statistics["standard_errors"][member].tobytes()
        )


def test_a_member_of_many_coefficients_can_be_stopped_between_two_panels(fit, watcher):
    features, targets, _ = many(9_000)
    stopping = watcher(stop=(0,))
    looks = itertools.count()

    def stopped_members():
        return (0,) if next(looks) > 1 else ()

    stopping.stopped_members = stopped_members
    fitted = fit(features, targets, LeastSquaresFit(), watcher=stopping)
    assert fitted.states[0] == MemberState.STOPPED
    assert fitted.epochs[0] == 0
