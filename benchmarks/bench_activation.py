"""A 64 MB ActivationTransform through the client against an echo of the same bytes in the same chunks."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import numpy as np

import epochd
from benchmarks.harness import Row, listening, paired, server

CHUNK = 1 << 20


def measure() -> list[Row]:
    """One row: sigmoid of 16,777,216 float32 values."""
    x = np.random.default_rng(0).standard_normal(1 << 24, dtype=np.float32)
    view = memoryview(x).cast("B")

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(view), CHUNK):
            yield bytes(view[start : start + CHUNK])

    with (
        server() as address,
        listening("benchmarks.echo") as echo_address,
        epochd.connect(address, timeout=120) as client,
        grpc.insecure_channel(echo_address) as channel,
    ):
        echo = channel.stream_stream("/echo.Echo/Stream")

        def theirs() -> None:
            received = np.empty_like(x)
            target, offset = memoryview(received).cast("B"), 0
            for chunk in echo(chunks()):
                target[offset : offset + len(chunk)] = chunk
                offset += len(chunk)

        a, b, spread = paired(lambda: client.activation("sigmoid", x), theirs, repeats=5)
    return [
        Row(work="sigmoid of a 64 MB tensor", ours=a, against="gRPC echo", theirs=b, aim="—", spread=spread)
    ]
