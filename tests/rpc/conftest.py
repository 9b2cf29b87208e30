"""The API over a real socket, with generated stubs: what any gRPC client has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from typing import Any

import grpc.aio
import numpy as np
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2, status_pb2

from epochd.v1 import (
    datasets_pb2_grpc,
    models_pb2_grpc,
    run_pb2,
    runs_pb2_grpc,
    spec_pb2,
    tensor_pb2,
    trainer_pb2,
    trainer_pb2_grpc,
)


class Refusal:
    """An error that a call ended with, its details unpacked.

    Attributes:
        code: Name of the status code.
        message: The text.
        reason: Of ErrorInfo.
        metadata: Of ErrorInfo.
        fields: What is wrong by field, of BadRequest.
        retry_after: Seconds, of RetryInfo; None where there is none.
    """

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code().name
        self.message = error.details()
        trailer = dict(error.trailing_metadata())["grpc-status-details-bin"]
        status = status_pb2.Status.FromString(trailer)
        assert (status.code, status.message) == (error.code().value[0], self.message)
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        self.retry_after = None
        for detail in status.details:
            detail.Unpack(info)
            detail.Unpack(bad)
            if detail.Unpack(retry):
                self.retry_after = retry.retry_delay.ToTimedelta().total_seconds()
        self.reason, self.metadata = info.reason, dict(info.metadata)
        self.fields = {violation.field: violation.description for violation in bad.field_violations}
        assert info.domain == "epochd"


class Api:
    """Stubs of all services on one channel, and the shortest ways to use them."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.trainer = trainer_pb2_grpc.TrainerStub(channel)
        self.runs = runs_pb2_grpc.RunsStub(channel)
        self.models = models_pb2_grpc.ModelsStub(channel)
        self.datasets = datasets_pb2_grpc.DatasetsStub(channel)

    async def train(self, request: trainer_pb2.TrainRequest, **options: Any) -> list[run_pb2.Event]:
        """Trains and returns all events."""
        return await self.events(self.trainer.Train(request, **options))

    @staticmethod
    async def events(stream: AsyncIterable[Any]) -> list[run_pb2.Event]:
        """The events of a stream to its end."""
        return [event async for message in stream for event in message.events]

    @staticmethod
    async def refused(call: Awaitable[Any]) -> Refusal:
        """How a call that must fail is refused."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        return Refusal(caught.value)


def to_tensor(values: Any, dtype: str = "float32") -> tensor_pb2.Tensor:
    array = np.asarray(values, dtype)
    number = tensor_pb2.DataType.Value(f"DATA_TYPE_{array.dtype.name.upper()}")
    return tensor_pb2.Tensor(dtype=number, shape=array.shape, data=array.tobytes())


def to_array(message: tensor_pb2.Tensor) -> np.ndarray:
    name = tensor_pb2.DataType.Name(message.dtype).removeprefix("DATA_TYPE_").lower()
    return np.frombuffer(message.data, name).reshape(tuple(message.shape))


def linear_request(
    x: Sequence[Sequence[float]] = ((1.0,), (2.0,), (3.0,)),
    y: Sequence[float] = (2.0, 4.0, 6.0),
    *,
    epochs: int = 20,
    **fields: Any,
) -> trainer_pb2.TrainRequest:
    """A linear regression by SGD on three rows, unless told otherwise."""
    sgd = spec_pb2.Optimizer(sgd=spec_pb2.Sgd(lr=0.01))
    defaults = {
        "data": spec_pb2.TrainingData(
            tensors=spec_pb2.TensorData(features=to_tensor(x), targets=to_tensor(y))
        ),
        "model": spec_pb2.ModelSpec(linear=spec_pb2.LinearSpec(), init=spec_pb2.INIT_ZEROS),
        "loss": spec_pb2.Loss(mse=spec_pb2.MseLoss()),
        "gradient": spec_pb2.GradientFit(optimizer=sgd, epochs=epochs),
        "logging": spec_pb2.Logging(every=max(1, epochs // 10)),
        "seed": 1,
    }
    return trainer_pb2.TrainRequest(**{**defaults, **fields})


LONG = 10_000_000


def endless_request(**fields: Any) -> trainer_pb2.TrainRequest:
    """A training that takes minutes: too many rows for any shortcut, and as many epochs as are allowed."""
    x = np.random.default_rng(0).normal(size=(4_000, 8))
    return linear_request(
        x,
        x.sum(axis=1),
        epochs=LONG,
        gradient=spec_pb2.GradientFit(
            optimizer=spec_pb2.Optimizer(adam=spec_pb2.Adam()), epochs=LONG, batch_size=8
        ),
        logging=spec_pb2.Logging(every=1),
        **fields,
    )


@pytest_asyncio.fixture
async def api(channel: grpc.aio.Channel) -> Api:
    """The shared server."""
    return Api(channel)


async def eventually(found: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    """Waits until something is so in another process, which cannot tell us."""
    async with asyncio.timeout(seconds):
        while not await found():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.fixture
def until() -> Callable[..., Awaitable[None]]:
    """``await until(condition)``, where the condition is an async function."""
    return eventually


@pytest.fixture
def tensor() -> Callable[..., tensor_pb2.Tensor]:
    """Makes a Tensor of anything numpy takes; float32 unless said otherwise."""
    return to_tensor


@pytest.fixture
def array() -> Callable[[tensor_pb2.Tensor], np.ndarray]:
    """The array of a Tensor."""
    return to_array


@pytest.fixture
def linear() -> Callable[..., trainer_pb2.TrainRequest]:
    """Makes the request of a small linear regression."""
    return linear_request


@pytest.fixture
def endless() -> Callable[..., trainer_pb2.TrainRequest]:
    """Makes the request of a training that takes minutes unless it is cancelled."""
    return endless_request


@pytest.fixture
def connect() -> Callable[[str], Any]:
    """Opens the API of another server: ``async with connect(address) as api``."""
    return _Connection


class _Connection:
    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)

    async def __aenter__(self) -> Api:
        await asyncio.wait_for(self._channel.channel_ready(), 20)
        return Api(self._channel)

    async def __aexit__(self, *error: object) -> None:
        await self._channel.close()
