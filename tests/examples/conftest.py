"""The examples as a user runs them: as programs, told where the server is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from examples.with_server import server

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def server_address() -> Iterator[str]:
    """A real server, which knows the module of the examples and one with a hook."""
    modules = (
        ROOT / "examples" / "linear_regression_model.py",
        ROOT / "tests" / "examples" / "hooked_model.py",
    )
    flags = [part for module in modules for part in ("--modules", str(module))]
    with server("--workers", "1", *flags) as address:
        yield address


@pytest.fixture
def examples() -> Path:
    """The folder of the examples."""
    return ROOT / "examples"


@pytest.fixture
def example(server_address: str, examples: Path) -> Callable[[str], str]:
    """Runs a Python example and returns what it prints."""

    def run(name: str) -> str:
        command = [sys.executable, str(examples / name), server_address]
        done = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    return run


def clean_environment() -> dict[str, str]:
    """The environment without a server's address."""
    return {name: value for name, value in os.environ.items() if not name.startswith("EPOCHD_")}
