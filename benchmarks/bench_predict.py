"""Unary Predict of one row of four features against a bare gRPC echo of the same bytes, one call after another."""

from __future__ import annotations

import time
from collections.abc import Callable

import grpc
import numpy as np

import epochd
from benchmarks.harness import Row, listening, server
from epochd.v1 import tensor_pb2, trainer_pb2

CALLS, ROUNDS = 150, 40
"""Short turns: what else the machine does then meets both sides alike."""

Call = Callable[[bytes], bytes]


def measure() -> list[Row]:
    """The rate for each way to write the row, and for its bytes the median and the 99th percentile."""
    with server() as address, listening("benchmarks.echo") as echo_address:
        _train(address)
        with (
            grpc.insecure_channel(address) as ours_channel,
            grpc.insecure_channel(echo_address) as echo_channel,
        ):
            predict = ours_channel.unary_unary("/epochd.v1.Trainer/Predict")
            echo = echo_channel.unary_unary("/echo.Echo/Unary")
            pairs = {kind: _in_turns(predict, echo, request) for kind, request in _requests().items()}
    ours, theirs = pairs["tensor of bytes"]
    return [
        *(_rate_row(kind, *pair) for kind, pair in pairs.items()),
        _percentile_row("p50", ours, theirs, 50),
        _percentile_row("p99", ours, theirs, 99),
    ]


def _train(address: str) -> None:
    with epochd.connect(address) as client:
        x = np.random.default_rng(0).standard_normal((64, 4))
        client.train(
            x,
            x.sum(1),
            model=epochd.Linear(),
            loss="mse",
            optimizer=epochd.SGD(lr=0.1),
            epochs=5,
            name="echo",
        ).result()


def _requests() -> dict[str, bytes]:
    """The same row in three ways."""
    one = tensor_pb2.Numbers(values=[1.0])
    rows = {
        "tensor of bytes": trainer_pb2.PredictRequest(
            tensor=tensor_pb2.Tensor(
                dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[1, 4], data=np.ones(4, np.float32).tobytes()
            )
        ),
        "tensor of numbers": trainer_pb2.PredictRequest(
            tensor=tensor_pb2.Tensor(shape=[1, 4], numbers=tensor_pb2.Numbers(values=[1.0] * 4))
        ),
        "table": trainer_pb2.PredictRequest(
            table=tensor_pb2.Table(
                columns=[tensor_pb2.Column(name=f"x{index}", numbers=one) for index in range(4)]
            )
        ),
    }
    for request in rows.values():
        request.model = "models/echo"
    return {kind: request.SerializeToString() for kind, request in rows.items()}


def _in_turns(ours: Call, theirs: Call, request: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Seconds a call of both, [ROUNDS, CALLS] each, after a warm-up."""
    for _ in range(3):
        _latencies(ours, request), _latencies(theirs, request)
    turns = [(_latencies(ours, request), _latencies(theirs, request)) for _ in range(ROUNDS)]
    return np.array([a for a, _ in turns]), np.array([b for _, b in turns])


def _latencies(call: Call, request: bytes) -> np.ndarray:
    seconds = np.empty(CALLS)
    for index in range(CALLS):
        start = time.perf_counter()
        call(request)
        seconds[index] = time.perf_counter() - start
    return seconds


def _rate_row(kind: str, ours: np.ndarray, theirs: np.ndarray) -> Row:
    ratios = theirs.mean(1) / ours.mean(1)
    return Row(
        work=f"Predict of a 1 × 4 row ({kind}), requests a second",
        ours=float(np.median(1 / ours.mean(1))),
        against="bare gRPC echo",
        theirs=float(np.median(1 / theirs.mean(1))),
        aim="≥ 0.8",
        unit="/s",
        spread=(float(ratios.min()), float(ratios.max())),
    )


def _percentile_row(name: str, ours: np.ndarray, theirs: np.ndarray, percent: int) -> Row:
    return Row(
        work=f"Predict of a 1 × 4 row (tensor of bytes), {name}",
        ours=float(np.percentile(ours, percent)),
        against="bare gRPC echo",
        theirs=float(np.percentile(theirs, percent)),
        aim="≤ 1.25",
    )
