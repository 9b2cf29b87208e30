"""Every metric equals scikit-learn's to 1e-9: with weights, ties, classes that do not occur, and few rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from sklearn.preprocessing import label_binarize

from epochd_server.domain.specs import Loss, LossKind
from epochd_server.domain.validation import REGRESSION_METRICS, Metric
from epochd_server.engine.metrics import evaluate, measure, measure_members

Array = NDArray[np.generic]
MSE = Loss(kind=LossKind.MSE)
BCE = Loss(kind=LossKind.BCE_WITH_LOGITS)
CROSS_ENTROPY = Loss(kind=LossKind.CROSS_ENTROPY)

TOLERANCE = {"rtol": 1e-9, "atol": 1e-9}

REGRESSIONS: Mapping[Metric, Callable[..., float]] = {
    Metric.MSE: sk.mean_squared_error,
    Metric.RMSE: sk.root_mean_squared_error,
    Metric.MAE: sk.mean_absolute_error,
    Metric.MAPE: sk.mean_absolute_percentage_error,
    Metric.R2: sk.r2_score,
    Metric.PINBALL: sk.mean_pinball_loss,
}

OF_LABELS: Mapping[Metric, Callable[..., float]] = {
    Metric.ACCURACY: sk.accuracy_score,
    Metric.BALANCED_ACCURACY: sk.balanced_accuracy_score,
    Metric.PRECISION_MACRO: partial(sk.precision_score, average="macro", zero_division=0),
    Metric.RECALL_MACRO: partial(sk.recall_score, average="macro", zero_division=0),
    Metric.F1_MACRO: partial(sk.f1_score, average="macro", zero_division=0),
    Metric.PRECISION_MICRO: partial(sk.precision_score, average="micro", zero_division=0),
    Metric.RECALL_MICRO: partial(sk.recall_score, average="micro", zero_division=0),
    Metric.F1_MICRO: partial(sk.f1_score, average="micro", zero_division=0),
}

OF_TWO: Mapping[Metric, Callable[..., float]] = {
    Metric.PRECISION: partial(sk.precision_score, zero_division=0),
    Metric.RECALL: partial(sk.recall_score, zero_division=0),
    Metric.F1: partial(sk.f1_score, zero_division=0),
}

OF_SCORES: Mapping[Metric, Callable[..., float]] = {
    Metric.ROC_AUC: sk.roc_auc_score,
    Metric.AVERAGE_PRECISION: sk.average_precision_score,
    Metric.BRIER: sk.brier_score_loss,
    Metric.LOG_LOSS: partial(sk.log_loss, labels=[0, 1]),
}


@pytest.fixture(autouse=True)
def quiet_oracle() -> object:
    """scikit-learn warns where a metric is not defined; that is looked at here on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def weights_of(draw: st.DrawFn, rows: int) -> Array | None:
    """None, or weights of which the first is above 0 and others may be 0."""
    if draw(st.booleans()):
        return None
    drawn = draw(arrays(np.int64, rows, elements=st.integers(0, 4)))
    weights = drawn / 2.0
    weights[0] += 0.5
    return weights


@st.composite
def regressions(draw: st.DrawFn) -> tuple[Array, Array, Array | None]:
    """Targets and predictions [n, t] of few distinct values, so that there are ties and constant targets."""
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 3)))
    values = arrays(np.float64, shape, elements=st.integers(-6, 6).map(lambda whole: whole / 4))
    return draw(values), draw(values), weights_of(draw, shape[0])


@st.composite
def logits(draw: st.DrawFn, classes: int) -> tuple[Array, Array, Array | None]:
    """Labels [n] and logits [n, outputs], with ties, large values and classes that do not occur."""
    rows, outputs = draw(st.integers(2, 16)), 1 if classes == 2 else classes
    steps = st.sampled_from([-80.0, -3.0, -1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 2.5, 60.0])
    values = draw(arrays(np.float64, (rows, outputs), elements=steps))
    labels = draw(arrays(np.int64, rows, elements=st.integers(0, classes - 1)))
    return labels, values, weights_of(draw, rows)


@given(regressions())
def test_regression_metrics_equal_those_of_scikit_learn(
    rows: tuple[Array, Array, Array | None],
) -> None:
    targets, predictions, weights = rows
    measured = measure(list(REGRESSIONS), MSE, predictions, targets, weights)
    expected = [oracle(targets, predictions, sample_weight=weights) for oracle in REGRESSIONS.values()]
    np.testing.assert_allclose(measured, expected, **TOLERANCE)


