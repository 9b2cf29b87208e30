"""Weights of classes in exact fits: those of scikit-learn, and of rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_sample_weight

from epochd_server.domain.exact_fits import LbfgsFit, NewtonFit
from epochd_server.domain.specs import Loss, LossKind, Precision
from epochd_server.engine.task import CohortData, MemberState

BCE, SOFTMAX = LossKind.BCE_WITH_LOGITS, LossKind.CROSS_ENTROPY
LABELS = {BCE: 2, SOFTMAX: 3}
FITS = [NewtonFit(l2=0.5), LbfgsFit(l2=0.5, tolerance=1e-11)]
WEIGHTS = {0: 0.5, 1: 4.0, 2: 1.5}


@pytest.fixture(scope="module")
def sample():
    """Features, labels of two and of three classes of uneven sizes, row weights."""
    random = np.random.default_rng(8)
    features = random.standard_normal((240, 3)) * [1, 5, 0.2] + [0, 2, 0]
    score = features @ [1.0, 0.2, 3.0] + random.logistic(size=240)
    labels = {BCE: (score > 2) * 1.0, SOFTMAX: np.digitize(score, [-1, 2])}
    return features, labels, random.uniform(0.2, 2.0, 240)


def weighing(kind: LossKind, how: str) -> tuple[Loss, Any]:
    """A loss, and the same for scikit-learn."""
    if how == "balanced":
        return Loss(kind=kind, balanced=True), how
    given = {label: WEIGHTS[label] for label in range(LABELS[kind])}
    return Loss(kind=kind, class_weights=tuple(given.items())), given


@pytest.mark.parametrize("kind", [BCE, SOFTMAX])
@pytest.mark.parametrize("how", ["given", "balanced"])
@pytest.mark.parametrize("fitting", FITS)
def test_the_optimum_is_that_of_scikit_learn(fit, sample, kind, how, fitting):
    features, labels, _ = sample
    loss, class_weight = weighing(kind, how)
    outputs = 1 if kind is BCE else 3
    found = fit(features, labels[kind], fitting, loss=loss, outputs=outputs)
    right = LogisticRegression(
        C=1 / fitting.l2, class_weight=class_weight, tol=1e-12, max_iter=10_000, solver="newton-cholesky"
    ).fit(features, labels[kind])
    intercept = right.intercept_ if kind is BCE else right.intercept_ - right.intercept_.mean()
    np.testing.assert_allclose(found.weight[0], right.coef_, rtol=1e-8)
    np.testing.assert_allclose(found.bias[0], intercept, rtol=1e-8)


@pytest.mark.parametrize("precision", [Precision.FLOAT64, Precision.FLOAT32])
def test_statistics_and_losses_are_those_of_the_same_row_weights(fit, sample, precision):
    features, labels, weights = sample
    how = {"precision": precision}
    loss, class_weight = weighing(BCE, "given")
    rows = weights * compute_sample_weight(class_weight, labels[BCE])
    found = fit(features, labels[BCE], NewtonFit(), loss=loss, weights=weights, **how)
    right = fit(features, labels[BCE], NewtonFit(), loss=BCE, weights=rows, **how)
    assert found.weight.tobytes() == right.weight.tobytes()
    assert found.losses.tobytes() == right.losses.tobytes()
    for name, values in right.statistics.items():
        np.testing.assert_array_equal(found.statistics[name], values)


@pytest.mark.parametrize("kind", [BCE, SOFTMAX])
@pytest.mark.parametrize("fitting", [replace(fitting, penalize_bias=True) for fitting in FITS])
def test_balanced_weights_are_those_of_each_members_training_rows(fit, sample, watcher, kind, fitting):
    features, labels, weights = sample
    loss, _ = weighing(kind, "balanced")
    offsets = np.array([0, 150, 200, 240])
    # the last member's training rows lack the class 2, which its held-out rows have
    targets = np.where(np.arange(240) >= 200, np.minimum(labels[kind], 1), labels[kind])
    outputs = 1 if kind is BCE else 3

    def fitted(rows: slice, offsets: Any) -> Any:
        held_out = CohortData(
            features=features[rows], targets=labels[kind][rows], offsets=offsets, weights=weights[rows]
        )
        seen = watcher()
        result = fit(
            features[rows], targets[rows], fitting, loss=loss, outputs=outputs, weights=weights[rows],
            offsets=offsets, watcher=seen, validation=held_out,
        )  # fmt: skip
        order = np.argsort(np.concatenate([end.members for end in seen.ends]))
        return result, np.concatenate([end.validation_losses for end in seen.ends])[order]

    fleet, losses = fitted(slice(None), offsets)
    assert fleet.states.tolist() == [MemberState.FINISHED] * 3
    np.testing.assert_allclose(losses[:2], fleet.losses[:2], rtol=1e-12)
    for member in range(3):
        rows = slice(int(offsets[member]), int(offsets[member + 1]))
        alone, loss_alone = fitted(rows, np.array([0, rows.stop - rows.start]))
        assert fleet.weight[member].tobytes() == alone.weight[0].tobytes()
        assert fleet.bias[member].tobytes() == alone.bias[0].tobytes()
        assert losses[member] == loss_alone[0]


@pytest.mark.parametrize("fitting", FITS)
def test_a_member_whose_classes_all_weigh_0_fails_alone(fit, sample, fitting):
    features, labels, _ = sample
    loss = Loss(kind=SOFTMAX, class_weights=((0, 1.0), (1, 2.0), (2, 0.0)))
    order = np.argsort(labels[SOFTMAX] == 2, kind="stable")
    weighing = int((labels[SOFTMAX] != 2).sum())
    found = fit(
        features[order], labels[SOFTMAX][order], replace(fitting, penalize_bias=True), loss=loss, outputs=3,
        offsets=np.array([0, weighing, 240]),
    )  # fmt: skip
    assert found.states.tolist() == [MemberState.FINISHED, MemberState.DIVERGED]
