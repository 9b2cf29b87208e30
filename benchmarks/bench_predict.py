"""Unary Predict of one row of four features against a bare gRPC echo of the same bytes, one call after another."""

from __future__ import annotations

import time
from collections.abc import Callable

import grpc
import numpy as np

import epochd
from benchmarks.harness import Row, listening, server
from epochd.v1 import tensor_pb2, trainer_pb2

CALLS, ROUNDS = 1500, 5


def measure() -> list[Row]:
    """Rows for the median, the 99th percentile and the rate."""
    with server() as address, listening("benchmarks.echo") as echo_address:
        with epochd.connect(address) as client:
            x = np.random.default_rng(0).standard_normal((64, 4))
            run = client.train(
                x,
                x.sum(1),
                model=epochd.Linear(),
                loss="mse",
                optimizer=epochd.SGD(lr=0.1),
                epochs=5,
                name="echo",
            )
            run.result()
        request = trainer_pb2.PredictRequest(
            model="models/echo",
            tensor=tensor_pb2.Tensor(
                dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[1, 4], data=np.ones(4, np.float32).tobytes()
            ),
        ).SerializeToString()
        with (
            grpc.insecure_channel(address) as ours_channel,
            grpc.insecure_channel(echo_address) as echo_channel,
        ):
            predict = ours_channel.unary_unary("/epochd.v1.Trainer/Predict")
            echo = echo_channel.unary_unary("/echo.Echo/Unary")
            _latencies(predict, request), _latencies(echo, request)
            rounds = [(_latencies(predict, request), _latencies(echo, request)) for _ in range(ROUNDS)]
    ours = np.concatenate([a for a, _ in rounds])
    theirs = np.concatenate([b for _, b in rounds])
    rates = [(1 / a.mean(), 1 / b.mean()) for a, b in rounds]
    ratios = [a / b for a, b in rates]
    return [
        Row(
            work="Predict of a 1 × 4 row, requests a second",
            ours=float(np.median([a for a, _ in rates])),
            against="bare gRPC echo",
            theirs=float(np.median([b for _, b in rates])),
            aim="≥ 0.8",
            unit="/s",
            spread=(min(ratios), max(ratios)),
        ),
        _percentile_row("p50", ours, theirs, 50),
        _percentile_row("p99", ours, theirs, 99),
    ]


def _latencies(call: Callable[[bytes], bytes], request: bytes) -> np.ndarray:
    seconds = np.empty(CALLS)
    for index in range(CALLS):
        start = time.perf_counter()
        call(request)
        seconds[index] = time.perf_counter() - start
    return seconds


def _percentile_row(name: str, ours: np.ndarray, theirs: np.ndarray, percent: int) -> Row:
    return Row(
        work=f"Predict of a 1 × 4 row, {name}",
        ours=float(np.percentile(ours, percent)),
        against="bare gRPC echo",
        theirs=float(np.percentile(theirs, percent)),
        aim="≤ 1.25",
    )
