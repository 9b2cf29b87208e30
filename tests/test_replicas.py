"""Several servers, as processes, on one PostgreSQL: killed, paused, stopped and started at once."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine, text

import epochd
from epochd_server.storage.engines import parse_url

pytestmark = pytest.mark.alone

LEASE = 2.0
EPOCHS = 2_500
"""Some seconds of training."""
SOON = 1.5
"""Seconds in which one server hears of what another does, on a busy machine."""

_numbers = itertools.count()


@pytest.fixture
def database_url(postgres) -> str:
    """An empty database of this test's own."""
    return postgres.new_database(f"replicas_{next(_numbers)}")


@pytest.fixture
def start_replica(start_server, database_url, tmp_path) -> Callable[..., object]:
    """Starts servers on one database, each with a data folder of its own unless one is given."""

    def start(*flags: str, folder: str | None = None, lease: float = LEASE):
        data_dir = tmp_path / (folder or f"data-{next(_numbers)}")
        shared = ("--database-url", database_url, "--artifacts", str(tmp_path / "artifacts"))
        return start_server(*shared, "--lease", str(lease), *flags, data_dir=data_dir)

    return start


@pytest.fixture(scope="module")
def pair(postgres, server_type, tmp_path_factory) -> Iterator[list]:
    """Two servers that the tests of this file share. Leave them running."""
    url, folder = postgres.new_database("pair"), tmp_path_factory.mktemp("pair")
    flags = ("--database-url", url, "--artifacts", str(folder / "artifacts"))
    started = [server_type(folder / name, folder / f"{name}.log", flags) for name in ("a", "b")]
    yield started
    for server in started:
        server.stop()


@pytest.fixture
def connect() -> Iterator[Callable[..., epochd.Client]]:
    """Connects to servers, by any of their addresses."""
    clients = []

    def connect(*servers) -> epochd.Client:
        address = "ipv4:" + ",".join(server.address for server in servers)
        clients.append(epochd.connect(address, timeout=epochd.Timeout(call=20.0)))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def train(client: epochd.Client, epochs: int = EPOCHS, **changed):
    """Mini-batches of 8 by Adam: a thousand epochs take about a second."""
    x = np.random.default_rng(0).normal(size=(4_000, 8)).astype(np.float32)
    arguments = {
        "model": epochd.Linear(),
        "loss": "mse",
        "optimizer": epochd.Adam(),
        "batch_size": 8,
        "log_every": 20,
        "seed": 1,
    }
    return client.train(x, x.sum(axis=1), epochs=epochs, **(arguments | changed))


class Watcher(threading.Thread):
    """Collects a run's events to its end."""

    def __init__(self, run: epochd.Run) -> None:
        super().__init__(daemon=True)
        self._run = run
        self.events: list = []
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            for event in self._run.events():
                self.events.append(event)
        except Exception as error:
            self.error = error

    def until(self, logs: int) -> None:
        """Returns once so many epochs were seen."""
        until = time.monotonic() + 60
        while len(epochs_of(self.events)) < logs:
            assert time.monotonic() < until
            assert self.error is None
            time.sleep(0.01)

    def finish(self) -> list:
        self.join(60)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self.events


def epochs_of(events) -> list[int]:
    return [event.epoch for event in events if isinstance(event, epochd.EpochLog)]


def losses_of(events) -> list[float]:
    return [event.loss for event in events if isinstance(event, epochd.EpochLog)]


def assert_whole(events) -> None:
    """One gapless, repeat-free sequence to the success."""
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert epochs_of(events) == list(range(0, EPOCHS, 20))
    assert isinstance(events[-1], epochd.events.Succeeded)


def bits(client: epochd.Client, run: epochd.Run) -> dict[str, bytes]:
    model = client.run(run.name).result()
    return {name: np.asarray(array).tobytes() for name, array in model.parameters().items()}


def test_the_runs_of_a_killed_server_end_on_another_in_the_same_bits(start_replica, connect):
    one, other = start_replica(), start_replica()
    here, there = connect(one), connect(other)
    run = train(here)
    watcher = Watcher(there.run(run.name))
    watcher.until(20)
    one.kill()
    killed = time.monotonic()
    events = watcher.finish()
    assert_whole(events)
    [warning] = [event for event in events if isinstance(event, epochd.events.Warning)]
    assert "another one has it now" in warning.message
    control = train(there)
    control_events = Watcher(control).finish()
    assert losses_of(events) == losses_of(control_events)
    assert bits(there, run) == bits(there, control)
    assert time.monotonic() - killed < 90


def test_a_server_that_was_paused_beyond_its_lease_writes_nothing_more(start_replica, connect):
    one, other = start_replica(), start_replica()
    here, there = connect(one), connect(other)
    run = train(here, name="paused")
    attached, remote = Watcher(here.run(run.name)), Watcher(there.run(run.name))
    attached.until(20)
    one.signal(signal.SIGSTOP)
    try:
        other.wait_for_log("going on with runs that no server had")
        remote.until(len(epochs_of(remote.events)) + 5)
    finally:
        one.signal(signal.SIGCONT)
    events = remote.finish()
    assert_whole(events)
    assert_whole(attached.finish())
    one.wait_for_log("was taken over by another server")
    assert [event.sequence for event in here.run(run.name).events()] == [e.sequence for e in events]
    assert [version.version for version in here.versions("paused")] == [1]
    control = train(here)
    assert bits(here, run) == bits(here, control)


