"""Predict by key: 1,000 rows over 10,000 members, against a loop of models and against a single model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import nn

import epochd
from benchmarks import fleets
from benchmarks.fleets import FEATURES, LINEAR, NAMES
from benchmarks.harness import Row, paired, server

MEMBERS, ROWS = 10_000, 1_000


def measure() -> list[Row]:
    """Two rows, both over gRPC on our side."""
    torch.set_num_threads(1)
    random = np.random.default_rng(1)
    rows = pd.DataFrame(random.standard_normal((ROWS, FEATURES)), columns=NAMES)
    rows["store"] = random.integers(0, MEMBERS, ROWS)
    with server(workers=2) as address, epochd.connect(address, timeout=300) as client:
        frame = fleets.table(LINEAR, MEMBERS, seed=3)
        fleet = fleets.train(client, LINEAR, frame)
        single = client.train(
            frame.head(2000)[[*NAMES, "y"]], target="y", name="single", seed=0, **LINEAR.arguments
        ).result()
        models = _models(fleet)
        values = rows[NAMES].to_numpy(np.float32, copy=True)
        plain = rows[NAMES]
        by_loop = paired(
            lambda: fleet.predict(rows), lambda: _loop(models, rows["store"].tolist(), values), repeats=7
        )
        by_single = paired(lambda: fleet.predict(rows), lambda: single.predict(plain), repeats=21)
    work = "Predict of 1,000 rows over 10,000 members"
    return [
        Row(
            work=work,
            ours=by_loop[0],
            against="Python loop of per-model calls, in process",
            theirs=by_loop[1],
            aim="≥ 100 ×",
            better="more",
        ),
        Row(
            work=work,
            ours=by_single[0],
            against="Predict of a single model, same rows",
            theirs=by_single[1],
            aim="≤ 1.5",
            spread=by_single[2],
        ),
    ]


def _models(fleet: epochd.Fleet) -> list[nn.Linear]:
    parameters = fleet.parameters()
    models = []
    for weight, bias in zip(parameters["linear.weight"], parameters["linear.bias"], strict=True):
        model = nn.Linear(FEATURES, 1)
        model.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
        models.append(model)
    return models


def _loop(models: list[nn.Linear], keys: list[int], values: np.ndarray) -> list[float]:
    with torch.no_grad():
        return [models[key](torch.from_numpy(row)).item() for key, row in zip(keys, values, strict=True)]
