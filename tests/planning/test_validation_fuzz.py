"""Whatever a request wants held out, the answer is a plan or names fields; nothing else escapes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epochd.v1 import tensor_pb2, validation_pb2
from epochd.v1.trainer_pb2 import TrainRequest
from epochd_server.codec.tensors import encode_tensor
from epochd_server.domain.errors import EpochdError, InvalidInput, Reason
from epochd_server.planning.planner import RequestPlanner

ROWS = 6
NAMES = st.sampled_from(["x", "y", "shop", "day", "odd", "", "nobody"])
numbers = st.floats() | st.sampled_from([0.0, 0.2, 0.5, 1.0])


@st.composite
def columns(draw: st.DrawFn, name: str) -> tensor_pb2.Column:
    rows = draw(st.sampled_from([ROWS, ROWS, 1, 0]))
    if draw(st.booleans()):
        values = draw(st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=rows, max_size=rows))
        return tensor_pb2.Column(name=name, strings=tensor_pb2.Strings(values=values))
    kind = draw(st.sampled_from(["float64", "int64", "bool"]))
    array = np.array(draw(st.lists(st.integers(0, 2), min_size=rows, max_size=rows)), kind)
    if kind == "float64" and rows and draw(st.booleans()):
        array[0] = draw(st.sampled_from([np.nan, np.inf, 0.5]))
    return tensor_pb2.Column(name=name, tensor=encode_tensor(array))


@st.composite
def validations(draw: st.DrawFn) -> validation_pb2.Validation:
    message = validation_pb2.Validation(
        metrics=draw(st.lists(st.integers(-1, 30), max_size=3)),
    )
    match draw(st.sampled_from(["fraction", "table", "tensors", "dataset", "folds", None])):
        case "fraction":
            message.fraction = draw(numbers)
        case "table":
            for name in draw(st.lists(NAMES, max_size=5)):
                message.table.columns.append(draw(columns(name)))
        case "tensors":
            shape = draw(st.lists(st.integers(0, 3), max_size=3))
            message.tensors.features.CopyFrom(encode_tensor(np.zeros(shape)))
            message.tensors.targets.CopyFrom(encode_tensor(np.zeros(draw(st.integers(0, 3)))))
        case "dataset":
            message.dataset = draw(st.sampled_from(["", "datasets/x", f"datasets/{'cd' * 32}"]))
        case "folds":
            message.folds = draw(st.integers(-1, 3))
    match draw(st.sampled_from(["random", "stratified", "time_column", "group_column", None])):
        case ("random" | "stratified") as kind:
            setattr(message.split, kind, draw(st.booleans()))
        case ("time_column" | "group_column") as kind:
            setattr(message.split, kind, draw(NAMES))
    if draw(st.booleans()):
        stopping = message.early_stopping
        stopping.metric = draw(st.integers(0, 30))
        stopping.min_delta = draw(numbers)
        stopping.patience = draw(st.integers(-1, 3))
    return message


@st.composite
def requests(draw: st.DrawFn) -> TrainRequest:
    request = TrainRequest(validation=draw(validations()))
    for name in ("x", "y", "shop", "day"):
        column = draw(columns(name))
        request.data.table.columns.append(column)
    request.data.target_columns.append("y")
    if draw(st.booleans()):
        request.data.feature_columns.append("x")
    if draw(st.booleans()):
        request.data.group_columns.append("shop")
    if draw(st.booleans()):
        request.data.weight_column = draw(st.sampled_from(["day", "odd"]))
    if draw(st.booleans()):
        request.sweep.folds = draw(st.integers(-1, 9))
    loss = draw(st.sampled_from(["mse", "cross_entropy", "bce_with_logits"]))
    getattr(request.loss, loss).SetInParent()
    request.model.linear.SetInParent()
    request.gradient.epochs = 1
    request.gradient.optimizer.sgd.lr = 0.1
    return request


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests())
def test_a_request_is_planned_or_its_faults_are_named(
    make_planner: Callable[..., RequestPlanner], request_: TrainRequest
) -> None:
    try:
        asyncio.run(make_planner().plan(request_))
    except InvalidInput as error:
        assert all(violation.field for violation in error.violations)  # noqa: PT017
    except EpochdError as error:
        assert error.reason is Reason.DATASET_NOT_FOUND  # noqa: PT017


@pytest.mark.parametrize("name", ["time_column", "group_column"])
def test_a_split_column_of_truth_values_will_do(
    name: str, table_request: Callable[..., TrainRequest], plan: Callable[[TrainRequest], object]
) -> None:
    request = table_request(x=[1.0] * 4, old=np.array([True, False, True, False]), y=[1.0, 2.0, 3.0, 4.0])
    request.validation.fraction = 0.5
    setattr(request.validation.split, name, "old")
    plan(request)
