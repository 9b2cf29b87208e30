"""A thousand strangers train at once, against the same runs one after another through a server without cohorts.

The clients share two cores with the server and its workers. Of a call among a thousand, the client takes about
0.35 ms of a core; a bare grpc.aio server that only answers with two messages, 0.26 ms of its own; that, and not the
training, is what a server in Python cannot go below.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import numpy as np

from benchmarks.harness import Row, server
from epochd.v1 import spec_pb2, tensor_pb2, trainer_pb2

RUNS, CONNECTIONS, ONE_BY_ONE, ROUNDS = 1_000, 32, 50, 5


def measure() -> list[Row]:
    """One row, seconds a run: the tutorial's 2,000 epochs on three points, logged every 100 with parameters."""
    with server("--cohorts", "on", workers=2) as ours, server("--cohorts", "off", workers=2) as theirs:
        asyncio.run(_round(ours, theirs))
        pairs = [asyncio.run(_round(ours, theirs)) for _ in range(ROUNDS)]
    speedups = [one / together for together, one in pairs]
    return [
        Row(
            work=f"{RUNS:,} tutorial runs at once over {CONNECTIONS} connections, each",
            ours=statistics.median(together for together, _ in pairs),
            against="one after another, cohorts off, each",
            theirs=statistics.median(one for _, one in pairs),
            aim="≥ 50 ×",
            better="more",
            spread=(min(speedups), max(speedups)),
        )
    ]


async def _round(ours: str, theirs: str) -> tuple[float, float]:
    """Seconds a run, together and one after another."""
    async with _connections(ours, CONNECTIONS) as crowd, _connections(theirs, 1) as (single,):
        began = time.perf_counter()
        await asyncio.gather(*(_train(crowd[run % CONNECTIONS], run) for run in range(RUNS)))
        together = time.perf_counter() - began
        began = time.perf_counter()
        for run in range(ONE_BY_ONE):
            await _train(single, run)
        return together / RUNS, (time.perf_counter() - began) / ONE_BY_ONE


@contextlib.asynccontextmanager
async def _connections(address: str, count: int) -> AsyncIterator[Sequence[Any]]:
    """``Train`` over connections of their own, as bytes: the clients share two cores with the server."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with contextlib.AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(address, options)) for _ in range(count)
        ]
        await asyncio.gather(*(channel.channel_ready() for channel in channels))
        yield [channel.unary_stream("/epochd.v1.Trainer/Train") for channel in channels]


async def _train(train: Any, run: int) -> None:
    """Trains and follows a run to its end."""
    last = b""
    async for message in train(_request(run)):
        last = message
    if not trainer_pb2.TrainResponse.FromString(last).events[-1].HasField("succeeded"):
        raise RuntimeError("a run did not succeed")


def _request(run: int) -> bytes:
    """The tutorial run of one of the strangers; their seeds differ."""
    points = np.array([[1], [2], [3]], np.float32)
    tensors = spec_pb2.TensorData(features=_tensor(points), targets=_tensor(2 * points))
    return trainer_pb2.TrainRequest(
        data=spec_pb2.TrainingData(tensors=tensors),
        model=spec_pb2.ModelSpec(linear=spec_pb2.LinearSpec(), init=spec_pb2.INIT_ZEROS),
        loss=spec_pb2.Loss(mse=spec_pb2.MseLoss()),
        gradient=spec_pb2.GradientFit(optimizer=spec_pb2.Optimizer(sgd=spec_pb2.Sgd(lr=0.01)), epochs=2_000),
        seed=run,
        logging=spec_pb2.Logging(every=100, parameters=True),
    ).SerializeToString()


def _tensor(array: np.ndarray) -> tensor_pb2.Tensor:
    return tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=array.shape, data=array.tobytes())
