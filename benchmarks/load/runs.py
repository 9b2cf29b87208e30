"""Trainings that keep workers busy, and how much memory a server takes."""

from __future__ import annotations

import numpy as np
import psutil

import epochd

MEBIBYTE = 2**20


def endless(client: epochd.Client, *, log_every: int = 1) -> epochd.Run:
    """A run that takes minutes: mini-batches by Adam, an epoch of some milliseconds, until it is cancelled."""
    x = np.random.default_rng(0).standard_normal((4_000, 8))
    return client.train(
        x,
        x.sum(1),
        model=epochd.Linear(),
        loss="mse",
        optimizer=epochd.Adam(lr=1e-3),
        epochs=10_000_000,
        batch_size=8,
        log_every=log_every,
    )


def server_memory() -> float:
    """Resident mebibytes of the server that this process started, without its workers."""
    (server,) = (child for child in psutil.Process().children() if "epochd_server" in child.cmdline())
    return float(server.memory_info().rss) / MEBIBYTE
