"""A request like an earlier one is planned as if it were the first."""

from __future__ import annotations

import asyncio

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epochd.v1 import spec_pb2
from epochd.v1.trainer_pb2 import TrainRequest
from epochd_server.codec.tensors import encode_tensor
from epochd_server.domain.errors import EpochdError

VALUES = st.sampled_from([0.0, 1.0, -2.5, 3.0, 1e30, float("nan"), float("inf")])


@st.composite
def requests(draw: st.DrawFn) -> TrainRequest:
    """Requests of a few kinds, so that most are like another; some are no good."""
    rows = draw(st.sampled_from([2, 3]))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    features = np.array(draw(st.lists(VALUES, min_size=rows, max_size=rows)), dtype).reshape(rows, 1)
    targets = np.array(draw(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=rows, max_size=rows)), dtype)
    loss = draw(st.sampled_from(["mse", "bce_with_logits"]))
    request = TrainRequest(
        data=spec_pb2.TrainingData(
            tensors=spec_pb2.TensorData(features=encode_tensor(features), targets=encode_tensor(targets))
        ),
        model=spec_pb2.ModelSpec(linear=spec_pb2.LinearSpec()),
        loss=spec_pb2.Loss(**{loss: getattr(spec_pb2.Loss(), loss)}),
        gradient=spec_pb2.GradientFit(optimizer=spec_pb2.Optimizer(sgd=spec_pb2.Sgd(lr=0.1)), epochs=5),
        seed=draw(st.sampled_from([1, 2, -1])),
        request_id=draw(st.sampled_from(["", "a", "a b"])),
        model_name=draw(st.sampled_from(["", "line", "No Name"])),
    )
    if draw(st.booleans()):
        request.data.tensors.features.data += draw(st.sampled_from([b"", b"\0"]))
    return request


def outcome(planner, request: TrainRequest) -> object:
    """Everything that a plan says, or what is wrong with its request."""
    try:
        plan = asyncio.run(planner.plan(request))
    except EpochdError as error:
        return error.reason, getattr(error, "violations", None)
    arrays = [
        (a.dtype, a.shape, a.tobytes(), a.flags.writeable) for a in (plan.data.features, plan.data.targets)
    ]
    said = (plan.request, plan.asked, plan.model, plan.fingerprint, plan.spec, plan.started, plan.labels)
    return said, plan.steps, plan.memory_bytes, plan.dataset, arrays


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(requests(), min_size=2, max_size=12))
def test_what_was_planned_before_changes_no_plan(make_planner, asked) -> None:
    experienced = make_planner()
    for request in asked:
        assert outcome(experienced, request) == outcome(make_planner(), request)
