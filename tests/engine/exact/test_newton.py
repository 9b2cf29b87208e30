"""Logistic and softmax optima against statsmodels and scikit-learn at tight tolerance."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from epochd_server.domain.exact_fits import NewtonFit
from epochd_server.domain.specs import LossKind
from epochd_server.engine.task import MemberState

BCE, SOFTMAX = LossKind.BCE_WITH_LOGITS, LossKind.CROSS_ENTROPY
CLASSES = 3
TIGHT = {"C": 1.0, "tol": 1e-14, "max_iter": 10_000, "solver": "newton-cholesky"}


@pytest.fixture(scope="module")
def sample():
    """Features on different scales, two classes, three classes, weights."""
    random = np.random.default_rng(5)
    features = random.standard_normal((300, 4)) * [1, 10, 0.1, 3] + [0, 5, 0, 1]
    score = features @ [1.0, 0.1, -3.0, 0.2] - 1
    two = (random.random(300) < 1 / (1 + np.exp(-score))).astype(np.float64)
    scores = 0.3 * features @ random.standard_normal((4, CLASSES)) + random.gumbel(size=(300, CLASSES))
    return features, two, scores.argmax(1), random.uniform(0.2, 2.0, 300)


def test_a_logistic_optimum_is_that_of_statsmodels(fit, sample):
    features, two, _, _ = sample
    fitted = fit(features, two, NewtonFit(), loss=BCE)
    right = sm.Logit(two, np.c_[features, np.ones(300)]).fit(disp=0, tol=1e-15, maxiter=100)
    found = {name: array[0] for name, array in fitted.statistics.items()}
    np.testing.assert_allclose(found["coefficients"][0], right.params, rtol=1e-10)
    np.testing.assert_allclose(found["standard_errors"][0], right.bse, rtol=1e-10)
    np.testing.assert_allclose(found["log_likelihoods"], right.llf, rtol=1e-12)
    np.testing.assert_allclose(found["null_likelihoods"], right.llnull, rtol=1e-8)
    np.testing.assert_allclose(fitted.losses * 300, -right.llf, rtol=1e-12)


def test_row_weights_are_those_of_a_glm(fit, sample):
    features, two, _, weights = sample
    fitted = fit(features, two, NewtonFit(), loss=BCE, weights=weights)
    family = sm.families.Binomial()
    model = sm.GLM(two, np.c_[features, np.ones(300)], family=family, var_weights=weights)
    right = model.fit(tol=1e-15, maxiter=100)
    np.testing.assert_allclose(fitted.statistics["coefficients"][0, 0], right.params, rtol=1e-9)
    np.testing.assert_allclose(fitted.statistics["standard_errors"][0, 0], right.bse, rtol=1e-9)


@pytest.mark.parametrize("l2", [1e-3, 1.0, 50.0])
@pytest.mark.parametrize("bias", [True, False])
def test_l2_of_a_logistic_model_is_1_over_c(fit, sample, l2, bias):
    features, two, _, weights = sample
    right = LogisticRegression(**TIGHT | {"C": 1 / l2}, fit_intercept=bias)
    right.fit(features, two, sample_weight=weights)
    fitted = fit(features, two, NewtonFit(l2=l2), loss=BCE, weights=weights, bias=bias)
    np.testing.assert_allclose(fitted.weight[0], right.coef_, rtol=1e-8)
    if bias:
        np.testing.assert_allclose(fitted.bias[0], right.intercept_, rtol=1e-8)


def test_a_softmax_optimum_is_that_of_statsmodels_with_coefficients_that_add_up_to_0(fit, sample):
    features, _, three, _ = sample
    fitted = fit(features, three, NewtonFit(), loss=SOFTMAX, outputs=CLASSES)
    right = sm.MNLogit(three, np.c_[features, np.ones(300)])
    right = right.fit(disp=0, tol=1e-15, maxiter=100, method="newton")
    found = {name: array[0] for name, array in fitted.statistics.items()}
    contrasts = found["coefficients"][1:] - found["coefficients"][0]
    np.testing.assert_allclose(contrasts.T, np.asarray(right.params), rtol=1e-9)
    np.testing.assert_allclose(found["coefficients"].sum(0), 0.0, atol=1e-12)
    np.testing.assert_allclose(found["log_likelihoods"], right.llf, rtol=1e-12)
    # statsmodels holds class 0 at 0: its covariance, turned to coefficients that add up to 0
    turn = np.kron(np.array([[-1, -1], [2, -1], [-1, 2]]) / 3, np.eye(5))
    covariance = turn @ np.asarray(right.cov_params()) @ turn.T
    np.testing.assert_allclose(found["standard_errors"].ravel(), np.sqrt(np.diag(covariance)), rtol=1e-9)


@pytest.mark.parametrize("l2", [1e-2, 1.0, 50.0])
def test_l2_of_a_softmax_model_is_1_over_c(fit, sample, l2):
    features, _, three, weights = sample
    right = LogisticRegression(**TIGHT | {"C": 1 / l2}).fit(features, three, sample_weight=weights)
    fitted = fit(features, three, NewtonFit(l2=l2), loss=SOFTMAX, outputs=CLASSES, weights=weights)
    np.testing.assert_allclose(fitted.weight[0], right.coef_, rtol=1e-8)
    centred = right.intercept_ - right.intercept_.mean()
    np.testing.assert_allclose(fitted.bias[0], centred, rtol=1e-8)


def test_the_penalty_counts_the_bias_when_asked(fit, sample):
    features, two, _, _ = sample
    fitted = fit(features, two, NewtonFit(l2=2.0, penalize_bias=True), loss=BCE)
    right = LogisticRegression(**TIGHT | {"C": 0.5}, fit_intercept=False).fit(
        np.c_[features, np.ones(300)], two
    )
    np.testing.assert_allclose([*fitted.weight[0, 0], *fitted.bias[0]], right.coef_[0], rtol=1e-8)


LINE = np.arange(12.0)[:, None]


@pytest.mark.parametrize(
    ("features", "labels", "loss"),
    [
        (LINE, LINE[:, 0] > 5, BCE),
        (np.where(LINE == 5, 6.0, LINE), LINE[:, 0] > 5, BCE),
        (LINE, LINE[:, 0] // 4, SOFTMAX),
        (LINE, np.where(LINE[:, 0] > 7, 2, [0, 1] * 6), SOFTMAX),
        (LINE, [0, 1] * 6, SOFTMAX),
    ],
    ids=[
        "separable",
        "all but separable",
        "three separable",
        "one separable of three",
        "a class without rows",
    ],
)
def test_separable_classes_fail_and_a_penalty_helps(fit, features, labels, loss):
    labels = np.asarray(labels, np.float64 if loss is BCE else np.int64)
    outputs = 1 if loss is BCE else CLASSES
    fitted = fit(features, labels, NewtonFit(), loss=loss, outputs=outputs)
    assert fitted.states.tolist() == [MemberState.SEPARABLE_CLASSES]
    helped = fit(features, labels, NewtonFit(l2=1.0, penalize_bias=True), loss=loss, outputs=outputs)
    assert helped.states.tolist() == [MemberState.FINISHED]


@pytest.mark.parametrize("loss", [BCE, SOFTMAX])
def test_dependent_features_are_refused_without_a_penalty(fit, sample, loss):
    features, two, three, _ = sample
    labels, outputs = (two, 1) if loss is BCE else (three, CLASSES)
    double = np.c_[features, 2 * features[:, 0]]
    assert fit(double, labels, NewtonFit(), loss=loss, outputs=outputs).states == MemberState.RANK_DEFICIENT
    assert fit(double, labels, NewtonFit(l2=1.0), loss=loss, outputs=outputs).states == MemberState.FINISHED


def test_too_few_iterations_are_told(fit, sample):
    features, two, _, _ = sample
    fitted = fit(features, two, NewtonFit(max_iterations=2), loss=BCE)
    assert fitted.states.tolist() == [MemberState.NOT_CONVERGED]
    assert fitted.epochs.tolist() == [2]


def test_an_iteration_is_an_epoch_whose_loss_is_that_before_it(fit, sample):
    features, two, _, _ = sample
    fitted = fit(features, two, NewtonFit(), loss=BCE, log_parameters=True)
    epochs = np.concatenate([batch.epochs for batch in fitted.logs])
    losses = np.concatenate([batch.losses for batch in fitted.logs])
    assert epochs.tolist() == list(range(fitted.epochs[0]))
    assert losses[0] == pytest.approx(np.log(2))
    assert (np.diff(losses) <= 1e-15).all()
    last = fitted.logs[-1].parameters[-1]
    np.testing.assert_array_equal(last["linear.weight"], fitted.weight[0])


def test_large_margins_do_not_overflow(fit):
    random = np.random.default_rng(0)
    features = random.standard_normal((200, 1)) * 1e6
    labels = (features[:, 0] + random.standard_normal(200) * 1e5 > 0).astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = fit(features, labels, NewtonFit(), loss=BCE)
    assert fitted.states.tolist() == [MemberState.FINISHED]
    right = sm.Logit(labels, np.c_[features / 1e6, np.ones(200)]).fit(disp=0, tol=1e-10, maxiter=100)
    np.testing.assert_allclose(fitted.weight[0, 0] * 1e6, right.params[:1], rtol=1e-8)


@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(8, 200), min_size=2, max_size=6))
def test_a_member_has_the_bits_it_would_have_alone(fit, seed, sizes):
    random = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    features = random.standard_normal((offsets[-1], 2))
    softmax = bool(random.integers(2))
    labels = random.integers(0, CLASSES if softmax else 2, offsets[-1])
    labels = labels if softmax else labels.astype(np.float64)
    how, kind = NewtonFit(l2=float(random.integers(0, 2))), SOFTMAX if softmax else BCE
    arguments = {"loss": kind, "outputs": CLASSES if softmax else 1}
    fleet = fit(features, labels, how, offsets=offsets, **arguments)
    for member, (begin, end) in enumerate(itertools.pairwise(offsets.tolist())):
        alone = fit(features[begin:end], labels[begin:end], how, **arguments)
        assert fleet.states[member] == alone.states[0]
        assert fleet.weight[member].tobytes() == alone.weight[0].tobytes()
        assert fleet.bias[member].tobytes() == alone.bias[0].tobytes()
