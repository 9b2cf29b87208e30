"""A small real gRPC server with canned behaviour, and both kinds of client over it."""

# ruff: noqa: N802 - servicers have the names of the RPCs

from __future__ import annotations

import asyncio
import hashlib
import inspect
import itertools
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import grpc
import numpy as np
import pytest
from google.protobuf import any_pb2, duration_pb2, message

import epochd
from epochd.v1 import (
    activation_pb2,
    datasets_pb2,
    datasets_pb2_grpc,
    differentiate_pb2,
    errors_pb2,
    models_pb2,
    models_pb2_grpc,
    run_pb2,
    runs_pb2,
    runs_pb2_grpc,
    spec_pb2,
    tensor_pb2,
    trainer_pb2,
    trainer_pb2_grpc,
)


def tensor(values: Any, dtype: str = "float64") -> tensor_pb2.Tensor:
    array = np.asarray(values, dtype=dtype)
    number = tensor_pb2.DataType.Value(f"DATA_TYPE_{dtype.upper()}")
    return tensor_pb2.Tensor(dtype=number, shape=array.shape, data=array.tobytes())


def array_of(message: tensor_pb2.Tensor) -> np.ndarray:
    name = tensor_pb2.DataType.Name(message.dtype).removeprefix("DATA_TYPE_").lower()
    return np.frombuffer(message.data, dtype=name).reshape(tuple(message.shape))


def packed(name: str, detail: message.Message) -> any_pb2.Any:
    return any_pb2.Any(type_url=f"type.googleapis.com/google.rpc.{name}", value=detail.SerializeToString())


def script(epochs: int = 5, end: str = "succeeded") -> list[run_pb2.Event]:
    """The events of a whole run."""
    events = [
        run_pb2.Event(queued=run_pb2.Queued(run="runs/r1", model="models/house-price")),
        run_pb2.Event(
            started=run_pb2.Started(parameters=2, rows=3, epochs=epochs, device="cpu", seed=1, batch_size=3)
        ),
    ]
    for epoch in range(epochs):
        log = run_pb2.EpochLog(epoch=epoch, loss=1 / (epoch + 1), lr=0.01, rows_per_second=1500)
        log.parameters.add(name="linear.weight", tensor=tensor([[0.5 * epoch]], "float32"))
        events.append(run_pb2.Event(epoch_log=log))
    match end:
        case "succeeded":
            done = run_pb2.Succeeded(
                model_version="models/house-price/versions/3", epochs=epochs, final_loss=0.2
            )
            events.append(run_pb2.Event(succeeded=done))
        case "failed":
            failure = run_pb2.Failure(
                reason="LOSS_NOT_FINITE", message="The loss is NaN.", hint="Try a smaller lr.", epoch=4
            )
            events.append(run_pb2.Event(failed=failure))
        case "cancelled":
            events.append(run_pb2.Event(cancelled=run_pb2.Cancelled(epochs=epochs)))
    for sequence, event in enumerate(events, 1):
        event.sequence = sequence
        event.time.FromSeconds(1_700_000_000 + sequence)
    return events


