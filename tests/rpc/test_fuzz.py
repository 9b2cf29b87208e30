"""Nothing that a client can put into a message is a bug of the server's: never INTERNAL or UNKNOWN, never a hang."""

from __future__ import annotations

import asyncio
import math

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epochd.v1 import (
    activation_pb2,
    datasets_pb2,
    differentiate_pb2,
    models_pb2,
    runs_pb2,
    spec_pb2,
    tensor_pb2,
    trainer_pb2,
)

BUGS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED}
SECONDS = 20
FIELD = FieldDescriptor
NASTY_TEXTS = ["", "a", "sigmoid", "models/a", "models/a@b", "runs/x", "w**2", "x\x00y", "../..", "é" * 70]

INTEGERS = {
    FIELD.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FIELD.TYPE_INT64: st.one_of(st.integers(-2, 40), st.integers(-(2**63), 2**63 - 1)),
    FIELD.TYPE_SFIXED64: st.one_of(st.integers(-2, 40), st.integers(-(2**63), 2**63 - 1)),
}
NUMBERS = st.one_of(
    st.sampled_from([0.0, -1.0, 1e-3, 1.0, math.nan, math.inf, -math.inf, 1e308, 5e-324]), st.floats()
)
SCALARS = {
    **INTEGERS,
    FIELD.TYPE_DOUBLE: NUMBERS,
    FIELD.TYPE_BOOL: st.booleans(),
    FIELD.TYPE_STRING: st.one_of(st.sampled_from(NASTY_TEXTS), st.text(max_size=20)),
    FIELD.TYPE_BYTES: st.one_of(st.binary(max_size=40), st.sampled_from([bytes(8), bytes(24)])),
}


@st.composite
def messages(draw, kind: type[Message], depth: int = 7) -> Message:
    """Any message of a type: each field unset or set, enums known or not, bytes of any length."""
    message = kind()
    for field in _chosen(draw, kind.DESCRIPTOR):
        _fill(draw, message, field, depth)
    return message


def _chosen(draw, descriptor: Descriptor) -> list[FieldDescriptor]:
    fields = [
        f for f in descriptor.fields if f.containing_oneof is None or len(f.containing_oneof.fields) == 1
    ]
    chosen = [field for field in fields if draw(st.integers(0, 3))]
    for oneof in descriptor.oneofs:
        if len(oneof.fields) > 1 and draw(st.integers(0, 7)):
            chosen += [draw(st.sampled_from(list(oneof.fields)))]
    return chosen


@st.composite
def nearly(draw, good: Message) -> Message:
    """A good request in which up to three fields, anywhere, were replaced."""
    message = type(good)()
    message.CopyFrom(good)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(_inside(message)))
        field = draw(st.sampled_from(list(place.DESCRIPTOR.fields)))
        place.ClearField(field.name)
        _fill(draw, place, field, 3)
    return message


def _inside(message: Message) -> list[Message]:
    """A message and all messages in it."""
    found = [message] if message.DESCRIPTOR.fields else []
    for field, value in message.ListFields():
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        if field.message_type is not None and not is_map:
            for inner in value if field.is_repeated else [value]:
                found += _inside(inner)
    return found


def _fill(draw, message: Message, field: FieldDescriptor, depth: int) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        _fill_map(draw, message, field)
    elif field.is_repeated:
        count = draw(st.integers(0, 3))
        if field.message_type is None:
            getattr(message, field.name).extend(draw(_scalar(field)) for _ in range(count))
        elif depth:
            kind = field.message_type._concrete_class
            getattr(message, field.name).extend(draw(messages(kind, depth - 1)) for _ in range(count))
    elif field.message_type is None:
        setattr(message, field.name, draw(_scalar(field)))
    elif depth:
        getattr(message, field.name).CopyFrom(draw(messages(field.message_type._concrete_class, depth - 1)))


def _fill_map(draw, message: Message, field: FieldDescriptor) -> None:
    value = field.message_type.fields_by_name["value"]
    for key in draw(st.lists(SCALARS[FIELD.TYPE_STRING], max_size=2)):
        if value.message_type is None:
            getattr(message, field.name)[key] = draw(_scalar(value))
        else:
            getattr(message, field.name)[key].CopyFrom(draw(messages(value.message_type._concrete_class, 1)))


def _scalar(field: FieldDescriptor) -> st.SearchStrategy:
    if field.enum_type is not None:
        known = [value.number for value in field.enum_type.values]
        return st.one_of(st.sampled_from(known), st.sampled_from([99, -1]))
    return SCALARS[field.type]


