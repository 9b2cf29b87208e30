"""Predict of one row while every worker trains and logs each epoch, against the same server idle, in turns."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

import epochd
from benchmarks.harness import Row, server
from benchmarks.load.runs import endless

CALLS, ROUNDS, WORKERS = 400, 6, 2


def measure() -> list[Row]:
    """Median and 99th percentile."""
    with server(workers=WORKERS) as address, epochd.connect(address) as client:
        x = np.random.default_rng(0).standard_normal((64, 4))
        model = client.train(
            x, x.sum(1), model=epochd.Linear(), loss="mse", optimizer=epochd.SGD(lr=0.1), epochs=5
        ).result()
        _latencies(model)
        idle, busy = [], []
        for _ in range(ROUNDS):
            idle.append(_latencies(model))
            with _saturated(client):
                busy.append(_latencies(model))
    return [_row(percent, np.array(idle), np.array(busy)) for percent in (50, 99)]


@contextmanager
def _saturated(client: epochd.Client) -> Iterator[None]:
    """Every worker trains in the block."""
    runs = [endless(client) for _ in range(WORKERS)]
    for run in runs:
        next(iter(run.logs()))
    try:
        yield
    finally:
        for run in runs:
            run.cancel()
            run.wait()


def _latencies(model: epochd.Model) -> np.ndarray:
    row, seconds = np.ones((1, 4), np.float32), np.empty(CALLS)
    for index in range(CALLS):
        start = time.perf_counter()
        model.predict(row)
        seconds[index] = time.perf_counter() - start
    return seconds


def _row(percent: int, idle: np.ndarray, busy: np.ndarray) -> Row:
    ratios = np.percentile(busy, percent, axis=1) / np.percentile(idle, percent, axis=1)
    return Row(
        work=f"Predict of a 1 × 4 row while {WORKERS} workers train on {WORKERS} cores, p{percent}",
        ours=float(np.percentile(busy, percent)),
        against="the same server idle",
        theirs=float(np.percentile(idle, percent)),
        aim="≤ 3",
        spread=(float(ratios.min()), float(ratios.max())),
    )
