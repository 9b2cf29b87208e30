"""The tutorial run through a warm server, from call to result, against the plain PyTorch loop in process."""

from __future__ import annotations

import torch

import epochd
from benchmarks import loops
from benchmarks.harness import Row, paired, server


def measure() -> list[Row]:
    """One row: 2,000 epochs on three points, logged every 100."""
    torch.set_num_threads(1)
    with server() as address, epochd.connect(address) as client:

        def ours() -> None:
            run = client.train(
                [[1.0], [2.0], [3.0]],
                [[2.0], [4.0], [6.0]],
                model=epochd.Linear(init="zeros"),
                loss="mse",
                optimizer=epochd.SGD(lr=0.01),
                epochs=2000,
                log_every=100,
                log_parameters=True,
                name="tutorial",
            )
            run.result()

        a, b, spread = paired(ours, loops.tutorial, repeats=11)
    return [
        Row(
            work="tutorial run over gRPC",
            ours=a,
            against="plain PyTorch loop",
            theirs=b,
            aim="≤ 0.25",
            spread=spread,
        )
    ]