class FakeServer(
    trainer_pb2_grpc.TrainerServicer,
    runs_pb2_grpc.RunsServicer,
    models_pb2_grpc.ModelsServicer,
    datasets_pb2_grpc.DatasetsServicer,
):
    """All services of epochd in one object, whose attributes tests set to make it behave.

    ``fail_next`` holds statuses with which the next calls (or, of a stream, its next messages) fail.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.requests: list[Any] = []
        self.metadata: list[dict[str, str]] = []
        self.failures: dict[str, list[tuple[grpc.StatusCode, list[any_pb2.Any]]]] = {}
        self.events = script()
        self.break_after: list[int] = []  # each stream of events breaks off after so many events
        self.hold = threading.Event()  # set: streams of events may go past `held_from`
        self.hold.set()
        self.watched = threading.Event()
        self.held_from = 3
        self.uploaded: dict[str, bytes] = {}
        self.partial: dict[str, bytes] = {}
        self.break_upload_at: list[int] = []
        self.parameters_fit = True
        self.members: list[models_pb2.Member] = []
        self.parameters: dict[str, np.ndarray] = {
            "linear.weight": np.full((1, 1), 2.0, "float32"),
            "linear.bias": np.full(1, 0.5, "float32"),
        }
        self.aliases = {"champion": "models/house-price/versions/2"}
        self.version = models_pb2.ModelVersion(
            name="models/house-price/versions/3",
            run="runs/r1",
            model=spec_pb2.ModelSpec(linear=spec_pb2.LinearSpec(in_features=1, out_features=1, bias=True)),
            loss=spec_pb2.Loss(mse=spec_pb2.MseLoss()),
            feature_columns=["x0"],
            target_columns=["y"],
            dtype=tensor_pb2.DATA_TYPE_FLOAT32,
            parameters=2,
            rows=3,
            epochs=5,
            final_loss=0.2,
            seed=1,
        )

    # -- bookkeeping ----------------------------------------------------------------------------------------------

    def fail(self, method: str, code: grpc.StatusCode, *, times: int = 1, details: Any = ()) -> None:
        self.failures.setdefault(method, []).extend([(code, list(details))] * times)

    def _enter(self, request: Any, context: grpc.ServicerContext) -> None:
        method = inspect.stack()[1].function
        self.calls.append(method)
        self.requests.append(request)
        self.metadata.append(
            {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        )
        if self.failures.get(method):
            code, details = self.failures[method].pop(0)
            self.abort(context, code, details)

    @staticmethod
    def abort(context: grpc.ServicerContext, code: grpc.StatusCode, details: list[any_pb2.Any]) -> None:
        status = errors_pb2.ErrorStatus(code=code.value[0], message="as the test wants", details=details)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(code, "as the test wants")

    def count(self, method: str) -> int:
        return self.calls.count(method)

    # -- Trainer --------------------------------------------------------------------------------------------------

    def Train(self, request, context):
        self._enter(request, context)
        if request.validate_only:
            started = run_pb2.Started(parameters=2, rows=3, feature_columns=["x0"], device="cpu")
            yield trainer_pb2.TrainResponse(
                estimate=trainer_pb2.TrainEstimate(started=started, steps=10, memory_bytes=2_000_000)
            )
            return
        for events in self._stream_events(0, context):
            yield trainer_pb2.TrainResponse(events=events)

    def _stream_events(self, after: int, context) -> Iterator[list[run_pb2.Event]]:
        limit = self.break_after.pop(0) if self.break_after else None
        for sent in itertools.count():
            if after + sent >= len(self.events):
                return
            if sent == limit:
                self.abort(context, grpc.StatusCode.UNAVAILABLE, [])
            while after + sent >= self.held_from and not self.hold.wait(0.05):
                if not context.is_active():
                    return
            yield [self.events[after + sent]]

    def Predict(self, request, context):
        self._enter(request, context)
        response = trainer_pb2.PredictResponse(model_version=self.version.name)
        if request.HasField("table"):
            x = np.stack([array_of(column.tensor) for column in request.table.columns], axis=1)
        else:
            x = array_of(request.tensor)
        sums = np.atleast_2d(x).sum(axis=1).astype("float64")
        if not self.version.HasField("classes"):
            response.values.CopyFrom(tensor(2 * sums))
            return response
        response.classes.CopyFrom(self.version.classes)
        names = self.version.classes.strings.values
        response.labels.strings.values.extend(names[int(s > 0)] for s in sums)
        if request.probabilities:
            response.probabilities.CopyFrom(tensor(1 / (1 + np.exp(-sums))))
        if request.logits:
            response.logits.CopyFrom(tensor(sums))
        return response

    def ActivationTransform(self, request, context):
        self._enter(request, context)
        doubled = tensor_pb2.Tensor(dtype=request.input.dtype, shape=request.input.shape)
        doubled.data = _double(request.input.data, request.input.dtype)
        return activation_pb2.ActivationTransformResponse(output=doubled)

    def ActivationTransformStream(self, request_iterator, context):
        first = next(request_iterator)
        self._enter(first, context)
        header = activation_pb2.ActivationStreamResult(dtype=first.header.dtype, shape=first.header.shape)
        yield activation_pb2.ActivationTransformStreamResponse(header=header)
        for part in request_iterator:
            self.requests.append(len(part.data))
            yield activation_pb2.ActivationTransformStreamResponse(
                data=_double(part.data, first.header.dtype)
            )

    def Differentiate(self, request, context):
        self._enter(request, context)
        named = [tensor_pb2.NamedTensor(name="w", tensor=tensor(8.0))]
        return differentiate_pb2.DifferentiateResponse(
            value=tensor(13.0),
            gradients=named,
            intermediates=[tensor_pb2.NamedTensor(name="y", tensor=tensor([4.0, 5.0]))],
            history=[differentiate_pb2.Gradients(gradients=named)] * 2,
        )

    # -- Runs -----------------------------------------------------------------------------------------------------

    def GetRun(self, request, context):
        self._enter(request, context)
        if request.name != "runs/r1":
            info = errors_pb2.ErrorInfo(
                reason="RUN_NOT_FOUND", domain="epochd", metadata={"run": request.name}
            )
            self.abort(context, grpc.StatusCode.NOT_FOUND, [packed("ErrorInfo", info)])
        return runs_pb2.GetRunResponse(run=self._run("runs/r1"))

    @staticmethod
    def _run(name: str) -> run_pb2.Run:
        return run_pb2.Run(name=name, state=run_pb2.RUN_STATE_RUNNING, model="models/house-price", epochs=5)

    def ListRuns(self, request, context):
        self._enter(request, context)
        page = int(request.page_token or 0)
        runs = [self._run(f"runs/r{2 * page + offset}") for offset in range(2)]
        return runs_pb2.ListRunsResponse(runs=runs, next_page_token=str(page + 1) if page < 2 else "")

    def WatchRun(self, request, context):
        self._enter(request, context)
        self.watched.set()
        for events in self._stream_events(request.after_sequence, context):
            yield runs_pb2.WatchRunResponse(events=events)

    def CancelRun(self, request, context):
        self._enter(request, context)
        self.events = [*self.events[:5], run_pb2.Event(sequence=6, cancelled=run_pb2.Cancelled(epochs=3))]
        self.hold.set()
        return runs_pb2.CancelRunResponse(run=self._run(request.name))

    def DeleteRun(self, request, context):
        self._enter(request, context)
        return runs_pb2.DeleteRunResponse()

    # -- Models ---------------------------------------------------------------------------------------------------

    def _model(self) -> models_pb2.Model:
        aliases = [models_pb2.Alias(alias=alias, version=version) for alias, version in self.aliases.items()]
        return models_pb2.Model(name="models/house-price", latest_version=self.version.name, aliases=aliases)

    def GetModel(self, request, context):
        self._enter(request, context)
        return models_pb2.GetModelResponse(model=self._model())

    def ListModels(self, request, context):
        self._enter(request, context)
        return models_pb2.ListModelsResponse(models=[self._model()])

    def GetVersion(self, request, context):
        self._enter(request, context)
        return models_pb2.GetVersionResponse(version=self.version)

    def ListVersions(self, request, context):
        self._enter(request, context)
        return models_pb2.ListVersionsResponse(versions=[self.version])

    def GetParameters(self, request, context):
        self._enter(request, context)
        if not self.parameters_fit:
            info = errors_pb2.ErrorInfo(reason="MESSAGE_TOO_LARGE")
            self.abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, [packed("ErrorInfo", info)])
        named = [
            tensor_pb2.NamedTensor(name=name, tensor=tensor(array, "float32"))
            for name, array in self.parameters.items()
        ]
        return models_pb2.GetParametersResponse(model_version=self.version.name, parameters=named)

    def ExportVersion(self, request, context):
        from safetensors.numpy import save

        self._enter(request, context)
        file = save(self.parameters, metadata={"parameters": json.dumps(list(self.parameters))})
        for start in range(0, len(file), 7):
            yield models_pb2.ExportVersionResponse(data=file[start : start + 7])

    def ListMembers(self, request, context):
        self._enter(request, context)
        listed = [m for m in self.members if request.state in (0, m.state)]
        if request.order == models_pb2.MEMBER_ORDER_BY_LOSS:
            listed.sort(key=lambda m: (m.state, m.final_loss))
        start = int(request.page_token or 0)
        stop = start + min(request.page_size or 100, 10_000)
        token = str(stop) if stop < len(listed) else ""
        return models_pb2.ListMembersResponse(
            members=listed[start:stop], next_page_token=token, total=len(listed)
        )

    def GetMember(self, request, context):
        self._enter(request, context)
        for place, member in enumerate(self.members):
            if member.key == request.key:
                named = [
                    tensor_pb2.NamedTensor(name=name, tensor=tensor(array[place], "float32"))
                    for name, array in self.parameters.items()
                ]
                return models_pb2.GetMemberResponse(member=member, parameters=named)
        return self.abort(context, grpc.StatusCode.NOT_FOUND, [])

    def PromoteMember(self, request, context):
        self._enter(request, context)
        version = models_pb2.ModelVersion(fleet=request.name, member=request.key)
        version.MergeFrom(self.version)
        for field in ("members", "failed_members", "key_columns", "sweep"):
            version.ClearField(field)
        version.name = f"models/{request.model_name or 'house-price'}/versions/1"
        return models_pb2.PromoteMemberResponse(version=version)

    def SetAlias(self, request, context):
        self._enter(request, context)
        self.aliases[request.alias] = request.version
        return models_pb2.SetAliasResponse(model=self._model())

    def DeleteAlias(self, request, context):
        self._enter(request, context)
        del self.aliases[request.alias]
        return models_pb2.DeleteAliasResponse(model=self._model())

    def DeleteVersion(self, request, context):
        self._enter(request, context)
        return models_pb2.DeleteVersionResponse()

    def DeleteModel(self, request, context):
        self._enter(request, context)
        return models_pb2.DeleteModelResponse()

    # -- Datasets -------------------------------------------------------------------------------------------------

    def BeginUpload(self, request, context):
        self._enter(request, context)
        if request.sha256 in self.uploaded:
            return datasets_pb2.BeginUploadResponse(dataset=self._dataset(request.sha256))
        return datasets_pb2.BeginUploadResponse(committed_bytes=len(self.partial.get(request.sha256, b"")))

    def UploadDataset(self, request_iterator, context):
        first = next(request_iterator)
        self._enter(first, context)
        header = first.header
        data = bytearray(self.partial.get(header.sha256, b""))
        assert header.offset == len(data)
        limit = self.break_upload_at.pop(0) if self.break_upload_at else None
        for part in request_iterator:
            data += part.data
            self.partial[header.sha256] = bytes(data)
            if limit is not None and len(data) >= limit:
                self.abort(context, grpc.StatusCode.UNAVAILABLE, [])
        if hashlib.sha256(data).hexdigest() != header.sha256 or len(data) != header.size_bytes:
            self.abort(context, grpc.StatusCode.DATA_LOSS, [])
        self.uploaded[header.sha256] = bytes(data)
        return datasets_pb2.UploadDatasetResponse(dataset=self._dataset(header.sha256))

    def _dataset(self, digest: str) -> datasets_pb2.Dataset:
        return datasets_pb2.Dataset(
            name=f"datasets/{digest}",
            rows=3,
            columns=[
                datasets_pb2.DatasetColumn(name="x", dtype=tensor_pb2.DATA_TYPE_FLOAT64),
                datasets_pb2.DatasetColumn(name="colour"),
            ],
            size_bytes=len(self.uploaded[digest]),
        )

    def GetDataset(self, request, context):
        raise AssertionError("the client never asks for it")

    def ListDatasets(self, request, context):
        self._enter(request, context)
        return datasets_pb2.ListDatasetsResponse(datasets=[self._dataset(digest) for digest in self.uploaded])

    def DeleteDataset(self, request, context):
        self._enter(request, context)
        del self.uploaded[request.name.removeprefix("datasets/")]
        return datasets_pb2.DeleteDatasetResponse()


def _double(data: bytes, dtype: int) -> bytes:
    """Twice the numbers; a bfloat16's bytes as they are."""
    name = tensor_pb2.DataType.Name(dtype).removeprefix("DATA_TYPE_").lower()
    return data if name == "bfloat16" else (2 * np.frombuffer(data, dtype=name)).tobytes()


