"""A server that is killed and started again, always at the same address and with the same state."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psutil

from benchmarks.harness import ONE_THREAD

START_SECONDS: Final = 120.0
"""A server that does not serve after so long has not survived."""

MODULES: Final = ("--modules", str(Path(__file__).with_name("modules.py")))
"""Flags that register the modules that recipes name."""

_WORKER: Final = "epochd_server.executor.worker"


class SupervisedServer:
    """One ``python -m epochd_server`` after the other.

    Args:
        folder: Of its state and its log.
        workers: How many it has.
        flags: Further ones.
    """

    def __init__(self, folder: Path, workers: int, flags: Sequence[str] = ()) -> None:
        self.address = f"127.0.0.1:{_free_port()}"
        self.starts: list[float] = []
        self.workers = workers
        self._folder = folder
        self._flags = tuple(flags)
        self._process: subprocess.Popen[str] | None = None

    @property
    def log(self) -> Path:
        """What all of them wrote to standard error."""
        return self._folder / "server.log"

    def launch(self) -> None:
        """Starts a process, and does not wait for it."""
        command = [
            sys.executable, "-m", "epochd_server", "--listen", self.address, "--data-dir", str(self._folder / "data"),
            "--workers", str(self.workers), "--log-format", "json", "--log-level", "warning", *MODULES,
            *self._flags,
        ]  # fmt: skip
        with self.log.open("ab") as errors:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | ONE_THREAD
            )

    def start(self) -> float:
        """Starts a process and returns when it serves; how many seconds that took.

        Raises:
            RuntimeError: It ended instead.
        """
        began = time.perf_counter()
        self.launch()
        process = self._running()
        line = process.stdout.readline() if process.stdout else ""
        if not line.startswith("epochd listening on "):
            raise RuntimeError(f"the server ended with {process.wait()}: {self.log.read_text()[-2_000:]}")
        self.starts.append(time.perf_counter() - began)
        return self.starts[-1]

    def kill(self) -> datetime:
        """SIGKILL; when it was dead."""
        process = self._running()
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
        return datetime.now(UTC)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        process = self._running()
        process.terminate()
        try:
            return process.wait(START_SECONDS)
        finally:
            self.kill()

    def worker_pids(self) -> list[int]:
        """The worker processes that live now."""
        with suppress(psutil.NoSuchProcess):
            return [
                child.pid for child in psutil.Process(self._running().pid).children() if _is_worker(child)
            ]
        return []

    def kill_worker(self, pid: int) -> datetime:
        """SIGKILL for a worker; when it was dead."""
        with suppress(psutil.NoSuchProcess):
            worker = psutil.Process(pid)
            worker.kill()
            worker.wait(START_SECONDS)
        return datetime.now(UTC)

    def await_workers(self) -> bool:
        """Waits until there are as many workers as there should be; False where they do not come."""
        until = time.monotonic() + START_SECONDS
        while len(self.worker_pids()) < self.workers:
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("the server was never started")
        return self._process


def _is_worker(process: psutil.Process) -> bool:
    """Whether this child of a server is a worker that lives."""
    try:
        return _WORKER in process.cmdline()
    except psutil.Error:  # gone, or dead and not yet buried
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