@given(logits(2))
def test_binary_label_metrics_equal_those_of_scikit_learn(rows: tuple[Array, Array, Array | None]) -> None:
    labels, values, weights = rows
    oracles = {**OF_LABELS, **OF_TWO}
    measured = measure(list(oracles), BCE, values, labels[:, None], weights)
    predicted = (values[:, 0] > 0).astype(np.int64)
    expected = [oracle(labels, predicted, sample_weight=weights) for oracle in oracles.values()]
    np.testing.assert_allclose(measured, expected, **TOLERANCE)


@given(logits(2))
def test_binary_probability_metrics_equal_those_of_scikit_learn(
    rows: tuple[Array, Array, Array | None],
) -> None:
    labels, values, weights = rows
    measured = dict(
        zip(OF_SCORES, measure(list(OF_SCORES), BCE, values, labels[:, None], weights), strict=True)
    )
    one_class_counts = len(np.unique(labels if weights is None else labels[weights > 0])) < 2
    for metric, oracle in OF_SCORES.items():
        if metric is Metric.ROC_AUC and one_class_counts:
            assert np.isnan(measured[metric])
            continue
        if metric is Metric.AVERAGE_PRECISION and not labels.any():
            assert measured[metric] == 0
            continue
        expected = oracle(labels, expit(values[:, 0]), sample_weight=weights)
        np.testing.assert_allclose(measured[metric], expected, **TOLERANCE, err_msg=metric.value)


@given(logits(4))
def test_multiclass_metrics_equal_those_of_scikit_learn(rows: tuple[Array, Array, Array | None]) -> None:
    labels, values, weights = rows
    measured = measure(list(OF_LABELS), CROSS_ENTROPY, values, labels, weights)
    predicted = values.argmax(1)
    expected = [oracle(labels, predicted, sample_weight=weights) for oracle in OF_LABELS.values()]
    np.testing.assert_allclose(measured, expected, **TOLERANCE)

    probabilities = softmax(values, axis=1)
    each = label_binarize(labels, classes=range(4))
    scores = [Metric.LOG_LOSS, Metric.BRIER, Metric.AVERAGE_PRECISION]
    measured = measure(scores, CROSS_ENTROPY, values, labels, weights)
    expected = [
        sk.log_loss(labels, probabilities, labels=range(4), sample_weight=weights),
        sk.brier_score_loss(labels, probabilities, labels=range(4), sample_weight=weights),
        sk.average_precision_score(each, probabilities, average="macro", sample_weight=weights),
    ]
    np.testing.assert_allclose(measured, expected, **TOLERANCE)


def test_roc_auc_of_many_classes_is_the_mean_of_one_against_the_rest() -> None:
    """And NaN where a class does not occur."""
    random = np.random.default_rng(5)
    labels, values = random.integers(0, 4, 60), random.normal(size=(60, 4)).round(1)
    weights = random.integers(1, 4, 60).astype(float)
    (measured,) = measure([Metric.ROC_AUC], CROSS_ENTROPY, values, labels, weights)
    expected = np.mean(
        [
            sk.roc_auc_score(labels == one, softmax(values, axis=1)[:, one], sample_weight=weights)
            for one in range(4)
        ]
    )
    np.testing.assert_allclose(measured, expected, **TOLERANCE)
    assert np.isnan(measure([Metric.ROC_AUC], CROSS_ENTROPY, values, np.minimum(labels, 2))).all()


@given(logits(3))
def test_the_calibration_error_follows_from_scikit_learns_calibration_curve(
    rows: tuple[Array, Array, Array | None],
) -> None:
    labels, values, _ = rows
    probabilities = softmax(values, axis=1)
    confidence, right = probabilities.max(1), labels == probabilities.argmax(1)
    # a curve needs both outcomes: two rows of their own bin are added, and left out again
    true, mean = calibration_curve(np.append(right, [0, 1]), np.append(confidence, [0, 0]), n_bins=10)
    counts = np.bincount(np.searchsorted(np.linspace(0, 1, 11)[1:-1], confidence), minlength=10)
    counts = counts[counts > 0]
    expected = (counts * np.abs(true - mean)[-len(counts) :]).sum() / len(labels)
    measured = measure([Metric.CALIBRATION_ERROR], CROSS_ENTROPY, values, labels)
    np.testing.assert_allclose(measured, [expected], **TOLERANCE)