def serve(servicer: FakeServer, address: str = "127.0.0.1:0") -> tuple[grpc.Server, str]:
    server = grpc.server(ThreadPoolExecutor(max_workers=8), options=[("grpc.so_reuseport", 0)])
    trainer_pb2_grpc.add_TrainerServicer_to_server(servicer, server)
    runs_pb2_grpc.add_RunsServicer_to_server(servicer, server)
    models_pb2_grpc.add_ModelsServicer_to_server(servicer, server)
    datasets_pb2_grpc.add_DatasetsServicer_to_server(servicer, server)
    port = server.add_insecure_port(address)
    server.start()
    return server, f"127.0.0.1:{port}"


class Fake:
    """A FakeServer that can be stopped and started again at its address."""

    def __init__(self) -> None:
        self.does = FakeServer()
        self._server, self.address = serve(self.does)

    def stop(self) -> None:
        self._server.stop(None).wait()

    def restart(self) -> None:
        self.stop()
        self._server, _ = serve(self.does, self.address)


@pytest.fixture
def fake() -> Iterator[Fake]:
    fake = Fake()
    yield fake
    fake.does.hold.set()
    fake.stop()


QUICK = epochd.Retry(attempts=4, initial=0.01, maximum=0.05, patience=5.0)


class Caller:
    """Calls a client of either kind in the same words, so that one test holds for both.

    ``call(lambda c: c.model("x").name)`` gets a fresh client; coroutines are awaited, iterators made lists.
    """

    def __init__(self, kind: str, address: str) -> None:
        self.kind = kind
        self.address = address

    def __call__(self, use: Callable[[Any], Any], **options: Any) -> Any:
        options = {"retry": QUICK} | options
        if self.kind == "blocking":
            with epochd.connect(self.address, **options) as client:
                return self._settle(use(client))
        return asyncio.run(self._call_async(use, options))

    async def _call_async(self, use: Callable[[Any], Any], options: dict[str, Any]) -> Any:
        async with epochd.aio.connect(self.address, **options) as client:
            return await self._settle_async(use(client))

    def _settle(self, value: Any) -> Any:
        if inspect.isgenerator(value) and getattr(value, "gi_code", None) in self._steps:
            return self._drive(value)
        return list(value) if hasattr(value, "__next__") else value

    async def _settle_async(self, value: Any) -> Any:
        if inspect.isgenerator(value) and getattr(value, "gi_code", None) in self._steps:
            return await self._drive_async(value)
        if isinstance(value, Awaitable):
            return await value
        return [item async for item in value] if hasattr(value, "__anext__") else value

    _steps: ClassVar[set[Any]] = set()

    @classmethod
    def steps(cls, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Marks a generator function whose yields are calls to settle: several calls on one client."""
        cls._steps.add(function.__code__)
        return function

    def _drive(self, steps: Any) -> Any:
        answer: Any = None
        while True:
            try:
                pending = steps.send(answer)
            except StopIteration as stop:
                return stop.value
            answer = self._settle(pending)

    async def _drive_async(self, steps: Any) -> Any:
        answer: Any = None
        while True:
            try:
                pending = steps.send(answer)
            except StopIteration as stop:
                return stop.value
            answer = await self._settle_async(pending)


@pytest.fixture(params=["blocking", "asyncio"])
def call(request: pytest.FixtureRequest, fake: Fake) -> Caller:
    """Calls the fake server through the blocking and through the asyncio client."""
    return Caller(request.param, fake.address)


@pytest.fixture
def steps() -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    """A decorator for generator functions that make several calls on one client; see Caller.steps."""
    return Caller.steps


@pytest.fixture
def train_arguments() -> dict[str, Any]:
    """The least that ``train`` needs beside data."""
    return {"model": epochd.Linear(), "optimizer": epochd.SGD(lr=0.01), "epochs": 5}


@pytest.fixture
def events_of() -> Callable[..., list[run_pb2.Event]]:
    """Makes the events of a run for the fake server to send."""
    return script


@pytest.fixture
def detail() -> Callable[[str, message.Message], any_pb2.Any]:
    """Packs an error detail as the server does."""
    return packed


@pytest.fixture
def retry_info() -> errors_pb2.RetryInfo:
    """Asks for another try after 20 ms."""
    return errors_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=20_000_000))


@pytest.fixture
def request_of(fake: Fake) -> Callable[[str], Any]:
    """The last request of a method."""

    def find(method: str) -> Any:
        # the stream and upload handlers add no entry to calls for what follows their first message
        sent = [r for r in fake.does.requests if not isinstance(r, int)]
        return next(
            r for name, r in zip(reversed(fake.does.calls), reversed(sent), strict=True) if name == method
        )

    return find
