"""Two versions side by side."""

from __future__ import annotations

import math

from epochd.v1 import models_pb2 as pb
from epochd.v1 import validation_pb2
from epochd_server.codec.comparing import compare_versions


def fields(base: pb.ModelVersion, other: pb.ModelVersion) -> dict[str, pb.FieldComparison]:
    return {field.field: field for field in compare_versions(base, other)}


def test_only_results_are_shown_where_both_are_the_same():
    version = pb.ModelVersion(final_loss=1.0, rows=3, seed=7, name="a", run="b", weights_digest="c")
    assert list(fields(version, version)) == ["final_loss", "rows", "epochs", "parameters", "weights_bytes"]
    assert all(field.same for field in fields(version, version).values())


def test_names_times_and_digests_are_left_out():
    base, other = pb.ModelVersion(name="a", run="b", weights_digest="c"), pb.ModelVersion(name="d")
    other.create_time.seconds = 9
    assert all(field.same for field in fields(base, other).values())


def test_messages_maps_lists_and_enums_have_paths_and_values():
    base, other = pb.ModelVersion(feature_columns=["a", "b"], dtype=1), pb.ModelVersion(dtype=2)
    base.gradient.optimizer.sgd.lr = 0.5
    other.gradient.optimizer.adam.lr = 0.25
    base.labels["team"] = "blue"
    found = fields(base, other)
    assert found["gradient.optimizer.sgd.lr"].base.number == 0.5
    assert not found["gradient.optimizer.sgd.lr"].HasField("other")
    assert found["gradient.optimizer.adam.lr"].other.number == 0.25
    assert found["labels.team"].base.text == "blue"
    assert found["feature_columns"].base.text == "a, b"
    assert found["dtype"].base.text != found["dtype"].other.text
    assert "gradient.epochs" not in found


def test_losses_that_are_nan_are_the_same():
    nan = pb.ModelVersion(final_loss=math.nan)
    assert fields(nan, nan)["final_loss"].same
    assert not fields(nan, pb.ModelVersion(final_loss=1.0))["final_loss"].same


def measured(**metrics: float) -> pb.ModelVersion:
    values = [
        validation_pb2.MetricValue(metric=validation_pb2.Metric.Value(f"METRIC_{name.upper()}"), value=value)
        for name, value in metrics.items()
    ]
    evaluation = validation_pb2.Evaluation(rows=4, loss=0.5, metrics=values, confusion=[2, 0, 0, 2])
    return pb.ModelVersion(evaluation=evaluation)


def test_metrics_are_compared_by_name_whatever_their_order() -> None:
    compared = compare_versions(
        measured(f1=0.5, accuracy=0.75), measured(accuracy=0.75, f1=0.25, brier=0.125)
    )
    found = {field.field: field for field in compared if field.field.startswith("evaluation.")}
    assert found["evaluation.metrics.f1"].base.number == 0.5
    assert found["evaluation.metrics.f1"].other.number == 0.25
    assert found["evaluation.metrics.accuracy"].same
    assert not found["evaluation.metrics.brier"].HasField("base")
    assert not any("confusion" in field for field in found)
