"""Seconds an epoch on 100,000 × 50 rows, MLP 50-64-1, Adam, batch 256, against two PyTorch loops."""

from __future__ import annotations

import numpy as np
import torch

import epochd
from benchmarks import loops
from benchmarks.harness import Row, server, timed

ROWS, FEATURES, BATCH, REPEATS, EPOCHS = 100_000, 50, 256, 5, 3


def measure() -> list[Row]:
    """Two rows; epochd's epochs are timed by its own log, between the first and the last epoch of a run."""
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    x = random.standard_normal((ROWS, FEATURES), dtype=np.float32)
    y = (x @ random.standard_normal((FEATURES, 1), dtype=np.float32)).astype(np.float32)
    tensors = torch.from_numpy(x), torch.from_numpy(y)
    with server() as address, epochd.connect(address, timeout=120) as client:
        ours, sliced, loader = [], [], []
        for _ in range(REPEATS):
            ours.append(_epoch(client, x, y))
            sliced.append(
                timed(lambda: loops.sliced_epochs(*tensors, loops.mlp(FEATURES, 64, 1), BATCH, 2)) / 2
            )
            loader.append(timed(lambda: loops.loader_epochs(*tensors, loops.mlp(FEATURES, 64, 1), BATCH, 1)))
    work = "an epoch of 100,000 × 50, MLP 50-64-1, Adam, batch 256"
    return [
        _row(work, ours, "sliced tensors, fused Adam", sliced, "≤ 1.05"),
        _row(work, ours, "DataLoader loop", loader, "≤ 0.15"),
    ]


def _epoch(client: epochd.Client, x: np.ndarray, y: np.ndarray) -> float:
    run = client.train(
        x,
        y,
        model=epochd.Sequential(epochd.Linear(64), "relu", epochd.Linear(1)),
        loss="mse",
        optimizer=epochd.Adam(lr=1e-3),
        epochs=EPOCHS,
        batch_size=BATCH,
        log_every=1,
        seed=0,
    )
    return float(np.median([ROWS / log.rows_per_second for log in run.logs()][1:]))


def _row(work: str, ours: list[float], against: str, theirs: list[float], aim: str) -> Row:
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    spread = (min(ratios), max(ratios))
    return Row(
        work=work,
        ours=float(np.median(ours)),
        against=against,
        theirs=float(np.median(theirs)),
        aim=aim,
        spread=spread,
    )