def code_of(call) -> grpc.StatusCode:
    """How a call ended; a stream is read to its end."""
    try:
        response = call()
        if hasattr(response, "__next__"):
            for _ in response:
                pass
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.fixture(scope="module")
def sync_channel(server):
    with grpc.insecure_channel(server.address) as opened:
        yield opened


UNARY = {
    "Trainer/Predict": trainer_pb2.PredictRequest,
    "Trainer/ActivationTransform": activation_pb2.ActivationTransformRequest,
    "Trainer/Differentiate": differentiate_pb2.DifferentiateRequest,
    "Runs/GetRun": runs_pb2.GetRunRequest,
    "Runs/ListRuns": runs_pb2.ListRunsRequest,
    "Models/GetVersion": models_pb2.GetVersionRequest,
    "Models/ListModels": models_pb2.ListModelsRequest,
    "Models/ListVersions": models_pb2.ListVersionsRequest,
    "Models/SetAlias": models_pb2.SetAliasRequest,
    "Datasets/BeginUpload": datasets_pb2.BeginUploadRequest,
    "Datasets/ListDatasets": datasets_pb2.ListDatasetsRequest,
}
QUICK = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


@pytest.mark.parametrize("method", UNARY)
def test_no_unary_request_is_a_bug(sync_channel, method):
    call = sync_channel.unary_unary(f"/epochd.v1.{method}")

    @QUICK
    @given(messages(UNARY[method]))
    def check(request: Message) -> None:
        assert code_of(lambda: call(request.SerializeToString(), timeout=SECONDS)) not in BUGS

    check()


def test_no_train_request_is_a_bug(sync_channel):
    """Only validated: what is trained in earnest is other tests' matter."""
    call = sync_channel.unary_stream("/epochd.v1.Trainer/Train")

    @settings(QUICK, max_examples=250)
    @given(messages(trainer_pb2.TrainRequest))
    def check(request: trainer_pb2.TrainRequest) -> None:
        request.validate_only = True
        assert code_of(lambda: call(request.SerializeToString(), timeout=SECONDS)) not in BUGS

    check()


def test_no_nearly_good_train_request_is_a_bug(sync_channel, linear):
    call = sync_channel.unary_stream("/epochd.v1.Trainer/Train")
    column = tensor_pb2.Column(name="x", numbers=tensor_pb2.Numbers(values=[1, 2, 3]))
    labels = tensor_pb2.Column(name="y", strings=tensor_pb2.Strings(values=["a", "b", "a"]))
    table = spec_pb2.TrainingData(table=tensor_pb2.Table(columns=[column, labels]), target_columns=["y"])
    relu = activation_pb2.ACTIVATION_FUNCTION_LEAKY_RELU
    layers = [
        spec_pb2.LayerSpec(linear=spec_pb2.LinearSpec(out_features=4)),
        spec_pb2.LayerSpec(activation=spec_pb2.ActivationSpec(function=relu)),
        spec_pb2.LayerSpec(linear=spec_pb2.LinearSpec()),
    ]
    classifier = linear(
        data=table,
        model=spec_pb2.ModelSpec(sequential=spec_pb2.SequentialSpec(layers=layers)),
        loss=spec_pb2.Loss(cross_entropy=spec_pb2.CrossEntropyLoss()),
    )

    @settings(QUICK, max_examples=200)
    @given(st.one_of(nearly(linear()), nearly(classifier)))
    def check(request: trainer_pb2.TrainRequest) -> None:
        request.validate_only = True
        assert code_of(lambda: call(request.SerializeToString(), timeout=SECONDS)) not in BUGS

    check()


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("Trainer/ActivationTransformStream", activation_pb2.ActivationTransformStreamRequest),
        ("Datasets/UploadDataset", datasets_pb2.UploadDatasetRequest),
    ],
)
def test_no_stream_of_requests_is_a_bug(sync_channel, method, kind):
    call = sync_channel.stream_stream(f"/epochd.v1.{method}")

    @QUICK
    @given(st.lists(messages(kind), max_size=4))
    def check(requests: list[Message]) -> None:
        assert (
            code_of(lambda: call(iter([r.SerializeToString() for r in requests]), timeout=SECONDS))
            not in BUGS
        )

    check()


@pytest.mark.parametrize("method", ["Trainer/Predict", "Trainer/Differentiate"])
def test_no_bytes_are_a_bug(sync_channel, method):
    call = sync_channel.unary_unary(f"/epochd.v1.{method}")

    @QUICK
    @given(st.binary(max_size=200))
    def check(data: bytes) -> None:
        assert code_of(lambda: call(data, timeout=SECONDS)) not in BUGS

    check()


async def test_a_good_request_succeeds_after_all_of_it(api, linear):
    events = await asyncio.wait_for(api.train(linear()), 60)
    assert events[-1].WhichOneof("kind") == "succeeded"
