"""A server's life: start, serve, stop gracefully.

Nothing heavy is imported here: the workers are spawned first, and import PyTorch while this process does.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from epochd_server.domain.work import CohortWork, WorkMessage
from epochd_server.executor.local import LocalExecutor
from epochd_server.executor.process import WorkerStartError
from epochd_server.settings import Settings

if TYPE_CHECKING:
    from epochd_server.runs.ports import Executor
    from epochd_server.storage import Storage
    from epochd_server.wiring import Parts

LAST_WORDS_SECONDS: Final = 5.0
"""How long calls may take to send their ends once nothing computes any more; a thousand watches take a second."""

_YOUNG_OBJECTS: Final = 20_000
"""So many new objects are looked through for garbage at once: a thousand runs at a time are more than Python's 700."""

_PATIENCE_SECONDS: Final = 5.0
"""Workers that take longer to be up are compiling, which somebody who waits should know."""

_log = structlog.get_logger()

_UNPACKED: Final = 4
"""How many times larger than its upload a dataset may be in memory: uploads may be compressed."""


class StartError(Exception):
    """A server cannot start.

    Args:
        message: Why, in one line.
    """


class Application:
    """One server.

    Args:
        settings: What it is to be.
        announce: Called with ``HOST:PORT`` once it serves.
    """

    def __init__(self, settings: Settings, announce: Callable[[str], None]) -> None:
        self._settings = settings
        self._announce = announce
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Begins a graceful stop."""
        self._stop.set()

    async def run(self) -> None:
        """Starts, serves until :meth:`stop`, and stops; returns when nothing is left running.

        Raises:
            StartError: It cannot start.
        """
        async with AsyncExitStack() as cleanup:
            starting = asyncio.create_task(self._start(cleanup))
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                with suppress(asyncio.CancelledError):
                    await starting
                return
            parts = starting.result()
            await stopping
            await self._drain(parts)

    async def _start(self, cleanup: AsyncExitStack) -> Parts:
        began = time.perf_counter()
        _check_port(self._settings.listen)
        executor = _EarlyExecutor(self._settings)
        cleanup.push_async_callback(executor.close)
        try:
            parts = await self._build(cleanup, executor)
            await parts.runs.start()
            await asyncio.to_thread(importlib.import_module("epochd_server.wiring").warm_up)
        except WorkerStartError as error:
            raise StartError(str(error)) from error
        address = self._bind(parts)
        await parts.health.starting()
        await parts.server.start()
        cleanup.push_async_callback(parts.server.stop, 0)
        await parts.health.serving()
        gc.freeze()  # a million objects of imports are never garbage; looking through them costs every long call
        gc.set_threshold(_YOUNG_OBJECTS)
        _log.info(
            "serving",
            address=address,
            workers=self._settings.workers,
            start_seconds=round(time.perf_counter() - began, 2),
        )
        self._announce(address)
        return parts

    async def _build(self, cleanup: AsyncExitStack, executor: Executor) -> Parts:
        storage = await asyncio.to_thread(_open_storage, self._settings)
        cleanup.callback(storage.close)
        wiring = await asyncio.to_thread(importlib.import_module, "epochd_server.wiring")
        try:
            modules = await asyncio.to_thread(wiring.load_modules, self._settings)
        except wiring.ModuleSourceError as error:
            raise StartError(str(error)) from error
        parts: Parts = wiring.build(self._settings, storage, modules, executor)
        cleanup.callback(parts.computer.close)
        cleanup.push_async_callback(parts.runs.close)
        return parts

    def _bind(self, parts: Parts) -> str:
        host = self._settings.listen.rpartition(":")[0]
        try:
            port = parts.server.add_insecure_port(self._settings.listen)
        except RuntimeError as error:
            raise StartError(f"cannot listen on {self._settings.listen}") from error
        return f"{host}:{port}"

    async def _drain(self, parts: Parts) -> None:
        """Refuses new work, lets running work finish within the grace, and says goodbye to every watcher."""
        _log.info("stopping", grace_seconds=self._settings.grace)
        parts.guard.stopping = True
        await parts.health.stopping()
        finished = await parts.runs.drain(self._settings.grace)
        await parts.runs.close()
        await parts.server.stop(LAST_WORDS_SECONDS)
        calls = {f"{method} {code}": count for (method, code), count in parts.guard.calls.items()}
        _log.info("stopped", all_work_finished=finished, calls=calls)


def run(settings: Settings) -> None:
    """Runs a server in this process until SIGTERM or SIGINT. A second signal ends the process at once.

    Raises:
        StartError: It cannot start.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_run(settings))
    _leave_hung_threads()


async def _run(settings: Settings) -> None:
    application = Application(settings, _print_address)
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        for other in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(other)
            signal.signal(other, _exit_at_once)
        application.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    await application.run()


def _leave_hung_threads() -> None:
    """Ends the process at once where registered modules still run: one in PyTorch would abort a plain exit."""
    from epochd_server.serving.module_threads import any_thread_is_left

    if any_thread_is_left():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _exit_at_once(number: int, frame: object) -> None:
    os._exit(128 + number)


def _print_address(address: str) -> None:
    print(f"epochd listening on {address}", flush=True)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it is installed."""
    if sys.platform == "win32":
        return None
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


def _open_storage(settings: Settings) -> Storage:
    """Opens the data folder and the database; blocks until done.

    Raises:
        StartError: One of them cannot be used.
    """
    from epochd_server.data.formats import convert_to_arrow
    from epochd_server.storage import StorageUnusableError, open_storage

    try:
        return open_storage(
            settings.data_dir,
            convert=partial(convert_to_arrow, max_bytes=_UNPACKED * settings.max_dataset_bytes),
            most_dataset_bytes=settings.max_dataset_bytes,
            database_url=settings.database_url or None,
            lease_s=settings.lease,
            artifacts_url=settings.artifacts or None,
            cache_bytes=settings.artifact_cache_bytes,
            request_retention_s=settings.request_retention,
        )
    except StorageUnusableError as error:
        raise StartError(str(error)) from error


def _check_port(listen: str) -> None:
    """Finds out early, and in words, what gRPC would say late and vaguely.

    Raises:
        StartError: The address cannot be listened on.
    """
    host, _, port = listen.rpartition(":")
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        raise StartError(f"cannot listen on {listen}: {error.strerror or error}") from error


class _EarlyExecutor:
    """Begins to start a local executor when it is made, so that its workers warm up while this process imports."""

    def __init__(self, settings: Settings) -> None:
        self._executor = LocalExecutor(settings.workers, settings.modules, stop_seconds=settings.cancel_grace)
        self._begun = asyncio.create_task(self._executor.start())

    @property
    def slots(self) -> int:
        """How many cohorts run at once."""
        return self._executor.slots

    async def start(self) -> None:
        """Returns when every worker is up and warm."""
        done, _ = await asyncio.wait({self._begun}, timeout=_PATIENCE_SECONDS)
        if not done:
            _log.info(
                "compiling", detail="training kernels are compiled once for a machine, in about a minute"
            )
        await self._begun

    def run(self, work: CohortWork) -> AsyncGenerator[Sequence[WorkMessage], None]:
        """Trains a cohort."""
        return self._executor.run(work)

    def stop_runs(self, run_ids: Sequence[str]) -> None:
        """Asks that runs stop at their next epoch."""
        self._executor.stop_runs(run_ids)

    async def close(self) -> None:
        """Ends the workers, at once."""
        self._begun.cancel()
        await asyncio.gather(self._begun, return_exceptions=True)
        await self._executor.close()