def test_a_client_that_knows_both_addresses_notices_no_kill(start_replica, connect):
    one, other = start_replica(folder="shared"), start_replica(folder="shared")
    client = connect(one, other)
    run = train(client)
    watcher = Watcher(run)
    watcher.until(20)
    one.kill()
    assert_whole(watcher.finish())


def test_servers_of_one_folder_need_not_wait_for_the_lease(start_replica, connect):
    """The kernel says at once that the other process is gone."""
    one, other = start_replica(folder="shared", lease=600), start_replica(folder="shared", lease=600)
    run = train(connect(one))
    watcher = Watcher(connect(other).run(run.name))
    watcher.until(20)
    one.kill()
    assert_whole(watcher.finish())


def test_a_server_that_stops_leaves_its_runs_to_the_others_at_once(start_replica, connect):
    one, other = start_replica("--grace", "0.1", lease=600), start_replica(lease=600)
    run = train(connect(one))
    watcher = Watcher(connect(other).run(run.name))
    watcher.until(20)
    assert one.stop() == 0
    assert_whole(watcher.finish())


def test_any_server_cancels_a_run_within_a_second(pair, connect):
    here, there = map(connect, pair)
    running, waiting = train(here, epochs=10_000_000), train(here, epochs=10_000_000, batch_size=16)
    Watcher(there.run(running.name)).until(3)
    assert there.run(waiting.name).state == "QUEUED"
    assert there.run(waiting.name).cancel() == "CANCELLED"
    began = time.monotonic()
    there.run(running.name).cancel()
    assert there.run(running.name).wait(10) == "CANCELLED"
    assert time.monotonic() - began < SOON
    assert here.run(running.name).state == "CANCELLED"


def test_a_cancelled_run_stays_cancelled_when_its_server_dies_before_it_hears_of_it(start_replica, connect):
    one, other = start_replica(), start_replica()
    run = train(connect(one), epochs=10_000_000)
    there = connect(other)
    Watcher(there.run(run.name)).until(3)
    one.signal(signal.SIGSTOP)
    there.run(run.name).cancel()
    one.kill()
    assert there.run(run.name).wait(30) == "CANCELLED"


def test_an_alias_that_one_server_moves_is_moved_on_the_others(pair, connect):
    here, there = map(connect, pair)
    x = np.arange(4.0)[:, None]
    fit = {"model": epochd.Linear(), "fit": epochd.LeastSquares(), "name": "m"}
    models = [here.train(x, slope * x, **fit).result() for slope in (1.0, 2.0)]
    for version in (1, 2, 1, 2):
        models[version - 1].set_alias("best")
        until = time.monotonic() + SOON
        while round(float(there.model("m@best").predict([[1.0]])[0])) != version:
            assert time.monotonic() < until
            time.sleep(0.01)


def test_an_idle_server_trains_its_share_of_what_waits_on_another(pair, connect):
    here, there = map(connect, pair)
    runs = [train(here, epochs=1_500, batch_size=8 + n) for n in range(5)]
    for run in runs:
        assert there.run(run.name).wait(90) == "SUCCEEDED"
    pair[0].wait_for_log("gave runs to an idle server")


def test_four_servers_that_start_at_once_on_an_empty_database_make_one_schema(database_url, tmp_path):
    def start(number: int) -> subprocess.Popen[str]:
        flags = ["--data-dir", str(tmp_path / f"data-{number}"), "--workers", "1"]
        flags += ["--artifacts", str(tmp_path / "artifacts")]
        command = [sys.executable, "-m", "epochd_server", "--listen", "127.0.0.1:0", *flags]
        with (tmp_path / f"log-{number}").open("wb") as log:
            return subprocess.Popen(
                [*command, "--database-url", database_url], stdout=subprocess.PIPE, stderr=log, text=True
            )

    processes = [start(number) for number in range(4)]
    try:
        with ThreadPoolExecutor(4) as pool:
            lines = list(pool.map(lambda process: process.stdout.readline(), processes))
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert all(line.startswith("epochd listening on ") for line in lines), said(tmp_path)
    engine = create_engine(parse_url(database_url))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM alembic_version")) == 1
        assert connection.scalar(text("SELECT count(*) FROM servers")) == 4
        mark = connection.scalar(text("SELECT mark FROM artifact_stores"))
    engine.dispose()
    assert [path.name for path in (tmp_path / "artifacts" / "marks").iterdir()] == [mark]


def test_a_server_with_other_artifacts_than_those_of_its_database_does_not_start(pair, tmp_path):
    """The flags of the first server, without its artifacts."""
    url = pair[0].process.args[pair[0].process.args.index("--database-url") + 1]
    line = refusal_to_start(url, tmp_path / "new")
    assert str(tmp_path / "new" / "artifacts") in line
    assert str(pair[0].data_dir.parent / "artifacts") in line
    assert "epochd admin adopt" in line


def test_a_server_does_not_start_on_the_database_of_a_newer_one(start_replica, database_url, tmp_path):
    start_replica().kill()
    engine = create_engine(parse_url(database_url))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    line = refusal_to_start(database_url, tmp_path / "new")
    assert "schema 9999 of a newer epochd" in line


def refusal_to_start(database_url: str, data_dir: Path) -> str:
    """The one line by which a server says why it does not start."""
    command = [sys.executable, "-m", "epochd_server", "--listen", "127.0.0.1:0"]
    refused = subprocess.run(
        [*command, "--database-url", database_url, "--data-dir", str(data_dir)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (refused.returncode, refused.stdout) == (1, "")
    [line] = refused.stderr.splitlines()
    return line


def said(folder: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(folder.glob("log-*")))
