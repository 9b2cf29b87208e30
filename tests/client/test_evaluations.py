"""What the client makes of evaluations and cross-validations, without a server."""

from __future__ import annotations

import math

import numpy as np
import pytest

import epochd
from epochd import validation
from epochd._core.validating import cross_validation_of
from epochd._wire.validation import decode_evaluation
from epochd.v1 import models_pb2, spec_pb2, validation_pb2


def member(fold: int, loss: float | None, lr: float = 0.1) -> models_pb2.Member:
    key = spec_pb2.MemberKey(values=[spec_pb2.KeyValue(number=lr), spec_pb2.KeyValue(integer=fold)])
    message = models_pb2.Member(key=key)
    if loss is not None:
        value = validation_pb2.MetricValue(metric=validation_pb2.METRIC_R2, value=1 - loss)
        message.evaluation.CopyFrom(validation_pb2.Evaluation(loss=loss, metrics=[value]))
    return message


def test_every_metric_of_the_protocol_has_a_name():
    numbers = {value.name for value in validation_pb2.Metric.DESCRIPTOR.values} - {"METRIC_UNSPECIFIED"}
    assert {name.removeprefix("METRIC_").lower() for name in numbers} == set(validation.METRICS)


def test_combinations_are_ranked_by_their_mean_over_folds_failed_ones_last():
    members = [
        member(0, 0.5, 0.3), member(1, None, 0.3), member(0, 0.5, 0.2), member(1, 0.25, 0.2),
        member(0, 0.125, 0.1), member(1, 0.125, 0.1),
    ]  # fmt: skip
    result = cross_validation_of(members, ("lr", "fold"))
    assert [one.values for one in result] == [{"lr": 0.1}, {"lr": 0.2}, {"lr": 0.3}]
    assert (result.best.loss, result.best.loss_deviation) == (0.125, 0)
    assert result[1].loss_deviation == pytest.approx(np.std([0.5, 0.25], ddof=1))
    assert result[1].metrics == {"r2": 0.625}
    assert math.isnan(result[2].loss)
    assert str(result).splitlines()[1] == "  lr=0.1  loss 0.125 ± 0  r2 0.875 ± 0"


def test_a_fleet_without_folds_is_no_cross_validation():
    with pytest.raises(epochd.FailedPrecondition):
        cross_validation_of([], ("lr",))


def test_classes_are_known_by_their_labels():
    one = validation_pb2.ClassEvaluation(precision=1, recall=0.5, f1=2 / 3, support=4)
    message = validation_pb2.Evaluation(
        rows=8, loss=0.5, classes=[one, one], confusion=[2, 2, 0, 4], best_epoch=3
    )
    evaluation = decode_evaluation(message, np.array(["no", "yes"], object))
    assert list(evaluation.classes) == ["no", "yes"]
    assert evaluation.confusion.tolist() == [[2, 2], [0, 4]]
    assert str(evaluation) == "8 rows, loss 0.5, of epoch 3"


def test_a_metric_that_this_client_does_not_know_keeps_its_number():
    message = validation_pb2.Evaluation(metrics=[validation_pb2.MetricValue(metric=99, value=1)])  # type: ignore[arg-type]
    assert decode_evaluation(message, None).metrics == {"metric 99": 1.0}


def test_a_hold_out_is_split_in_one_way():
    with pytest.raises(epochd.InvalidArgument):
        epochd.HoldOut(time="day", group="town")
