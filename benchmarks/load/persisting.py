"""Events stored a second, each on the disk before anybody sees it, against a commit an event by the plain driver.

Fifty runs log at once, in pages of twenty: what a worker sends of a run every 20 ms. The same bytes go the plain way
into a table with the same key.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from benchmarks.harness import Row
from epochd_server.codec.pages import EventPage
from epochd_server.domain.records import FIRST_CLAIM, Append, NewRun
from epochd_server.domain.runs import EpochLog, Queued, RunState
from epochd_server.domain.specs import (
    GradientFit,
    Init,
    LinearModel,
    Logging,
    Loss,
    LossKind,
    Optimizer,
    OptimizerKind,
    Precision,
    TrainingSpec,
)
from epochd_server.runs.identifiers import RunIds
from epochd_server.storage import Storage, open_storage

RUNS, PAGES, PAGE, PLAIN = 50, 40, 20, 1_500
_TABLE = "CREATE TABLE plain (run TEXT, sequence BIGINT, event {kind}, PRIMARY KEY (run, sequence))"


def measure() -> list[Row]:
    """One row for each kind of database."""
    with tempfile.TemporaryDirectory() as folder, _postgres(Path(folder) / "postgres") as url:
        ours = asyncio.run(_stored(Path(folder) / "a", None))
        theirs = _plain_sqlite(Path(folder) / "plain.db")
        rows = [_row("SQLite", "sqlite3", ours, theirs)]
        ours = asyncio.run(_stored(Path(folder) / "b", url))
        rows.append(_row("PostgreSQL", "psycopg", ours, _plain_postgres(url)))
    return rows


def _row(database: str, driver: str, ours: float, theirs: float) -> Row:
    return Row(
        work=f"events stored a second with fsync, {database}",
        ours=ours,
        against=f"{driver}, a commit an event",
        theirs=theirs,
        aim="—",
        unit="/s",
    )


async def _stored(folder: Path, url: str | None) -> float:
    """Events a second through the run store."""
    with closing(open_storage(folder, convert=_unused, most_dataset_bytes=1, database_url=url)) as storage:
        await storage.claims.join()
        runs = [_new_run(run_id) for run_id in _ids(RUNS)]
        firsts = [
            EventPage.write(1, [(run.create_time, Queued(run_id=run.run_id, model=run.model))])
            for run in runs
        ]
        await asyncio.gather(
            *(storage.runs.accept(run, first[0]) for run, first in zip(runs, firsts, strict=True))
        )
        began = time.perf_counter()
        await asyncio.gather(*(_log(storage, run.run_id) for run in runs))
        return RUNS * PAGES * PAGE / (time.perf_counter() - began)


async def _log(storage: Storage, run_id: str) -> None:
    """Writes the pages of a run, one after the other."""
    for number in range(PAGES):
        page = _page(number)
        state = None if number else RunState.RUNNING
        (result,) = await storage.runs.record(
            [Append(run_id=run_id, claim=FIRST_CLAIM, events=page, state=state)]
        )
        if isinstance(result, Exception):
            raise result


def _page(number: int) -> EventPage:
    epochs = range(number * PAGE, (number + 1) * PAGE)
    now = datetime.now(UTC)
    return EventPage.write(
        2 + number * PAGE, [(now, EpochLog(epoch=epoch, loss=0.5, lr=0.01)) for epoch in epochs]
    )


def _plain_sqlite(file: Path) -> float:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(_TABLE.format(kind="BLOB"))
        return _plain(lambda *row: connection.execute("INSERT INTO plain VALUES (?, ?, ?)", row))


def _plain_postgres(url: str) -> float:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_TABLE.format(kind="BYTEA"))
        return _plain(lambda *row: connection.execute("INSERT INTO plain VALUES (%s, %s, %s)", row))


def _plain(insert: Callable[..., object]) -> float:
    """Events a second, one after the other."""
    messages: Sequence[bytes] = [
        message for number in range(PLAIN // PAGE) for message in _page(number).messages
    ]
    began = time.perf_counter()
    for sequence, message in enumerate(messages):
        insert("run", sequence, message)
    return len(messages) / (time.perf_counter() - began)


@contextmanager
def _postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL server that commits to the disk, as it does by default; gives its address."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pgserver
    server = pgserver.get_server(folder, cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def _ids(count: int) -> Iterator[str]:
    ids = RunIds()
    return (ids.new() for _ in range(count))


def _new_run(run_id: str) -> NewRun:
    optimizer = Optimizer(kind=OptimizerKind.SGD, lr=0.01)
    return NewRun(
        run_id=run_id,
        model="line",
        spec=TrainingSpec(
            model=LinearModel(in_features=1, out_features=1),
            loss=Loss(kind=LossKind.MSE),
            fit=GradientFit(optimizer=optimizer, epochs=PAGES * PAGE),
            init=Init.DEFAULT,
            precision=Precision.FLOAT32,
            seed=1,
            logging=Logging(every=1),
        ),
        request=b"request",
        request_id=None,
        fingerprint=bytes(32),
        client="benchmark",
        create_time=datetime.now(UTC),
    )


def _unused(*_: object) -> None:
    raise AssertionError("nothing is uploaded here")
