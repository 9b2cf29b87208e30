"""A database that is away for a while under a real server: training goes on, callers are told, nothing is lost."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

import epochd
from epochd.v1 import run_pb2, runs_pb2, runs_pb2_grpc, spec_pb2, tensor_pb2, trainer_pb2, trainer_pb2_grpc

pytestmark = pytest.mark.alone

LONG = 40_000
"""Epochs that take longer than a brief outage."""

PATIENCE_SECONDS = 5.0
"""A caller is told within so many seconds that the database is away."""


def to_tensor(values) -> tensor_pb2.Tensor:
    array = np.asarray(values, "float32")
    return tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=array.shape, data=array.tobytes())


def request(epochs: int) -> trainer_pb2.TrainRequest:
    """Mini-batches of 8 by Adam, every tenth epoch logged."""
    x = np.random.default_rng(0).normal(size=(1_000, 8))
    pair = spec_pb2.TensorData(features=to_tensor(x), targets=to_tensor(x.sum(axis=1)))
    adam = spec_pb2.Optimizer(adam=spec_pb2.Adam())
    return trainer_pb2.TrainRequest(
        data=spec_pb2.TrainingData(tensors=pair),
        model=spec_pb2.ModelSpec(linear=spec_pb2.LinearSpec()),
        loss=spec_pb2.Loss(mse=spec_pb2.MseLoss()),
        gradient=spec_pb2.GradientFit(optimizer=adam, epochs=epochs, batch_size=8),
        logging=spec_pb2.Logging(every=10),
        seed=1,
    )


class LockedSqlite:
    """Another process's transaction on the database file."""

    def __init__(self, server) -> None:
        self._file = server.data_dir / "epochd.db"

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """Holds the lock that every write needs."""
        other = sqlite3.connect(self._file, isolation_level=None, timeout=30)
        try:
            other.execute("BEGIN EXCLUSIVE")
            yield
        finally:
            other.close()


class KilledPostgres:
    """A database server that is killed, and started again."""

    def __init__(self, postgres) -> None:
        self._postgres = postgres

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """Nobody listens."""
        await asyncio.to_thread(self._postgres.kill)
        try:
            yield
        finally:
            await asyncio.to_thread(self._postgres.start)


@pytest.fixture(params=["sqlite", "postgresql"])
def serve(request, start_server):
    """Starts a server on each kind of database; gives it, and the database to be taken away."""

    def start(*flags, data_dir=None):
        if request.param == "sqlite":
            server = start_server(*flags, data_dir=data_dir)
            return server, LockedSqlite(server)
        kept = "emptied_postgres_url" if data_dir is None else "postgres_url"
        url = request.getfixturevalue(kept)
        server = start_server("--database-url", url, *flags, data_dir=data_dir)
        return server, KilledPostgres(request.getfixturevalue("postgres"))

    return start


async def follow(call, events: list[run_pb2.Event]) -> None:
    """Reads a stream to its end, adding to ``events``."""
    async for message in call:
        events += message.events


def newest(events: list[run_pb2.Event]) -> int:
    """The newest epoch of a log; -1 before the first."""
    return max((event.epoch_log.epoch for event in events if event.HasField("epoch_log")), default=-1)


async def until_logged(events: list[run_pb2.Event], epoch: int, seconds: float = 60) -> None:
    """Waits until an epoch, or the run's end, is seen."""
    async with asyncio.timeout(seconds):
        while newest(events) < epoch and not (events and events[-1].HasField("succeeded")):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def assert_gapless(events: list[run_pb2.Event]) -> None:
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[-1].HasField("succeeded")


async def refused(call) -> tuple[str, str, float]:
    """Code and reason of a call that must fail, and the seconds that it took."""
    began = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    took = time.monotonic() - began
    info = error_details_pb2.ErrorInfo()
    status = status_pb2.Status.FromString(dict(caught.value.trailing_metadata())["grpc-status-details-bin"])
    for detail in status.details:
        detail.Unpack(info)
    return caught.value.code().name, info.reason, took


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seconds", [3, 30])
async def test_runs_go_on_callers_are_told_and_everything_is_there_afterwards(serve, seconds):
    server, database = serve()
    epochs = LONG * seconds // 3
    async with grpc.aio.insecure_channel(server.address) as channel:
        trainer, runs = trainer_pb2_grpc.TrainerStub(channel), runs_pb2_grpc.RunsStub(channel)
        events: list[run_pb2.Event] = []
        following = asyncio.ensure_future(follow(trainer.Train(request(epochs)), events))
        await until_logged(events, 0)
        began = time.monotonic()
        await until_logged(events, LONG // 20)
        pace = newest(events) / (time.monotonic() - began)
        async with database.away():
            before, until = newest(events), time.monotonic() + seconds
            while time.monotonic() < until:
                code, reason, took = await refused(trainer.Train(request(1)).read())
                assert (code, reason) == ("UNAVAILABLE", "STORAGE_UNAVAILABLE")
                assert took < PATIENCE_SECONDS
                await asyncio.sleep(0.2)
            assert (
                newest(events) - before < pace
            )  # nothing is shown that is not stored, but what was on its way
        # what was trained meanwhile: more than could be trained in the time that it may take to come
        await until_logged(events, before + 0.5 * seconds * pace, seconds=max(10, seconds / 3))
        await following
        assert_gapless(events)
        epochs_logged = [event.epoch_log.epoch for event in events if event.HasField("epoch_log")]
        assert epochs_logged == list(range(0, epochs, 10))
        stored: list[run_pb2.Event] = []
        await follow(runs.WatchRun(runs_pb2.WatchRunRequest(run=events[0].queued.run)), stored)
    assert stored == events


async def test_a_client_that_retries_trains_once(serve):
    """The Python client waits as it is told to; an acceptance that it never heard of is not made twice."""
    server, database = serve()
    x = np.arange(12.0).reshape(-1, 1)
    sgd = epochd.SGD(lr=1e-3)
    async with epochd.aio.connect(server.address) as client:
        async with database.away():
            training = asyncio.ensure_future(
                client.train(x, x[:, 0], model=epochd.Linear(), loss="mse", optimizer=sgd, epochs=5)
            )
            await asyncio.sleep(3)
            assert not training.done()
        model = await (await training).result()
        assert model.version == 1
        assert len([run async for run in client.runs()]) == 1


async def test_a_server_that_is_told_to_stop_stops_and_goes_on_when_the_database_is_back(serve):
    server, database = serve("--grace", "1")
    async with grpc.aio.insecure_channel(server.address) as channel:
        call = trainer_pb2_grpc.TrainerStub(channel).Train(request(LONG))
        events: list[run_pb2.Event] = []
        following = asyncio.ensure_future(follow(call, events))
        await until_logged(events, 100)
        async with database.away():
            await asyncio.sleep(0.5)
            assert await asyncio.to_thread(server.stop, 20) == 0
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await following
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    again, _ = serve(data_dir=server.data_dir)
    async with grpc.aio.insecure_channel(again.address) as channel:
        watch = runs_pb2.WatchRunRequest(run=events[0].queued.run, after_sequence=events[-1].sequence)
        await follow(runs_pb2_grpc.RunsStub(channel).WatchRun(watch), events)
    assert_gapless(events)
