"""A thousand watchers of one run: how late the last of them sees an event, and what they cost the server.

The lag is from the time that an event bears to the moment when the watcher has it: storing it is part of that.
"""

from __future__ import annotations

import asyncio
import time

import grpc
import grpc.aio
import numpy as np

import epochd
from benchmarks.harness import Row, server
from benchmarks.load.runs import endless, server_memory
from epochd.v1 import runs_pb2, runs_pb2_grpc

MANY, CONNECTIONS, SECONDS = 1_000, 10, 15.0
LOG_EVERY = 250
"""Epochs between two logs: one or two a second."""

OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


def measure() -> list[Row]:
    """The lag at the 99th percentile, and the server's memory."""
    with server() as address, epochd.connect(address) as client:
        run = endless(client, log_every=LOG_EVERY)
        next(iter(run.logs()))
        alone, few = asyncio.run(_watch(address, run.name, 1))
        crowd, many = asyncio.run(_watch(address, run.name, MANY))
        run.cancel()
    work = f"{MANY:,} watchers of one run"
    return [
        Row(
            work=f"{work}, lag of an event, p99",
            ours=float(np.percentile(crowd, 99)),
            against="one watcher",
            theirs=float(np.percentile(alone, 99)),
            aim="—",
        ),
        Row(work=f"{work}, memory", ours=many, against="one watcher", theirs=few, aim="—", unit="MiB"),
    ]


async def _watch(address: str, run: str, count: int) -> tuple[list[float], float]:
    """The lags that so many watchers see, and the server's memory at the end."""
    lags: list[float] = []
    channels = [grpc.aio.insecure_channel(address, OWN_CONNECTION) for _ in range(min(CONNECTIONS, count))]
    stubs = [runs_pb2_grpc.RunsStub(channel) for channel in channels]
    newest = (await stubs[0].GetRun(runs_pb2.GetRunRequest(name=run))).run.latest_sequence
    request = runs_pb2.WatchRunRequest(run=run, after_sequence=newest)

    async def watch(stub: runs_pb2_grpc.RunsStub) -> None:
        began = time.time()
        async for message in stub.WatchRun(request):
            now = time.time()
            times = (event.time.seconds + event.time.nanos / 1e9 for event in message.events)
            lags.extend(now - told for told in times if told > began)

    watching = [asyncio.ensure_future(watch(stubs[number % len(stubs)])) for number in range(count)]
    await asyncio.sleep(SECONDS)
    memory = server_memory()
    for one in watching:
        one.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    for channel in channels:
        await channel.close()
    return lags, memory
