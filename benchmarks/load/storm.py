"""The server's memory while hundreds of clients send a training of 3.5 MB each at once, against what they send.

The server has 128 MiB for requests; some are trained, some told to come back. Whoever is told comes back.
"""

from __future__ import annotations

import asyncio

import numpy as np

import epochd
from benchmarks.harness import Row, server
from benchmarks.load.runs import MEBIBYTE, server_memory

CLIENTS, FEATURES, ROWS = 300, 15, 54_000
MEMORY = 128 * MEBIBYTE


def measure() -> list[Row]:
    """One row, in mebibytes."""
    with server("--request-memory-bytes", str(MEMORY)) as address:
        asyncio.run(_train(address, 1))
        before = server_memory()
        peak = asyncio.run(_storm(address))
    sent = CLIENTS * ROWS * (FEATURES + 1) * 4 / MEBIBYTE
    work = f"{CLIENTS} trainings of 3.5 MB sent at once, memory that the server takes for them"
    return [Row(work=work, ours=peak - before, against="bytes sent", theirs=sent, aim="—", unit="MiB")]


async def _storm(address: str) -> float:
    """The highest memory that was seen until every client has its run."""
    peak = 0.0
    training = asyncio.ensure_future(_train(address, CLIENTS))
    while not training.done():
        peak = max(peak, server_memory())
        await asyncio.sleep(0.02)
    await training
    return peak


async def _train(address: str, clients: int) -> None:
    x = np.random.default_rng(0).standard_normal((ROWS, FEATURES)).astype(np.float32)
    retry = epochd.Retry(attempts=100)
    limits = epochd.Timeout(call=600.0)

    async def one(number: int) -> None:
        async with epochd.aio.connect(
            address, timeout=limits, retry=retry, client_name=f"client-{number}"
        ) as client:
            await client.train(
                x, x[:, 0], model=epochd.Linear(), loss="mse", optimizer=epochd.SGD(lr=0.01), epochs=1
            )

    await asyncio.gather(*(one(number) for number in range(clients)))
