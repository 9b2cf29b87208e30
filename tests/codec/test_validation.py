"""What is held out: requests with every fault named, and what comes back of what was stored."""

from __future__ import annotations

import math

import pytest

from epochd.v1 import validation_pb2 as pb
from epochd_server.codec.evaluations import METRICS, encode_evaluation, stored_evaluation
from epochd_server.codec.validation import decode_validation, encode_validation, stored_validation
from epochd_server.domain.errors import Violations
from epochd_server.domain.specs import Loss, LossKind
from epochd_server.domain.validation import (
    CalibrationBin,
    ClassEvaluation,
    EarlyStopping,
    Evaluation,
    Folds,
    GivenRows,
    HoldOut,
    Metric,
    Split,
    Validation,
)

MSE = Loss(kind=LossKind.MSE)
CROSS_ENTROPY = Loss(kind=LossKind.CROSS_ENTROPY)


def faults(message: pb.Validation, loss: Loss | None = MSE, folds: int = 0) -> dict[str, str]:
    violations = Violations()
    decode_validation(message, loss, folds, violations)
    return {violation.field: violation.description for violation in violations.found}


def test_every_metric_has_a_number() -> None:
    assert set(METRICS.values()) == set(Metric)
    assert len(METRICS) == len(pb.Metric.values()) - 1


@pytest.mark.parametrize(("loss", "split"), [(MSE, Split.RANDOM), (CROSS_ENTROPY, Split.STRATIFIED)])
def test_classifiers_are_stratified_unless_asked_otherwise(loss: Loss, split: Split) -> None:
    decoded = decode_validation(pb.Validation(fraction=0.25), loss, 0, Violations())
    assert decoded == Validation(rows=HoldOut(fraction=0.25, split=split))


@pytest.mark.parametrize(
    "validation",
    [
        Validation(rows=HoldOut(fraction=0.1), metrics=(Metric.R2, Metric.MAE)),
        Validation(rows=HoldOut(split=Split.TIME, column="day"), early_stopping=EarlyStopping(patience=3)),
        Validation(rows=Folds(count=5, split=Split.GROUP, column="shop")),
        Validation(
            rows=GivenRows(dataset="ab" * 32),
            early_stopping=EarlyStopping(metric=Metric.MSE, min_delta=0.5, restore_best=False, every=4),
        ),
        Validation(rows=GivenRows()),
    ],
)
def test_what_is_stored_comes_back(validation: Validation) -> None:
    message = encode_validation(validation)
    assert message is not None
    assert stored_validation(pb.Validation.FromString(message.SerializeToString()), MSE) == validation


def test_every_fault_is_named_at_once() -> None:
    message = pb.Validation(
        fraction=1.0,
        split=pb.Split(time_column=""),
        metrics=[pb.METRIC_MSE, pb.METRIC_ACCURACY, pb.METRIC_MSE, 99],
        early_stopping=pb.EarlyStopping(metric=pb.METRIC_F1, patience=0, min_delta=-1.0, every=0),
    )
    found = faults(message)
    assert set(found) == {
        "fraction",
        "split.time_column",
        "metrics[1]",
        "metrics[2]",
        "metrics[3]",
        "early_stopping.metric",
        "early_stopping.patience",
        "early_stopping.min_delta",
        "early_stopping.every",
    }
    assert found["metrics[1]"] == "accuracy measures classifiers; mse trains a regression"


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.0, math.nan, math.inf])
def test_a_fraction_is_between_0_and_1(fraction: float) -> None:
    assert "fraction" in faults(pb.Validation(fraction=fraction))


def test_rows_must_be_given_once() -> None:
    assert "rows" in faults(pb.Validation())
    assert "folds" in faults(pb.Validation(folds=3))
    assert "fraction" in faults(pb.Validation(fraction=0.5), folds=3)
    assert "split" in faults(pb.Validation(dataset=f"datasets/{'ab' * 32}", split=pb.Split(random=True)))
    assert "dataset" in faults(pb.Validation(dataset="sales"))


def test_a_regression_cannot_be_stratified() -> None:
    assert "split.stratified" in faults(pb.Validation(fraction=0.5, split=pb.Split(stratified=True)))


def test_an_evaluation_comes_back_as_it_was_stored() -> None:
    evaluation = Evaluation(
        rows=12,
        loss=0.5,
        metrics=((Metric.ACCURACY, 0.75), (Metric.F1, 0.5)),
        best_epoch=7,
        loss_deviation=0.25,
        deviations=(0.125, 0.5),
        best=("a", 3),
        classes=(ClassEvaluation(precision=1.0, recall=0.5, f1=2 / 3, support=4.0),) * 2,
        confusion=((2.0, 2.0), (0.0, 8.0)),
        calibration=(CalibrationBin(confidence=0.75, accuracy=0.5, weight=12.0),),
    )
    message = encode_evaluation(evaluation)
    assert message is not None
    assert stored_evaluation(pb.Evaluation.FromString(message.SerializeToString())) == evaluation
