"""The worker process: started by :mod:`.process`, trains cohorts until the server is gone.

main thread       takes cohorts from a queue and trains them
listening thread  reads the socket: cohorts go to the queue, requests to stop to a set; ends the process at EOF
sending thread    bundles reports and writes them to the socket
"""

from __future__ import annotations

import ctypes
import logging
import os
import queue
import signal
import socket
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from epochd_server.executor import frames
from epochd_server.executor.outbox import Outbox
from epochd_server.executor.stops import StopRequests
from epochd_server.executor.wire import Ready, StartFailed, StopRuns, TrainFleet, Work, WorkerConfig

if TYPE_CHECKING:
    from epochd_server.executor.fleet_training import FleetWorker
    from epochd_server.executor.training import CohortWorker

_PR_SET_PDEATHSIG = 1
_OOM_SCORE_ADJUSTMENT = "500"

_IDLE_SECONDS = 1.0
"""After so long, rows that were kept for a fleet's next part are let go."""

Inbox = queue.SimpleQueue[Work]


def main(descriptor: int) -> None:
    """Serves the server at the other end of a socket, and ends with it.

    Args:
        descriptor: The socket's file descriptor.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the server decides when a worker ends
    connection = socket.socket(fileno=descriptor)
    config: WorkerConfig = frames.receive(connection)
    _settle_in(config)
    inbox, stops = Inbox(), StopRequests()
    threading.Thread(target=_listen, args=(connection, inbox, stops), name="inbox", daemon=True).start()
    try:
        cohorts, fleets = _warm_workers(config, connection, stops)
    except Exception as error:
        frames.send(connection, StartFailed(problem=f"{type(error).__name__}: {error}"))
        return
    while True:
        try:
            work = inbox.get(timeout=_IDLE_SECONDS)
        except queue.Empty:
            fleets.forget()
            work = inbox.get()
        if isinstance(work, TrainFleet):
            fleets.train(work)
        else:
            cohorts.train(work)


def _listen(connection: socket.socket, inbox: Inbox, stops: StopRequests) -> None:
    try:
        while True:
            message = frames.receive(connection)
            if isinstance(message, StopRuns):
                stops.add(message.run_ids)
            else:
                inbox.put(message)
    except (EOFError, OSError):
        _leave()
    except BaseException:  # no memory for what was sent, above all: nothing would be heard here any more
        traceback.print_exc()
        _leave(1)


def _leave(code: int = 0) -> None:
    """Ends the process whatever its other threads do: there is nobody left to train for."""
    os._exit(code)


def _settle_in(config: WorkerConfig) -> None:
    """Comes after serving at the processor, goes before the server when memory runs out, and ends with it."""
    os.nice(config.nice)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE_ADJUSTMENT, encoding="ascii")
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != config.server_pid:
        _leave()


def _warm_workers(
    config: WorkerConfig, connection: socket.socket, stops: StopRequests
) -> tuple[CohortWorker, FleetWorker]:
    """Imports PyTorch and the engine, has them load all that a first training would wait for, and says so."""
    import torch

    from epochd_server.engine.modules import ModuleRegistry
    from epochd_server.executor.fleet_training import FleetWorker
    from epochd_server.executor.log_records import RecordForwarder
    from epochd_server.executor.training import CohortWorker
    from epochd_server.executor.warming import warm_up_side_by_side

    torch.set_num_threads(1)
    modules = ModuleRegistry.load(config.modules)
    warm_up_side_by_side()
    frames.send(connection, Ready())
    outbox = Outbox(connection, lost=_leave)
    records = RecordForwarder(outbox)
    logging.getLogger().addHandler(records)
    return CohortWorker(outbox, stops, modules, records), FleetWorker(outbox, stops, modules, records)


if __name__ == "__main__":
    main(int(sys.argv[1]))