def test_two_outputs_are_measured_as_two_classes_with_one_logit_are() -> None:
    random = np.random.default_rng(3)
    labels, logit = random.integers(0, 2, 40), random.normal(size=40)
    metrics = [metric for metric in Metric if metric.of_classes]
    one = measure(metrics, BCE, logit[:, None], labels[:, None])
    two = measure(metrics, CROSS_ENTROPY, np.stack([np.zeros(40), logit], axis=1), labels)
    np.testing.assert_allclose(two, one, **TOLERANCE)


@given(st.lists(logits(3), min_size=1, max_size=4))
def test_many_models_are_measured_as_each_is_alone(
    models: list[tuple[Array, Array, Array | None]],
) -> None:
    """Bit for bit; one without rows and one whose outputs are not finite disturb nobody."""
    labels = np.concatenate([rows[0] for rows in models] + [np.zeros(2, np.int64)])
    values = np.concatenate([rows[1] for rows in models] + [np.full((2, 3), np.nan)])
    weights = np.concatenate([np.ones(len(rows[0])) if rows[2] is None else rows[2] for rows in models])
    weights = np.append(weights, [1.0, 1.0])
    counts = np.array([*(len(rows[0]) for rows in models), 0, 2])
    of_classes = [metric for metric in Metric if metric.of_classes]
    for metrics, loss, targets in (
        (of_classes, CROSS_ENTROPY, labels),
        (list(REGRESSIONS), MSE, values[:, ::-1] * 2),
    ):
        together = measure_members(metrics, loss, values, targets, weights, counts)
        for end, count, found in zip(np.cumsum(counts), counts, together, strict=True):
            own = slice(end - count, end)
            alone = measure(metrics, loss, values[own], targets[own], weights[own])
            assert alone.tobytes() == found.tobytes()


@pytest.mark.parametrize("quantile", [0.1, 0.9])
def test_a_quantile_losss_pinball_is_at_its_quantile(quantile: float) -> None:
    random = np.random.default_rng(2)
    targets, predictions = random.normal(size=(9, 2)), random.normal(size=(9, 2))
    loss = Loss(kind=LossKind.QUANTILE, quantile=quantile)
    expected = sk.mean_pinball_loss(targets, predictions, alpha=quantile)
    np.testing.assert_allclose(measure([Metric.PINBALL], loss, predictions, targets), [expected], **TOLERANCE)


def test_rates_and_means_are_measured_where_outputs_say_more() -> None:
    """Outputs of poisson_nll are logarithms of rates; gaussian_nll has variances beside the means."""
    random = np.random.default_rng(2)
    targets, outputs = random.poisson(3, (9, 1)).astype(float), random.normal(size=(9, 2))
    poisson, gaussian = Loss(kind=LossKind.POISSON_NLL), Loss(kind=LossKind.GAUSSIAN_NLL)
    rates = sk.mean_squared_error(targets, np.exp(outputs[:, :1]))
    means = sk.mean_squared_error(targets, outputs[:, :1])
    np.testing.assert_allclose(measure([Metric.MSE], poisson, outputs[:, :1], targets), [rates], **TOLERANCE)
    np.testing.assert_allclose(measure([Metric.MSE], gaussian, outputs, targets), [means], **TOLERANCE)


def test_no_rows_and_outputs_that_are_not_finite_measure_nan() -> None:
    metrics = sorted(REGRESSION_METRICS, key=lambda metric: metric.value)
    assert np.isnan(measure(metrics, MSE, np.empty((0, 1)), np.empty((0, 1)))).all()
    assert np.isnan(measure(metrics, MSE, np.array([[np.inf]]), np.zeros((1, 1)))).all()


@given(logits(3))
def test_an_evaluation_has_scikit_learns_report_and_confusion_matrix(
    rows: tuple[Array, Array, Array | None],
) -> None:
    labels, values, weights = rows
    evaluation = evaluate((Metric.ACCURACY,), CROSS_ENTROPY, 0.5, values, labels, weights)
    predicted = values.argmax(1)
    confusion = sk.confusion_matrix(labels, predicted, labels=range(3), sample_weight=weights)
    np.testing.assert_allclose(evaluation.confusion, confusion, **TOLERANCE)
    expected = sk.precision_recall_fscore_support(
        labels, predicted, labels=range(3), sample_weight=weights, zero_division=0
    )
    measured = [(one.precision, one.recall, one.f1, one.support) for one in evaluation.classes]
    np.testing.assert_allclose(np.transpose(measured), expected, **TOLERANCE)
    assert (evaluation.rows, evaluation.loss) == (len(labels), 0.5)
