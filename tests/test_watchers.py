"""Watchers that are slow, dead or silent, against a real server: they cost it little, and nobody else anything."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import numpy as np
import psutil
import pytest

from epochd.v1 import run_pb2, runs_pb2, runs_pb2_grpc, spec_pb2, tensor_pb2, trainer_pb2, trainer_pb2_grpc

pytestmark = pytest.mark.alone

MEBIBYTE = 2**20
NARROW = (("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1))
"""A client that takes 64 KiB of a stream unread, and a connection of its own."""


def to_tensor(values) -> tensor_pb2.Tensor:
    array = np.asarray(values, "float32")
    return tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=array.shape, data=array.tobytes())


def talkative(epochs: int, features: int) -> trainer_pb2.TrainRequest:
    """A run that logs its parameters after every epoch."""
    x = np.random.default_rng(0).normal(size=(16, features))
    pair = spec_pb2.TensorData(features=to_tensor(x), targets=to_tensor(x[:, 0]))
    adam = spec_pb2.Optimizer(adam=spec_pb2.Adam())
    return trainer_pb2.TrainRequest(
        data=spec_pb2.TrainingData(tensors=pair),
        model=spec_pb2.ModelSpec(linear=spec_pb2.LinearSpec()),
        loss=spec_pb2.Loss(mse=spec_pb2.MseLoss()),
        gradient=spec_pb2.GradientFit(optimizer=adam, epochs=epochs, batch_size=1),
        logging=spec_pb2.Logging(every=1, parameters=True),
        seed=1,
    )


async def read_to_end(call, events: list[run_pb2.Event]) -> str:
    """Reads a watch to its end, adding to ``events``; gives the name of its status."""
    try:
        while (message := await call.read()) is not grpc.aio.EOF:
            events += message.events
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


def watch(channel: grpc.aio.Channel, run: str, after: int = 0):
    return runs_pb2_grpc.RunsStub(channel).WatchRun(runs_pb2.WatchRunRequest(run=run, after_sequence=after))


def assert_gapless(events: list[run_pb2.Event]) -> None:
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))


async def test_watchers_that_take_nothing_cost_a_page_each_and_resume_where_they_stopped(start_server):
    """Fifty of them against a log of some 40 MB; one that reads is in time."""
    server = start_server("--stall-timeout", "1")
    process = psutil.Process(server.process.pid)
    async with contextlib.AsyncExitStack() as stack:
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.address))
        lazy_channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(server.address, NARROW))
            for _ in range(50)
        ]
        call = trainer_pb2_grpc.TrainerStub(channel).Train(talkative(epochs=1_000, features=9_999))
        events = list((await call.read()).events)
        run = events[0].queued.run
        before = process.memory_info().rss
        lazy = [watch(one, run) for one in lazy_channels]
        assert await read_to_end(call, events) == "OK"
        assert_gapless(events)
        assert events[-1].WhichOneof("kind") == "succeeded"
        assert sum(event.ByteSize() for event in events) > 35 * MEBIBYTE
        server.wait_for_log('"CALL_STALLED"')
        await asyncio.sleep(1.5)
        # the page of each, the newest of the log (64 MiB at most), and what allocators keep
        assert process.memory_info().rss - before < 200 * MEBIBYTE
        seen: list[run_pb2.Event] = []
        assert await read_to_end(lazy[0], seen) == "UNAVAILABLE"
        assert 0 < len(seen) < len(events)
        assert await read_to_end(watch(lazy_channels[0], run, seen[-1].sequence), seen) == "OK"
        assert seen == events


class Proxy:
    """Forwards one connection until it is told to be silent; then it neither forwards nor closes anything."""

    def __init__(self, target: str) -> None:
        self._host, _, self._port = target.rpartition(":")
        self._silent = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    def silence(self) -> None:
        """Drops everything from now on, as a cable does that was pulled out."""
        self._silent = True

    @contextlib.asynccontextmanager
    async def address(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            for writer in self._writers:
                writer.close()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = await asyncio.open_connection(self._host, int(self._port))
        self._writers += (writer, upstream[1])
        for source, target in ((reader, upstream[1]), (upstream[0], writer)):
            task = asyncio.create_task(self._forward(source, target))
            self._tasks.add(task)

    async def _forward(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            if not self._silent:
                target.write(data)


async def test_a_connection_that_fell_silent_is_closed(start_server):
    server = start_server("--keepalive", "1")
    proxy = Proxy(server.address)
    async with proxy.address() as address, grpc.aio.insecure_channel(address) as channel:
        call = trainer_pb2_grpc.TrainerStub(channel).Train(talkative(epochs=1_000_000, features=4))
        run = (await call.read()).events[0].queued.run
        assert connections(server) == 1
        proxy.silence()
        await until_connections(server, 0)
        server.wait_for_log('"CANCELLED"')
    await cancel(server.address, run)


def connections(server) -> int:
    """Connections of clients that the server has open."""
    port = int(server.address.rpartition(":")[2])
    found = psutil.Process(server.process.pid).net_connections("tcp")
    return sum(one.laddr.port == port and one.status == "ESTABLISHED" for one in found)


async def until_connections(server, most: int) -> None:
    """Waits until no more are open; another process cannot tell us."""
    async with asyncio.timeout(15):
        while connections(server) > most:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def cancel(address: str, run: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        await runs_pb2_grpc.RunsStub(channel).CancelRun(runs_pb2.CancelRunRequest(name=run))


WATCHER = """
import sys
import epochd
with epochd.connect(sys.argv[1]) as client:
    for event in client.run(sys.argv[2]).events():
        print(event.sequence, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped here")
async def test_a_client_whose_process_was_stopped_is_let_go_and_goes_on_when_it_wakes(start_server):
    server = start_server("--keepalive", "1")
    async with grpc.aio.insecure_channel(server.address) as channel:
        call = trainer_pb2_grpc.TrainerStub(channel).Train(talkative(epochs=300_000, features=4))
        run = (await call.read()).events[0].queued.run
        watcher = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WATCHER, server.address, run, stdout=subprocess.PIPE
        )
        try:
            first = await watcher.stdout.readline()
            os.kill(watcher.pid, signal.SIGSTOP)
            await until_connections(server, 1)
            await cancel(server.address, run)
            os.kill(watcher.pid, signal.SIGCONT)
            rest, _ = await watcher.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                watcher.kill()
        stored: list[run_pb2.Event] = []
        assert await read_to_end(watch(channel, run), stored) == "OK"
        call.cancel()
    assert [int(line) for line in (first + rest).split()] == list(range(1, len(stored) + 1))
