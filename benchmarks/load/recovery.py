"""How soon a run goes on that a SIGKILL interrupted, of the server or of its worker, against the start of a server.

Times of events are held against the time of the start, or of the worker's death. A run *goes on* when its log says so,
and has *logged again* after the epochs since its last checkpoint were made once more.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import epochd
from benchmarks.chaos.strangers import connect
from benchmarks.chaos.supervised import SupervisedServer
from benchmarks.harness import Row
from benchmarks.load.runs import endless
from epochd import events

ROUNDS, INTERVAL = 5, 1.0
"""How often each is killed, and seconds between two checkpoints."""
_SAVED = 2.5 * INTERVAL
"""Within so many seconds a run is saved twice."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """Seconds from the beginning of one.

    Attributes:
        going_on: Until the run goes on.
        logged: Until it has logged an epoch that was not in its log.
    """

    going_on: float
    logged: float


def measure() -> list[Row]:
    """Two rows for the server, and two for its worker."""
    flags = "--checkpoint-interval", str(INTERVAL)
    with tempfile.TemporaryDirectory() as bare, tempfile.TemporaryDirectory() as ours:
        without_runs, server = SupervisedServer(Path(bare), 1), SupervisedServer(Path(ours), 1, flags)
        _start(without_runs)
        server.start()
        try:
            rounds = [_round(server, without_runs) for _ in range(ROUNDS)]
        finally:
            server.kill()
    of_server, of_worker, starts = zip(*rounds, strict=True)
    saved = f"saved every {INTERVAL:g} s"
    return [
        *_rows(f"start of a server with a run in training ({saved})", of_server, starts),
        *_rows(f"SIGKILL of the worker of such a run ({saved})", of_worker, starts),
    ]


def _rows(work: str, recoveries: Sequence[Recovery], starts: Sequence[float]) -> Iterator[Row]:
    ends = {
        "until it goes on": [recovery.going_on for recovery in recoveries],
        "until it has logged again": [recovery.logged for recovery in recoveries],
    }
    for end, seconds in ends.items():
        ratios = [ours / theirs for ours, theirs in zip(seconds, starts, strict=True)]
        yield Row(
            work=f"{work}, {end}",
            ours=statistics.median(seconds),
            against="start of a server without runs, until it listens",
            theirs=statistics.median(starts),
            aim="—",
            spread=(min(ratios), max(ratios)),
        )


def _round(server: SupervisedServer, without_runs: SupervisedServer) -> tuple[Recovery, Recovery, float]:
    """Recoveries from a kill of the server and from one of its worker, and the start of a server without runs."""
    with connect(server.address) as client:
        run = endless(client, log_every=10)
        next(iter(run.logs()))
        time.sleep(_SAVED)
        server.kill()
        start = _start(without_runs)
        began = datetime.now(UTC)
        server.start()
        of_server = _recovery(run, began)
        time.sleep(_SAVED)
        (worker,) = server.worker_pids()
        of_worker = _recovery(run, server.kill_worker(worker))
        run.cancel()
        run.wait()
    return of_server, of_worker, start


def _start(server: SupervisedServer) -> float:
    """Seconds that the start of a server takes, which is then ended."""
    seconds = server.start()
    server.kill()
    return seconds


def _recovery(run: epochd.Run, began: datetime) -> Recovery:
    """What a run's log tells of how it went on after a time."""
    resumed = None
    for event in run.events():
        if event.time <= began:
            continue
        after = (event.time - began).total_seconds()
        if isinstance(event, events.Warning) and event.reason == "RUN_RESUMED":
            resumed = after
        elif isinstance(event, events.EpochLog) and resumed is not None:
            return Recovery(resumed, after)
    raise RuntimeError(f"{run.name} did not go on")
