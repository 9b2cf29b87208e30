"""Metrics of two versions side by side."""

from __future__ import annotations

from epochd.v1 import models_pb2 as pb
from epochd.v1 import validation_pb2
from epochd_server.codec.comparing import compare_versions


def version(**metrics: float) -> pb.ModelVersion:
    values = [
        validation_pb2.MetricValue(metric=validation_pb2.Metric.Value(f"METRIC_{name.upper()}"), value=value)
        for name, value in metrics.items()
    ]
    evaluation = validation_pb2.Evaluation(rows=4, loss=0.5, metrics=values, confusion=[2, 0, 0, 2])
    return pb.ModelVersion(evaluation=evaluation)


def test_metrics_are_compared_by_name_whatever_their_order() -> None:
    compared = compare_versions(version(f1=0.5, accuracy=0.75), version(accuracy=0.75, f1=0.25, brier=0.125))
    found = {field.field: field for field in compared if field.field.startswith("evaluation.")}
    assert found["evaluation.metrics.f1"].base.number == 0.5
    assert found["evaluation.metrics.f1"].other.number == 0.25
    assert found["evaluation.metrics.accuracy"].same
    assert not found["evaluation.metrics.brier"].HasField("base")
    assert not any("confusion" in field for field in found)
