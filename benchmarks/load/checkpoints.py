"""What checkpoints cost: trainings that are saved, as often as by default and far more often, against others.

Those take turns, each on a server of its own that is idle otherwise. The time is that between the events that tell of
a run's start and of its end.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from contextlib import ExitStack

import numpy as np

import epochd
from benchmarks import fleets
from benchmarks.harness import Row, server
from epochd import events

SECONDS, ROUNDS = 22.0, 3
"""Of each training, about: long enough for two checkpoints at the usual interval."""
NEVER, USUAL, OFTEN = 86_400.0, 10.0, 0.5
"""Seconds between two checkpoints."""
MEMBERS, FEATURES, WIDTH, SAMPLES = 10_000, 50, 512, 20_000

Train = Callable[[epochd.Client, int], epochd.Run]
"""Has something trained for so many epochs."""


def measure() -> list[Row]:
    """Two rows for a model, and two for a fleet."""
    with ExitStack() as stack:
        clients = {}
        for interval in (NEVER, USUAL, OFTEN):
            address = stack.enter_context(server("--checkpoint-interval", str(interval), workers=2))
            clients[interval] = stack.enter_context(epochd.connect(address, timeout=300))
        return [
            *_rows(f"an MLP {FEATURES}-{WIDTH}-{WIDTH}-1 by Adam", _alone(), clients),
            *_rows(f"{MEMBERS:,} MLPs 8-16-1 by Adam", _fleet(), clients),
        ]


def _rows(what: str, train: Train, clients: Mapping[float, epochd.Client]) -> list[Row]:
    """A row for each interval, of rounds in which every server has its turn."""
    epochs = _epochs(train, clients[NEVER])
    rounds = [
        {interval: _seconds(train(client, epochs)) for interval, client in clients.items()}
        for _ in range(ROUNDS)
    ]
    return [_row(what, interval, rounds) for interval in (USUAL, OFTEN)]


def _row(what: str, interval: float, rounds: list[dict[float, float]]) -> Row:
    ratios = [seconds[interval] / seconds[NEVER] for seconds in rounds]
    return Row(
        work=f"training of {what}, saved every {interval:g} s",
        ours=statistics.median(seconds[interval] for seconds in rounds),
        against="never saved",
        theirs=statistics.median(seconds[NEVER] for seconds in rounds),
        aim="< 1.02" if interval == USUAL else "—",
        spread=(min(ratios), max(ratios)),
    )


def _epochs(train: Train, client: epochd.Client) -> int:
    """How many take :data:`SECONDS` on this machine, by a training of fewer; the first of all warms up."""
    few = 10
    _seconds(train(client, few))
    while (seconds := _seconds(train(client, few))) < 0.05 * SECONDS:
        few *= 4
    return math.ceil(few * SECONDS / seconds)


def _seconds(run: epochd.Run) -> float:
    """From its start to its end, by the times of its log."""
    log = list(run.events())
    (started,) = (event for event in log if isinstance(event, events.Started))
    if not isinstance(log[-1], events.Succeeded):
        raise RuntimeError(f"the run did not succeed: {log[-1]}")
    return (log[-1].time - started.time).total_seconds()


def _alone() -> Train:
    random = np.random.default_rng(0)
    x = random.standard_normal((SAMPLES, FEATURES))
    y = x.sum(1) + random.standard_normal(SAMPLES)
    layers = epochd.Linear(WIDTH), "relu", epochd.Linear(WIDTH), "relu", epochd.Linear()
    arguments = {"model": epochd.Sequential(*layers), "optimizer": epochd.Adam(lr=1e-4), "batch_size": 256}

    def train(client: epochd.Client, epochs: int) -> epochd.Run:
        return client.train(x.astype(np.float32), y, loss="mse", epochs=epochs, seed=0, **arguments)

    return train


def _fleet() -> Train:
    table = fleets.table(fleets.MLP, MEMBERS, seed=0)

    def train(client: epochd.Client, epochs: int) -> epochd.Run:
        arguments = fleets.MLP.arguments | {"epochs": epochs}
        return client.train(table, target="y", group_by="store", seed=0, **arguments)

    return train
