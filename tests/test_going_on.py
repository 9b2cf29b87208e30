"""Runs whose epochs outlast many checkpoints, killed with their workers and their server in the middle of them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import epochd
from epochd import events

from .conftest import StartServer

pytestmark = pytest.mark.alone

MODULES = """
from torch import nn

class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        layers = nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1)
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)
"""
ROWS = 16_000
WIDE = epochd.Sequential(
    epochd.Linear(256), "relu", epochd.Dropout(0.1), epochd.Linear(256), "relu", epochd.Linear()
)
SMOOTH = epochd.Sequential(epochd.Linear(24), "tanh", epochd.Linear())
GRADIENT = {"loss": "mse", "optimizer": epochd.Adam(lr=1e-3), "epochs": 2, "batch_size": 4}
TRAININGS: dict[str, dict[str, Any]] = {
    "network": {**GRADIENT, "model": WIDE},
    "module": {**GRADIENT, "model": epochd.Module("Dropping")},
    "exact": {"loss": "mse", "model": SMOOTH, "fit": epochd.LBFGS(max_iterations=300, tolerance=1e-12)},
}
"""Some seconds of a core each; an epoch of the first two takes seconds, an iteration of the last milliseconds."""


FLAGS = "--workers", str(len(TRAININGS)), "--checkpoint-interval", "0.1"


def start(client: epochd.Client, name: str) -> epochd.Run:
    chance = np.random.default_rng(0)
    x = chance.standard_normal((ROWS, 8)).astype(np.float32)
    y = np.tanh(x).sum(1) + chance.standard_normal(ROWS).astype(np.float32)
    return client.train(x, y, seed=3, log_every=1, **TRAININGS[name])


def story(run: epochd.Run) -> tuple[list[tuple[int, float]], dict[str, bytes]]:
    """What an undisturbed run and an interrupted one must have in common; waits for the end."""
    parameters = run.result().parameters()
    logs = [(log.epoch, log.loss) for log in run.logs()]
    return logs, {name: array.tobytes() for name, array in parameters.items()}


def wait_until_saved(data_dir: Path, runs: Collection[str], times: int) -> None:
    """Returns when each of the runs was saved so often once more."""
    before: dict[str, int] = {}
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with closing(sqlite3.connect(f"file:{data_dir / 'epochd.db'}?mode=ro", uri=True)) as database:
            saved = dict(database.execute("SELECT run_id, MAX(number) FROM checkpoints GROUP BY run_id"))
        found = {run: saved.get(run.removeprefix("runs/"), 0) for run in runs}
        before = before or found
        if all(found[run] >= before[run] + times for run in runs):
            return
        time.sleep(0.02)
    pytest.fail(f"the runs were not saved: {found}")


@pytest.mark.timeout(300)
def test_runs_go_on_within_an_epoch_after_the_death_of_their_workers_and_of_the_server(
    start_server: StartServer, tmp_path: Path
) -> None:
    modules = tmp_path / "modules.py"
    modules.write_text(MODULES)
    server = start_server(*FLAGS, "--modules", str(modules))
    with epochd.connect(server.address, timeout=120) as client:
        expected = [story(run) for run in [start(client, name) for name in TRAININGS]]
        runs = [start(client, name).name for name in TRAININGS]
        wait_until_saved(server.data_dir, runs, 2)
        for worker in psutil.Process(server.process.pid).children():
            worker.kill()
        wait_until_saved(server.data_dir, runs, 2)
    server.kill()
    server = start_server(*FLAGS, "--modules", str(modules))
    with epochd.connect(server.address, timeout=120) as client:
        for name, run, undisturbed in zip(TRAININGS, map(client.run, runs), expected, strict=True):
            assert story(run) == undisturbed, name
            log = list(run.events())
            assert [event.sequence for event in log] == list(range(1, len(log) + 1))
            first, second = (event.message for event in log if isinstance(event, events.Warning))
            assert first.startswith("Its worker process was killed by SIGKILL")
            assert second.startswith("The server was restarted. It goes on with epoch ")
            # nothing was saved before its first epoch, so that it was saved within that
            assert "It goes on with epoch 0," in first or name == "exact"
