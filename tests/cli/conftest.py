"""The command line as a user has it: a process, in a pipe or on a terminal, against a real server."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from examples.with_server import server

from epochd.cli.app import run

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "epochd.cli"]
WINE = str(ROOT / "examples" / "data" / "wine.csv")
PATIENCE = 60.0


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Terminal:
    """A command on a terminal of 100 columns."""

    def __init__(self, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        environment = {**environment, "TERM": "xterm-256color", "COLUMNS": "100"}
        self._process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            cwd=ROOT,
            preexec_fn=_own_terminal,
        )
        os.close(slave)
        self.raw = ""

    @property
    def text(self) -> str:
        """What was written, without colours and cursor movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.raw)

    def read_until(self, wanted: str) -> str:
        """Reads until the text appears on the screen."""
        deadline = time.monotonic() + PATIENCE
        while wanted not in self.text:
            assert time.monotonic() < deadline, f"{wanted!r} did not appear: {self.text[-400:]}"
            assert self._read(), f"ended without {wanted!r}: {self.text[-400:]}"
        return self.text

    def read_all(self) -> str:
        """Reads until the command ends."""
        while self._read():
            pass
        return self.text

    def press(self, keys: str) -> None:
        """Types."""
        os.write(self._master, keys.encode())

    def code(self) -> int:
        """The exit code, once it has ended."""
        self.read_all()
        return self._process.wait(PATIENCE)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._master)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], PATIENCE)
        assert ready, f"silent after {self.text[-400:]}"
        with suppress(OSError):  # a terminal whose last process has ended
            data = os.read(self._master, 65536)
            self.raw += data.decode(errors="replace")
            return bool(data)
        return False


def _own_terminal() -> None:
    """Makes the terminal that of the process, so that Ctrl-C reaches it."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


Cli = Callable[..., Result]


@pytest.fixture(scope="session")
def server_address() -> Iterator[str]:
    """A real server, which knows the examples' module."""
    with server(
        "--workers", "1", "--modules", str(ROOT / "examples" / "linear_regression_model.py")
    ) as address:
        yield address


@pytest.fixture
def environment(server_address: str) -> dict[str, str]:
    return {**os.environ, "EPOCHD_SERVER": server_address, "PYTHONUNBUFFERED": "1"}


def in_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], server: str) -> Cli:
    """Runs commands in this process, as in a pipe: a process of its own each would take half a second more."""
    monkeypatch.chdir(ROOT)

    def run_one(*arguments: str, stdin: str = "") -> Result:
        monkeypatch.setenv("EPOCHD_SERVER", server)
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = run(arguments)
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return run_one


@pytest.fixture
def cli(server_address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command against the server."""
    return in_process(monkeypatch, capsys, server_address)


@pytest.fixture
def offline_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command where no server is."""
    return in_process(monkeypatch, capsys, "127.0.0.1:1")


@pytest.fixture
def terminal(environment: dict[str, str]) -> Iterator[Callable[..., Terminal]]:
    """Runs commands on a terminal."""
    opened: list[Terminal] = []

    def open_one(*arguments: str) -> Terminal:
        opened.append(Terminal(arguments, environment))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture
def points(tmp_path: Path) -> str:
    """A CSV file of three points on y = 2x."""
    path = tmp_path / "points.csv"
    path.write_text("x,y\n1,2\n2,4\n3,6\n")
    return str(path)


@pytest.fixture
def wine() -> str:
    """The CSV file of the examples."""
    return WINE


@pytest.fixture
def command() -> list[str]:
    """How the command line is started."""
    return COMMAND
