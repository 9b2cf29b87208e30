"""The guard around every call, on real sockets: each of the four shapes, with handlers that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
import structlog
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from epochd.v1 import (
    activation_pb2,
    datasets_pb2,
    datasets_pb2_grpc,
    run_pb2,
    runs_pb2,
    runs_pb2_grpc,
    trainer_pb2,
    trainer_pb2_grpc,
)
from epochd_server.domain.errors import EpochdError, FieldViolation, InvalidInput, Reason
from epochd_server.rpc.calls import add_request_id
from epochd_server.rpc.interceptors import MAX_MESSAGE_BYTES, Guard, Registrar

SECRET = "/srv/secret/path.py"

UNARY = "/epochd.v1.Trainer/Predict"
UNARY_STREAM = "/epochd.v1.Trainer/Train"
STREAM_UNARY = "/epochd.v1.Datasets/UploadDataset"
STREAM_STREAM = "/epochd.v1.Trainer/ActivationTransformStream"
SHAPES = [UNARY, UNARY_STREAM, STREAM_UNARY, STREAM_STREAM]

ERRORS = {
    "invalid": InvalidInput([FieldViolation("seed", "must be >= 0"), FieldViolation("loss", "is not set")]),
    "missing": EpochdError(Reason.RUN_NOT_FOUND, "No run 'runs/x'.", {"name": "runs/x"}),
    "full": EpochdError(Reason.QUEUE_FULL),
    "bug": ValueError(f"cannot read {SECRET}"),
    "key": KeyError(SECRET),
    "memory": MemoryError(SECRET),
}


class Misbehaving(trainer_pb2_grpc.TrainerServicer, datasets_pb2_grpc.DatasetsServicer):
    """Handlers that raise what their request names; ``late`` ones answer once before they do."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def Predict(self, request, context):
        self.obey(request.model)
        if request.model == "large":
            return trainer_pb2.PredictResponse(model_version="x" * MAX_MESSAGE_BYTES)
        if request.model == "slow":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return trainer_pb2.PredictResponse(model_version=request.model)

    async def Train(self, request, context):
        try:
            yield trainer_pb2.TrainResponse()
            self.obey(request.model_name)
            if request.model_name == "endless":
                await asyncio.sleep(60)
        finally:
            self.closed.set()

    async def UploadDataset(self, request_iterator, context):
        async for message in request_iterator:
            self.obey(message.header.sha256)
        return datasets_pb2.UploadDatasetResponse()

    async def ActivationTransformStream(self, request_iterator, context):
        async for message in request_iterator:
            yield activation_pb2.ActivationTransformStreamResponse(data=message.data)
            self.obey(message.data.decode())

    @staticmethod
    def obey(word: str) -> None:
        if word in ERRORS:
            raise ERRORS[word]


class Patient(runs_pb2_grpc.RunsServicer):
    async def GetRun(self, request, context):
        return runs_pb2.GetRunResponse(run=run_pb2.Run(name=request.name))

    async def DeleteRun(self, request, context):
        return runs_pb2.DeleteRunResponse()


class Served:
    """A running server with its guard, its servicer and a channel."""

    def __init__(self, guard: Guard, servicer: Misbehaving, channel: grpc.aio.Channel) -> None:
        self.guard = guard
        self.servicer = servicer
        self.channel = channel
        self.trainer = trainer_pb2_grpc.TrainerStub(channel)
        self.datasets = datasets_pb2_grpc.DatasetsStub(channel)
        self.runs = runs_pb2_grpc.RunsStub(channel)

    async def call(self, method: str, word: str, **options) -> None:
        """Calls one of the four shapes with a word and reads the answer to its end."""
        if method == UNARY:
            await self.trainer.Predict(trainer_pb2.PredictRequest(model=word), **options)
        elif method == UNARY_STREAM:
            await drain(self.trainer.Train(trainer_pb2.TrainRequest(model_name=word), **options))
        elif method == STREAM_UNARY:
            header = datasets_pb2.UploadHeader(sha256=word)
            await self.datasets.UploadDataset([datasets_pb2.UploadDatasetRequest(header=header)], **options)
        else:
            request = activation_pb2.ActivationTransformStreamRequest(data=word.encode())
            await drain(self.trainer.ActivationTransformStream([request], **options))

    async def refused(self, method: str, word: str, **options) -> Refusal:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(method, word, **options)
        return Refusal(caught.value)


class Refusal:
    """An error with its details unpacked."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code()
        self.text = f"{error.details()} {error.trailing_metadata()}"
        status = rpc_status.from_call(_Finished(error))
        self.info = error_details_pb2.ErrorInfo()
        self.violations = []
        for detail in status.details:
            bad = error_details_pb2.BadRequest()
            if detail.Unpack(bad):
                self.violations = [v.field for v in bad.field_violations]
            detail.Unpack(self.info)


class _Finished:
    """An AioRpcError as ``grpc_status`` wants a call."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code, self.details = error.code, error.details
        self.trailing_metadata = lambda: error.trailing_metadata()


async def drain(stream: AsyncIterator[object]) -> None:
    async for _ in stream:
        pass


@pytest_asyncio.fixture
async def served():
    server, guard, servicer = grpc.aio.server(), Guard(), Misbehaving()
    registrar = Registrar(server, guard)
    trainer_pb2_grpc.add_TrainerServicer_to_server(servicer, registrar)
    datasets_pb2_grpc.add_DatasetsServicer_to_server(servicer, registrar)
    runs_pb2_grpc.add_RunsServicer_to_server(Patient(), registrar)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Served(guard, servicer, channel)
    await server.stop(0)


