"""One chaos run, from the first start of the server to the report."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos.audit import Audit, settle
from benchmarks.chaos.control import train_all
from benchmarks.chaos.journal import Journal
from benchmarks.chaos.killer import Killer, schedule
from benchmarks.chaos.recipes import KINDS
from benchmarks.chaos.report import Report
from benchmarks.chaos.strangers import PATIENCE_SECONDS, Stranger, connect
from benchmarks.chaos.supervised import SupervisedServer

_OF_KILLED_WORKERS = {
    "a spare worker process could not be started",
    "a worker process could not be replaced",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a chaos run is to be.

    Attributes:
        seed: Decides what is done and killed, and when; the machine decides what meets what.
        seconds: How long there is trouble.
        kills: How much.
        clients: How many work meanwhile.
        workers: Of the server.
        pause: Seconds between two things that a client does, on average.
        checkpoint_interval: Seconds between two checkpoints of a run: few, as trainings are short here.
        settle: Seconds that runs may take to end after the last kill.
        flags: Further ones of the server.
    """

    seed: int = 1
    seconds: float = 120.0
    kills: int = 24
    clients: int = 8
    workers: int = 2
    pause: float = 0.3
    checkpoint_interval: float = 0.5
    settle: float = 120.0
    flags: tuple[str, ...] = ()


def run(options: Options) -> Report:
    """Makes trouble, waits until everything has ended, and accounts for it."""
    with tempfile.TemporaryDirectory(prefix="epochd-chaos-") as folder:
        flags = "--checkpoint-interval", str(options.checkpoint_interval), *options.flags
        server = SupervisedServer(Path(folder), options.workers, flags)
        server.start()
        try:
            return _report(server, options)
        finally:
            server.kill()


def _report(server: SupervisedServer, options: Options) -> Report:
    journal = Journal()
    killer = _trouble(server, journal, options)
    with connect(server.address) as client:
        late = settle(client, journal, options.settle)
        finite = (entry.recipe for entry in journal.runs if KINDS[entry.recipe.kind].ends)
        audit = Audit(client, journal, train_all(finite), killer.kills)
        audit.findings.losses += late
        findings = audit.findings if late else audit.run()
    return Report(killer.kills, journal, findings, server.starts, logged_errors(server.log))


def _trouble(server: SupervisedServer, journal: Journal, options: Options) -> Killer:
    """Clients at work, and kills; returns when all of them are done.

    Raises:
        RuntimeError: The server does not start any more, or a client has hung.
    """
    killer = Killer(server, schedule(options.seed, options.seconds, options.kills), options.seed)
    strangers = [
        Stranger(number, server.address, journal, options.seed, options.pause)
        for number in range(options.clients)
    ]
    until = time.monotonic() + options.seconds
    for stranger in strangers:
        stranger.start()
    killer.run()
    if killer.error is not None:
        raise RuntimeError("the server did not come back") from killer.error
    time.sleep(max(0.0, until - time.monotonic()))
    for stranger in strangers:
        stranger.stop()
    hung = [stranger for stranger in strangers if not stranger.join(options.settle + PATIENCE_SECONDS)]
    journal.complaints += [f"{stranger.name} hangs" for stranger in hung]
    return killer


def logged_errors(log: Path) -> list[str]:
    """What a server logged as an error, but that workers were killed while they started."""
    entries = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    errors = [entry for entry in entries if entry.get("level") == "error"]
    return [
        f"logged: {entry['event']} {str(entry.get('exception', ''))[-300:]}"
        for entry in errors
        if entry["event"] not in _OF_KILLED_WORKERS
    ]
