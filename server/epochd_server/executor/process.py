"""The server's handle on one worker process."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import suppress
from typing import Any

import structlog

from epochd_server.domain.work import WorkerDied
from epochd_server.executor import frames
from epochd_server.executor.memory import MemoryWatch
from epochd_server.executor.wire import CohortDone, Problem, Ready, Report, StopRuns, Work, WorkerConfig

_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
_READ_AHEAD_BYTES = 2**20
_STANDARD_ERROR = 2
_GIVEN_UP = "was ended because a run that it trained did not stop when it was asked to"

_logger = structlog.get_logger(__name__)


class WorkerStartError(Exception):
    """A worker process cannot start; the message says why, in one line."""


class WorkerProcess:
    """A warm worker process. Made by :meth:`start`; it trains one cohort at a time."""

    def __init__(self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._memory = MemoryWatch(process.pid)
        self._stops: list[str] = []
        self._ready_for_stops = False
        self._given_up = False

    @classmethod
    async def start(cls, modules: Sequence[str], nice: int) -> WorkerProcess:
        """Starts a process and waits until it is warm.

        Raises:
            WorkerStartError: It cannot start.
        """
        ours, theirs = socket.socketpair()
        process: Process | None = None
        try:
            with theirs:
                ours.setblocking(False)
                process = await _spawn(theirs.fileno())
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_READ_AHEAD_BYTES)
        except BaseException:
            ours.close()
            if process is not None:
                process.kill()
                await _uninterrupted(process.wait())
            raise
        worker = cls(process, reader, writer)
        config = WorkerConfig(modules=tuple(modules), nice=nice, server_pid=os.getpid())
        try:
            await worker._await_ready(config)
        except BaseException:
            await worker.kill()
            raise
        return worker

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process can be given work, as far as is known yet."""
        return self._process.returncode is None and not self._reader.at_eof()

    async def train(self, work: Work) -> AsyncGenerator[Sequence[Report], None]:
        """Trains a cohort or a part of a fleet; yields reports, the last of which is CohortDone.

        Raises:
            WorkerDied: The process ended before.
        """
        watching = asyncio.create_task(self._memory.watch())
        try:
            await frames.write(self._writer, work)
            self._ready_for_stops = True
            self._send_stops()
            done = False
            while not done:
                reports = await frames.read(self._reader)
                done = isinstance(reports[-1], CohortDone)
                self._ready_for_stops = not done
                _log_problems(reports, self.pid)
                yield reports
        except (ConnectionError, asyncio.IncompleteReadError):
            evidence = await self._evidence() + self._memory.describe()
            if self._given_up:
                raise WorkerDied(_GIVEN_UP, deaths=0) from None
            raise WorkerDied(evidence) from None
        finally:
            watching.cancel()

    def stop_runs(self, run_ids: Sequence[str]) -> None:
        """Asks that runs of the cohort in training stop."""
        self._stops += run_ids
        if self._ready_for_stops:
            self._send_stops()

    async def exited(self) -> str:
        """Waits for the process's end; how it ended, such as ``was killed by SIGKILL``."""
        return _describe(await self._process.wait())

    def abandon(self) -> None:
        """Has the process end, without waiting for it."""
        if self._process.returncode is None:
            self._process.kill()

    def give_up(self) -> None:
        """Has the process end because what it trains does not stop."""
        self._given_up = True
        self.abandon()

    async def kill(self) -> None:
        """Ends the process at once; a caller that is cancelled meanwhile still leaves nothing behind."""
        self.abandon()
        await _uninterrupted(self._ended())

    async def _ended(self) -> None:
        await self._process.wait()
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()

    async def _await_ready(self, config: WorkerConfig) -> None:
        try:
            await frames.write(self._writer, config)
            answer: Any = await frames.read(self._reader)
        except (ConnectionError, asyncio.IncompleteReadError):
            raise WorkerStartError(f"a worker process {await self._evidence()} while it started") from None
        if not isinstance(answer, Ready):
            raise WorkerStartError(f"a worker process cannot start: {answer.problem}")

    async def _evidence(self) -> str:
        """How the process ended; one that only closed its socket is ended."""
        try:
            return await asyncio.wait_for(self.exited(), timeout=1.0)
        except TimeoutError:
            self._process.kill()
            return "was cut off from the server"

    def _send_stops(self) -> None:
        """Sends what is asked for; a frame so small is never split."""
        run_ids, self._stops = tuple(self._stops), []
        if run_ids and not self._writer.is_closing():
            self._writer.writelines(frames.encode(StopRuns(run_ids)))


async def _spawn(descriptor: int) -> Process:
    """Starts the worker's program with the server's own import path, away from the terminal's Ctrl-C."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "epochd_server.executor.worker",
        str(descriptor),
        stdin=DEVNULL,
        stdout=_STANDARD_ERROR,  # what modules print must not mix with what the server prints
        pass_fds=(descriptor,),
        start_new_session=True,
        env=os.environ | _ONE_THREAD | {"PYTHONPATH": path},
    )


async def _uninterrupted(waiting: Coroutine[Any, Any, object]) -> None:
    """Waits for what is certain to come soon, even where the caller is cancelled before."""
    task = asyncio.ensure_future(waiting)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


def _describe(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _log_problems(reports: Sequence[Report], pid: int) -> None:
    for report in reports:
        if isinstance(report, Problem):
            _logger.error(report.event, runs=report.run_ids, worker=pid, detail=report.detail)