@pytest.fixture
def log():
    structlog.reset_defaults()
    with structlog.testing.capture_logs([add_request_id]) as lines:
        yield lines


@pytest.mark.parametrize("method", SHAPES)
async def test_a_known_error_reaches_the_client_with_code_reason_and_facts(served, method):
    refusal = await served.refused(method, "missing")
    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert refusal.info.reason == "RUN_NOT_FOUND"
    assert refusal.info.metadata["name"] == "runs/x"


@pytest.mark.parametrize("method", SHAPES)
async def test_invalid_input_names_every_field(served, method):
    refusal = await served.refused(method, "invalid")
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.violations == ["seed", "loss"]


@pytest.mark.parametrize("bug", ["bug", "key", "memory"])
@pytest.mark.parametrize("method", SHAPES)
async def test_a_bug_shows_the_client_nothing_and_the_log_everything(served, log, method, bug):
    refusal = await served.refused(method, bug, metadata=(("x-request-id", "call-7"),))
    assert refusal.code is grpc.StatusCode.INTERNAL
    assert refusal.info.reason == "INTERNAL"
    assert SECRET not in refusal.text
    assert "Traceback" not in refusal.text
    (line,) = [line for line in log if line["event"] == "bug"]
    assert (line["exc_info"], line["request_id"]) == (ERRORS[bug], "call-7")


@pytest.mark.parametrize("word", ["missing", "bug"])
@pytest.mark.parametrize("method", SHAPES)
async def test_after_a_refusal_the_next_call_on_the_channel_succeeds(served, method, word):
    await served.refused(method, word)
    await served.call(method, "fine")


@pytest.mark.parametrize("method", SHAPES)
async def test_bytes_that_are_no_message_are_invalid_input(served, method):
    garbage = b"\xff\xff\xff"
    make = {
        UNARY: lambda: served.channel.unary_unary(method)(garbage),
        UNARY_STREAM: lambda: drain(served.channel.unary_stream(method)(garbage)),
        STREAM_UNARY: lambda: served.channel.stream_unary(method)([garbage]),
        STREAM_STREAM: lambda: drain(served.channel.stream_stream(method)([garbage])),
    }[method]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await make()
    assert Refusal(caught.value).code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("method", SHAPES)
async def test_the_clients_request_id_is_given_back_with_an_error(served, method):
    refusal = await served.refused(method, "missing", metadata=(("x-request-id", "mine-1"),))
    assert refusal.info.metadata["request_id"] == "mine-1"


async def test_an_unusable_request_id_is_replaced(served):
    refusal = await served.refused(UNARY, "missing", metadata=(("x-request-id", "no good!"),))
    assert len(refusal.info.metadata["request_id"]) == 16


@pytest.mark.parametrize("method", SHAPES)
async def test_every_call_is_logged_in_one_line_with_method_code_and_time(served, log, method):
    await served.call(method, "fine")
    await served.refused(method, "full")
    lines = [(line["method"], line["code"], line["ms"] >= 0) for line in log if line["event"] == "call"]
    name = method.rpartition("/")[2]
    assert lines == [(name, "OK", True), (name, "RESOURCE_EXHAUSTED", True)]


@pytest.mark.parametrize("method", SHAPES)
async def test_calls_are_counted_by_method_and_code(served, method):
    await served.call(method, "fine")
    await served.refused(method, "bug")
    name = method.rpartition("/")[2]
    assert served.guard.calls == {(name, "OK"): 1, (name, "INTERNAL"): 1}


async def test_frequent_calls_that_succeed_are_logged_at_debug(served, log):
    await served.call(UNARY, "fine")
    assert [line["log_level"] for line in log] == ["debug"]


@pytest.mark.parametrize("method", SHAPES)
async def test_a_stopping_server_refuses_new_work_and_says_when_to_come_back(served, method):
    served.guard.stopping = True
    refusal = await served.refused(method, "fine")
    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert refusal.info.reason == "SERVER_STOPPING"


async def test_a_stopping_server_still_answers_what_only_reads(served):
    served.guard.stopping = True
    await served.runs.GetRun(runs_pb2.GetRunRequest(name="runs/x"))
    with pytest.raises(grpc.aio.AioRpcError):
        await served.runs.DeleteRun(runs_pb2.DeleteRunRequest(name="runs/x"))


async def test_an_answer_over_the_message_limit_is_refused_rather_than_lost(served):
    refusal = await served.refused(UNARY, "large")
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refusal.info.reason == "MESSAGE_TOO_LARGE"


async def test_a_client_that_leaves_closes_the_handlers_stream(served):
    call = served.trainer.Train(trainer_pb2.TrainRequest(model_name="endless"))
    await call.read()
    call.cancel()
    await asyncio.wait_for(served.servicer.closed.wait(), 5)


async def test_a_call_that_was_cancelled_is_logged_as_such_and_not_as_a_bug(served, log):
    call = served.trainer.Predict(trainer_pb2.PredictRequest(model="slow"))
    await asyncio.sleep(0.1)
    call.cancel()
    await asyncio.wait_for(served.servicer.cancelled.wait(), 5)
    await asyncio.sleep(0)
    assert [line.get("code", line["event"]) for line in log] == ["CANCELLED"]


async def test_what_a_stream_sent_before_its_error_arrives(served):
    call = served.trainer.Train(trainer_pb2.TrainRequest(model_name="missing"))
    assert await call.read() == trainer_pb2.TrainResponse()
    with pytest.raises(grpc.aio.AioRpcError):
        await call.read()
