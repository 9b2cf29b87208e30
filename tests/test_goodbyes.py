"""SIGTERM while a fleet trains and a thousand watch it: all are told, and all go on after the next start."""

from __future__ import annotations

import asyncio
import contextlib
import time

import grpc
import grpc.aio
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

from epochd.v1 import run_pb2, runs_pb2, runs_pb2_grpc, spec_pb2, tensor_pb2, trainer_pb2, trainer_pb2_grpc

pytestmark = pytest.mark.alone

WATCHERS = 1_000
CONNECTIONS = 10
GRACE_SECONDS = 1.0


def numbers(name: str, values) -> tensor_pb2.Column:
    return tensor_pb2.Column(name=name, numbers=tensor_pb2.Numbers(values=values))


def fleet_request() -> trainer_pb2.TrainRequest:
    """Two hundred members that train for minutes, and tell how many are done."""
    generator = np.random.default_rng(0)
    rows = 200 * 20
    columns = [
        tensor_pb2.Column(
            name="store", strings=tensor_pb2.Strings(values=[str(row % 200) for row in range(rows)])
        ),
        numbers("x", generator.normal(size=rows)),
        numbers("y", generator.normal(size=rows)),
    ]
    adam = spec_pb2.Optimizer(adam=spec_pb2.Adam())
    return trainer_pb2.TrainRequest(
        data=spec_pb2.TrainingData(
            table=tensor_pb2.Table(columns=columns), target_columns=["y"], group_columns=["store"]
        ),
        model=spec_pb2.ModelSpec(linear=spec_pb2.LinearSpec()),
        loss=spec_pb2.Loss(mse=spec_pb2.MseLoss()),
        gradient=spec_pb2.GradientFit(optimizer=adam, epochs=2_000_000, batch_size=2),
        seed=1,
    )


class Watcher:
    """One who watches a run, and remembers what it saw and how its watch ended."""

    def __init__(self, run: str) -> None:
        self._run = run
        self.seen: list[int] = []
        self.last: run_pb2.Event | None = None
        self.ended = ""
        self.told = ""

    async def watch(self, channel: grpc.aio.Channel) -> None:
        """Watches from where it was, to the end of the watch."""
        request = runs_pb2.WatchRunRequest(run=self._run, after_sequence=self.seen[-1] if self.seen else 0)
        try:
            async for message in runs_pb2_grpc.RunsStub(channel).WatchRun(request):
                self.seen += [event.sequence for event in message.events]
                self.last = message.events[-1]
            self.ended = "OK"
        except grpc.aio.AioRpcError as error:
            self.ended, self.told = _reason(error)


def _reason(error: grpc.aio.AioRpcError) -> tuple[str, str]:
    """Reason of an error, and the sequence that it names."""
    info = error_details_pb2.ErrorInfo()
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    for detail in status_pb2.Status.FromString(details).details:
        detail.Unpack(info)
    return info.reason or error.code().name, info.metadata.get("after_sequence", "")


async def watch_all(stack, address: str, watchers: list[Watcher]) -> list[asyncio.Task[None]]:
    """Begins all watches, over a few connections."""
    channels = [
        await stack.enter_async_context(
            grpc.aio.insecure_channel(address, (("grpc.use_local_subchannel_pool", 1),))
        )
        for _ in range(CONNECTIONS)
    ]
    return [
        asyncio.create_task(watcher.watch(channels[number % CONNECTIONS]))
        for number, watcher in enumerate(watchers)
    ]


async def until_all(watchers: list[Watcher], sequence: int) -> None:
    """Waits until all have seen an event."""
    async with asyncio.timeout(60):
        while any(not watcher.seen or watcher.seen[-1] < sequence for watcher in watchers):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.timeout(300)
async def test_a_thousand_watchers_of_a_fleet_are_told_that_the_server_stops_and_go_on(start_server):
    server = start_server("--grace", str(GRACE_SECONDS))
    async with grpc.aio.insecure_channel(server.address) as channel:
        call = trainer_pb2_grpc.TrainerStub(channel).Train(fleet_request())
        run = (await call.read()).events[0].queued.run
        watchers = [Watcher(run) for _ in range(WATCHERS)]
        async with contextlib.AsyncExitStack() as stack:
            watching = await watch_all(stack, server.address, watchers)
            await until_all(watchers, 2)  # it has started
            server.signal()
            began = time.monotonic()
            code = await asyncio.to_thread(server.process.wait, 60)
            took = time.monotonic() - began
            await asyncio.gather(*watching)
        call.cancel()
    assert code == 0
    assert took < GRACE_SECONDS + 10
    assert {watcher.ended for watcher in watchers} == {"SERVER_STOPPING"}
    assert all(watcher.told == str(watcher.seen[-1]) for watcher in watchers)
    again = start_server(data_dir=server.data_dir)
    async with contextlib.AsyncExitStack() as stack:
        watching = await watch_all(stack, again.address, watchers)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(again.address))
        cancelling = runs_pb2.CancelRunRequest(name=run)
        await runs_pb2_grpc.RunsStub(channel).CancelRun(cancelling)
        await asyncio.gather(*watching)
    (seen,) = {tuple(watcher.seen) for watcher in watchers}
    assert list(seen) == list(range(1, len(seen) + 1))
    assert {watcher.ended for watcher in watchers} == {"OK"}
    assert all(watcher.last.HasField("cancelled") for watcher in watchers)
