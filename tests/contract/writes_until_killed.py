"""Run as a process: writes runs at full speed and says of each what is acknowledged, until it is killed."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from epochd_server.domain.runs import EpochLog, RunState
from epochd_server.storage import Storage, open_storage


def load_makers() -> ModuleType:
    """The contract's conftest, which is no package."""
    spec = importlib.util.spec_from_file_location("makers", Path(__file__).with_name("conftest.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["makers"] = module
    spec.loader.exec_module(module)
    return module


def say(run_id: str, what: str) -> None:
    """One line of one write: never torn by the kill."""
    sys.stdout.write(f"{run_id} {what}\n")
    sys.stdout.flush()


async def write_runs(storage: Storage, make) -> None:
    """Accepts, logs and finishes one run after the other."""
    while True:
        run = make.run()
        run = replace(run, asked=make.asked(run.run_id))
        await storage.runs.accept(run, make.queued(run))
        say(run.run_id, "1")
        for sequence in itertools.count(2):
            events = [make.event(sequence, EpochLog(epoch=sequence, loss=0.5, lr=0.01))]
            await make.append(storage.runs, run.run_id, events, state=RunState.RUNNING)
            say(run.run_id, str(sequence))
            if sequence == 5:
                break
        await make.succeed(storage.runs, run.run_id, 6, run.create_time, make.trained(run.run_id), 1.0)
        say(run.run_id, "succeeded")


async def main(folder: str, url: str) -> None:
    """Twenty writers at once."""
    makers = load_makers()
    storage = open_storage(Path(folder), convert=makers.convert, most_dataset_bytes=1, database_url=url)
    make = makers.Maker()
    await asyncio.gather(*(write_runs(storage, make) for _ in range(20)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
