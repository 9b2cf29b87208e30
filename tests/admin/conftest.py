"""A server's state with something of everything in it, and the command on copies of it."""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import Server

import epochd
from epochd_server.admin import admin as run_admin

WIDE = 70_000
"""Features whose weights are too large for the database."""


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Admin = Callable[..., Result]


def fill(address: str) -> None:
    """A dataset with its description, a run on it, a large version, and a fleet whose members are an artifact."""
    rng = np.random.default_rng(0)
    keys = np.arange(20_000) % 5_000
    with epochd.connect(address) as client:
        table = {"x": rng.normal(size=300), "y": rng.normal(size=300)}
        dataset = client.upload(table)
        dataset.describe()
        sgd = epochd.SGD(lr=0.01)
        client.train(
            dataset, target="y", model=epochd.Linear(), optimizer=sgd, epochs=3, name="small"
        ).result()
        wide = rng.normal(size=(4, WIDE)).astype("float32")
        client.train(
            wide, wide[:, :1], model=epochd.Linear(), optimizer=epochd.SGD(lr=1e-6), epochs=2, name="wide"
        ).result()
        fleet = {"key": [f"a-long-key-of-a-member-{key:060}" for key in keys], "x": rng.normal(size=20_000)}
        fleet["y"] = fleet["x"] * 2
        client.train(
            fleet, target="y", group_by="key", model=epochd.Linear(), fit=epochd.LeastSquares(), name="fleet"
        ).result()


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a server that has ended. Leave it as it is."""
    folder = tmp_path_factory.mktemp("filled")
    server = Server(folder / "data", folder / "log", ())
    try:
        fill(server.address)
    finally:
        assert server.stop() == 0
    return folder / "data"


@pytest.fixture
def data_dir(filled: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(filled, tmp_path / "data"))


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> Admin:
    """Runs what `epochd admin …` runs, in this process: starting one takes longer than most of its work."""
    for name in [name for name in os.environ if name.startswith("EPOCHD_")]:
        monkeypatch.delenv(name)

    def run(*arguments: object) -> Result:
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            code = run_admin([str(argument) for argument in arguments])
        return Result(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def command_line() -> Admin:
    """Runs `epochd …` as a process."""

    def run(*arguments: object) -> Result:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EPOCHD_")}
        command = [sys.executable, "-m", "epochd.cli", *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, env=environment, check=False
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def sql(data_dir: Path) -> Iterator[Callable[..., list[Any]]]:
    """Runs statements on the copy's database."""
    with closing(sqlite3.connect(data_dir / "epochd.db", isolation_level=None)) as connection:
        yield lambda statement, *values: connection.execute(statement, values).fetchall()


def only(data_dir: Path, pattern: str) -> Path:
    """The one artifact whose path matches."""
    [path] = (data_dir / "artifacts").glob(pattern)
    return path
