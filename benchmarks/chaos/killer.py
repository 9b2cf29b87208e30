"""Kills servers and workers at random, and starts servers again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType

from benchmarks.chaos.supervised import SupervisedServer


class Victim(StrEnum):
    """What a kill is aimed at."""

    SERVER = "server"
    WORKER = "one worker"
    WORKERS = "all workers"
    BOTH = "server and workers"
    STARTING = "server, and again while it starts"


WEIGHTS: Mapping[Victim, float] = MappingProxyType(
    {Victim.SERVER: 4, Victim.WORKER: 4, Victim.WORKERS: 1, Victim.BOTH: 2, Victim.STARTING: 2}
)
"""How often each is chosen, relative to the others."""


@dataclass(frozen=True, slots=True)
class Kill:
    """A kill that was tried.

    Attributes:
        victim: At what it was aimed.
        time: When the last of them was dead.
        survived: Whether there was a server with all its workers again.
    """

    victim: Victim
    time: datetime
    survived: bool

    @property
    def of_server(self) -> bool:
        """Whether the server was killed, too."""
        return self.victim not in {Victim.WORKER, Victim.WORKERS}


def schedule(seed: int, seconds: float, kills: int) -> list[tuple[float, Victim]]:
    """When, in seconds, what is to be killed. Every victim comes before one comes again where there are enough kills.

    Args:
        seed: What decides.
        seconds: All of it happens within these.
        kills: How many.
    """
    chance = random.Random(f"{seed} kills")
    victims = list(Victim)[:kills]
    victims += chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=kills - len(victims))
    chance.shuffle(victims)
    times = sorted(chance.uniform(0.05, 0.95) * seconds for _ in victims)
    return list(zip(times, victims, strict=True))


class Killer:
    """Kills by a schedule. A kill that is due while the one before is not over yet comes right after it.

    Args:
        server: The victim.
        plan: As :func:`schedule` makes it.
        seed: Decides which worker, and how far a start gets.
    """

    def __init__(self, server: SupervisedServer, plan: list[tuple[float, Victim]], seed: int) -> None:
        self.kills: list[Kill] = []
        self.error: Exception | None = None
        self._server = server
        self._plan = plan
        self._chance = random.Random(f"{seed} killer")

    def run(self) -> None:
        """Kills, kill after kill; gives up where a server does not come back."""
        began = time.monotonic()
        strikes: dict[Victim, Callable[[], datetime]] = {
            Victim.SERVER: self._server_dies,
            Victim.WORKER: self._worker_dies,
            Victim.WORKERS: self._workers_die,
            Victim.BOTH: self._both_die,
            Victim.STARTING: self._start_dies,
        }
        for due, victim in self._plan:
            time.sleep(max(0.0, began + due - time.monotonic()))
            try:
                died = strikes[victim]()
                self.kills.append(Kill(victim, died, self._server.await_workers()))
            except Exception as error:
                self.error = error
                self.kills.append(Kill(victim, datetime.now(UTC), survived=False))
                return

    def _server_dies(self) -> datetime:
        died = self._server.kill()
        self._server.start()
        return died

    def _worker_dies(self) -> datetime:
        pids = self._server.worker_pids()
        return self._server.kill_worker(self._chance.choice(pids)) if pids else datetime.now(UTC)

    def _workers_die(self) -> datetime:
        return max(map(self._server.kill_worker, self._server.worker_pids()), default=datetime.now(UTC))

    def _both_die(self) -> datetime:
        self._workers_die()
        time.sleep(self._chance.uniform(0.0, 0.2))  # the server may or may not have noticed
        return self._server_dies()

    def _start_dies(self) -> datetime:
        self._server.kill()
        self._server.launch()
        time.sleep(self._chance.uniform(0.1, 1.0) * max(self._server.starts))
        return self._server_dies()
