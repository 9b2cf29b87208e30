"""Real servers, as processes of their own, on free ports."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from hypothesis import settings

# Machines are slow and noisy, so no example has a deadline; in CI the examples are the same every time.
settings.register_profile("epochd", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("epochd")

START_SECONDS = 60


class Server:
    """A running ``python -m epochd_server``.

    Attributes:
        address: HOST:PORT.
        data_dir: Its data folder.
        process: The process.
    """

    def __init__(
        self, data_dir: Path, log: Path, flags: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self.data_dir = data_dir
        self._log = log
        command = [sys.executable, "-m", "epochd_server", "--listen", "127.0.0.1:0"]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("EPOCHD_")}
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [*command, "--data-dir", str(data_dir), "--workers", "1", *flags],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**inherited, **(environment or {})},
            )
        line = self.process.stdout.readline()
        if not line.startswith("epochd listening on "):
            self.process.wait(START_SECONDS)
            pytest.fail(f"the server did not start: {self.log()}")
        self.address = line.split()[-1]

    def log(self) -> str:
        """What it wrote to standard error so far."""
        return self._log.read_text()

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Sends a signal."""
        self.process.send_signal(number)

    def stop(self, seconds: float = 30) -> int:
        """Stops it gracefully and returns its exit code."""
        if self.process.poll() is None:
            self.signal()
        try:
            return self.process.wait(seconds)
        finally:
            self.kill()

    def kill(self) -> None:
        """Ends it at once, as a crash would."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def wait_for_log(self, text: str, seconds: float = 30) -> None:
        """Waits until a text is in its log."""
        until = time.monotonic() + seconds
        while text not in self.log():
            if time.monotonic() > until:
                pytest.fail(f"{text!r} was never logged: {self.log()}")
            time.sleep(0.02)


StartServer = Callable[..., Server]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that all tests share: one worker, a fresh data folder. Leave it running."""
    folder = tmp_path_factory.mktemp("server")
    started = Server(folder / "data", folder / "log", ())
    yield started
    started.stop()


@pytest.fixture(scope="session")
def server_type() -> type[Server]:
    """For servers that the tests of a file share."""
    return Server


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers of a test's own: ``start_server("--grace", "1", data_dir=...)``."""
    started: list[Server] = []

    def start(
        *flags: str, data_dir: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> Server:
        log = tmp_path / f"server-{len(started)}.log"
        started.append(Server(data_dir or tmp_path / "data", log, flags, environment))
        return started[-1]

    yield start
    for one in started:
        one.kill()


class BucketServer:
    """A running S3 server.

    Attributes:
        environment: What makes a process find it.
    """

    def __init__(self) -> None:
        self._port = 0
        self._buckets = 0
        self.start()
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
        }

    def start(self) -> None:
        """Starts it, with nothing in it; again at the same address."""
        script = Path(__file__).with_name("s3_server.py")
        command = [sys.executable, str(script), str(self._port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._port = int(self._process.stdout.readline().rpartition(":")[2])

    def stop(self) -> None:
        """Ends it at once; everything in it is lost."""
        self._process.kill()
        self._process.communicate()

    def make_bucket(self, name: str = "") -> str:
        """Makes a bucket, of a new name unless one is given; returns it."""
        self._buckets += 1
        name = name or f"bucket-{self._buckets}"
        url = f"{self.environment['AWS_ENDPOINT_URL']}/{name}"
        with urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=10):
            return name


@pytest.fixture(scope="session")
def bucket_server() -> Iterator[BucketServer]:
    """An S3 server that all tests share. Leave it running."""
    server = BucketServer()
    yield server
    server.stop()


@pytest.fixture
def own_bucket_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketServer]:
    """An S3 server of a test's own, which this process and those that it starts can use."""
    server = BucketServer()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield server
    server.stop()


@pytest.fixture
def bucket(bucket_server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty part of a bucket, which this process and those that it starts can use."""
    for name, value in bucket_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{bucket_server.make_bucket()}/some/prefix"


@pytest_asyncio.fixture
async def channel(server: Server) -> grpc.aio.Channel:
    """A channel to the shared server."""
    async with grpc.aio.insecure_channel(server.address) as opened:
        yield opened


class Postgres:
    """A running PostgreSQL server.

    Attributes:
        url: Of its first database.
    """

    def __init__(self, folder: Path) -> None:
        script = Path(__file__).with_name("postgres_server.py")
        command = [sys.executable, str(script), str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self._answer()

    def new_database(self, name: str) -> str:
        """The address of another, empty database."""
        return self._do(f"database {name}")

    def stop(self) -> None:
        """Ends the server as a crash would."""
        self._do("stop")

    def kill(self) -> None:
        """Ends it by SIGKILL; returns when its own processes have noticed."""
        self._do("kill")

    def start(self) -> None:
        """Starts it again at the same address."""
        self._do("start")

    def close(self) -> None:
        """Ends the server and deletes its data."""
        self._process.communicate()

    def _do(self, command: str) -> str:
        print(command, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> str:
        answer = self._process.stdout.readline().strip()
        if not answer:
            pytest.fail("the PostgreSQL server's process ended")
        return answer


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for all tests of this process."""
    folder = Path(tempfile.mkdtemp(prefix="epochd-postgres-"))
    server = Postgres(folder)
    try:
        yield server
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)
