"""Which workers have a cohort, or a fleet, and who of it shall stop. Workers whose runs do not stop are ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog

from epochd_server.executor.fleets import FleetTraining
from epochd_server.executor.process import WorkerProcess

_logger = structlog.get_logger(__name__)


class Assignment:
    """A cohort, or a fleet, on its way to workers or with them.

    A run that shall stop does so at its next epoch. One that has not after some seconds hangs, as only a registered
    module can, or has very long epochs: its worker is ended, so that the core is free.

    Args:
        run_ids: The runs.
        patience: Seconds that a run has to stop.
    """

    def __init__(self, run_ids: Iterable[str], patience: float) -> None:
        self.fleet: FleetTraining | None = None
        self.workers: list[WorkerProcess] = []
        self._open = set(run_ids)
        self._patience = patience
        self._stopped: list[str] = []

    def stop(self, run_id: str) -> None:
        """Asks that a run stop."""
        self._stopped.append(run_id)
        if self.fleet is not None:
            self.fleet.stop()
        for worker in self.workers:
            self._stop_on(worker, run_id)

    def give_to(self, worker: WorkerProcess) -> None:
        """A worker has it from now on, or a part of it."""
        self.workers.append(worker)
        for run_id in self._stopped:
            self._stop_on(worker, run_id)

    def take_from(self, worker: WorkerProcess) -> None:
        """A worker has it no longer."""
        self.workers.remove(worker)

    def note_end(self, run_id: str) -> None:
        """A run has ended, whatever becomes of the others."""
        self._open.discard(run_id)

    def _stop_on(self, worker: WorkerProcess, run_id: str) -> None:
        worker.stop_runs([run_id])
        asyncio.get_running_loop().call_later(self._patience, self._lose_patience, worker, run_id)

    def _lose_patience(self, worker: WorkerProcess, run_id: str) -> None:
        if worker in self.workers and run_id in self._open:
            _logger.warning("a run does not stop; its worker process is ended", run=run_id, worker=worker.pid)
            worker.give_up()
