"""README.md: its code runs, and its commands print what it says."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from examples.with_server import server

import epochd

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
VARIABLE = (
    (r"\b01[0-9A-Z]{24}\b", "RUN"),
    (r"\S+ rows/s", "SPEED"),
    (r"\b\d[\d.]* (s|min|h)\b( \d+ (s|min))?( ago)?", "TIME"),
    (r" +", " "),
)
"""What differs from run to run: names, speeds, times, and the width of columns that hold them."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def constant(text: str) -> list[str]:
    """Lines without what differs from run to run."""
    for pattern, name in VARIABLE:
        text = re.sub(pattern, name, text)
    return [line.rstrip() for line in text.strip().splitlines()]


def sessions() -> Iterator[tuple[str, str]]:
    """The commands of the tour and what they print."""
    (tour,) = (block for block in blocks("console") if "epochd train" in block)
    for part in tour.replace(" \\\n", " ").split("$ ")[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


@pytest.fixture(scope="module")
def fresh_server() -> Iterator[str]:
    """A server on which no model has a version."""
    with server("--workers", "1") as address:
        yield address


def test_the_quickstart_has_ten_lines_runs_and_prints_what_it_says(fresh_server: str):
    code = blocks("python")[0]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code.replace("127.0.0.1:50051", fresh_server), {})
    assert len(code.strip().splitlines()) <= 11
    assert constant(printed.getvalue()) == constant(blocks("text")[0])


def test_the_tour_prints_what_it_says(fresh_server: str, tmp_path: Path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    environment = {**os.environ, "EPOCHD_SERVER": fresh_server}
    for command, expected in sessions():
        program, *arguments = shlex.split(command)
        assert program == "epochd"
        done = subprocess.run(
            [sys.executable, "-m", "epochd.cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            cwd=tmp_path,
            timeout=120,
        )
        assert constant(done.stdout) == constant(expected), command


def test_every_link_leads_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)", README) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_raw_table_of_the_readme_trains_and_predicts(fresh_server: str):
    ages = [row % 50 for row in range(200)]
    rows = {
        "age": [None if age == 7 else float(age) for age in ages],
        "city": [("Oslo", "Rome", None)[row % 3] for row in range(200)],
        "price": [2.0 * age + row % 3 for row, age in enumerate(ages)],
    }
    printed = io.StringIO()
    with epochd.connect(fresh_server) as client, contextlib.redirect_stdout(printed):
        exec(blocks("python")[1], {"epochd": epochd, "client": client, "df": rows})
    assert "city=Rome" in printed.getvalue()
    assert "std error" in printed.getvalue()


def test_the_fleet_of_the_readme_runs(fresh_server: str):
    rows = {"store": [f"store-{row % 20}" for row in range(200)], "size": [row / 100 for row in range(200)]}
    rows["sales"] = [2 * size + 1 for size in rows["size"]]
    with epochd.connect(fresh_server) as client:
        names: dict[str, object] = {"epochd": epochd, "client": client, "df": rows}
        exec(blocks("python")[2], names)
    assert len(names["fleet"]) == 20
