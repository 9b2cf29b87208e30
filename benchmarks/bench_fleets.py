"""Ten thousand models in one training, from a DataFrame to the result, against the usual ways to train as many."""

from __future__ import annotations

import statistics

import joblib
import numpy as np
import pandas as pd
import torch

import epochd
from benchmarks import fleets, loops
from benchmarks.fleets import FEATURES, LINEAR, LOGISTIC, MLP, NAMES, ROWS, SOFTMAX, Kind
from benchmarks.harness import Row, server, timed

MEMBERS, SAMPLE, REPEATS = 10_000, 50, 3


def measure() -> list[Row]:
    """A row for each kind of member, and two more alternatives for the linear one."""
    torch.set_num_threads(1)
    with server(workers=2) as address, epochd.connect(address, timeout=300) as client:
        rows = [_against_loop(client, kind) for kind in (LINEAR, LOGISTIC, SOFTMAX, MLP)]
    frame = fleets.table(LINEAR, MEMBERS, seed=99)
    ours = rows[0].ours
    _joblib(frame)  # the processes stay for the next call
    joined = statistics.median(timed(lambda: _joblib(frame)) for _ in range(REPEATS)) * MEMBERS / (2 * SAMPLE)
    rows.append(_row(LINEAR, ours, "joblib, 2 processes of plain loops", joined, "≥ 500 ×"))
    rows.append(_row(LINEAR, ours, "torch.func vmap by hand, in process", _vmap_seconds(frame), "≥ 3 ×"))
    return rows


def _against_loop(client: epochd.Client, kind: Kind) -> Row:
    fleets.train(client, kind, fleets.table(kind, 200, seed=7))
    ours, theirs = [], []
    for repeat in range(REPEATS):
        frame = fleets.table(kind, MEMBERS, seed=repeat)
        ours.append(timed(lambda frame=frame: fleets.train(client, kind, frame)))
        loop = timed(lambda frame=frame: fleets.plain_loop(kind, frame, SAMPLE))
        theirs.append(loop * MEMBERS / SAMPLE)
    a, b = statistics.median(ours), statistics.median(theirs)
    return _row(kind, a, f"plain PyTorch loop ({SAMPLE} measured, scaled)", b, f"≥ {kind.aim:,} ×")


def _row(kind: Kind, ours: float, against: str, theirs: float, aim: str) -> Row:
    return Row(
        work=f"10,000 {kind.name} models, 32 × 8, 200 epochs, DataFrame to result",
        ours=ours,
        against=against,
        theirs=theirs,
        aim=aim,
        better="more",
    )


def _joblib(frame: pd.DataFrame) -> None:
    chunk = joblib.delayed(fleets.plain_loop)
    joblib.Parallel(n_jobs=2)(chunk(LINEAR, frame, SAMPLE) for _ in range(2))


def _vmap_seconds(frame: pd.DataFrame) -> float:
    x = torch.tensor(frame[NAMES].to_numpy(np.float32)).reshape(MEMBERS, ROWS, FEATURES)
    y = torch.tensor(frame["y"].to_numpy(np.float32)).reshape(MEMBERS, ROWS)
    return timed(lambda: loops.vmapped(x, y, lr=0.05, epochs=fleets.EPOCHS))
