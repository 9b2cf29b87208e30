"""The server's memory after ten thousand runs against that after a hundred: only caches may have grown."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

import epochd
from benchmarks.harness import Row, server
from benchmarks.load.runs import server_memory

FEW, MANY, THREADS = 100, 10_000, 16


def measure() -> list[Row]:
    """One row, in mebibytes."""
    with server() as address, epochd.connect(address) as client, ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda number: _train(client, number), range(FEW)))
        few = server_memory()
        list(pool.map(lambda number: _train(client, number), range(FEW, MANY)))
        many = server_memory()
    return [
        Row(
            work=f"memory of the server after {MANY:,} runs",
            ours=many,
            against=f"after {FEW} runs",
            theirs=few,
            aim="caches only",
            unit="MiB",
        )
    ]


def _train(client: epochd.Client, number: int) -> None:
    x = np.random.default_rng(number).standard_normal((16, 2))
    run = client.train(
        x,
        x.sum(1),
        model=epochd.Linear(),
        loss="mse",
        optimizer=epochd.SGD(lr=0.1),
        epochs=20,
        log_every=5,
        name=f"model-{number % 100}",
    )
    run.result().predict(x[:1])
