"""The program itself: help, versions, health, and what is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = [
    (), ("train",), ("predict",), ("activation",), ("diff",), ("health",), ("version",), ("runs",), ("models",),
    ("runs", "list"), ("runs", "watch"), ("models", "alias"),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(offline_cli, command: tuple[str, ...]):
    done = offline_cli(*command, "--help")
    assert done.code == 0
    assert "Usage: " + " ".join(["epochd", *command]) in done.out


@pytest.mark.parametrize("command", ["train", "predict", "activation", "diff", "health"])
def test_help_teaches_by_examples_that_fit_on_a_line(offline_cli, command: str):
    assert f"\n  epochd {command} " in offline_cli(command, "--help").out


def test_the_version_is_the_packages(offline_cli):
    import epochd

    assert offline_cli("--version").out == f"epochd {epochd.__version__}\n"
    assert offline_cli("version", "--json").json["epochd"] == epochd.__version__


def test_health_is_0_only_when_the_server_serves(cli, offline_cli):
    assert (cli("health").code, cli("health").out) == (0, "SERVING\n")
    assert cli("health", "epochd.v1.Trainer").code == 0
    assert (offline_cli("health").code, offline_cli("health").out) == (1, "UNREACHABLE\n")


def test_health_of_a_service_that_is_not_there_is_1(cli):
    done = cli("health", "no.such.Service", "--json")
    assert done.code == 1
    assert done.json["state"] == "SERVICE_UNKNOWN"


def test_a_reader_that_has_seen_enough_is_no_error_message(environment: dict[str, str], command: list[str]):
    line = " ".join([*command, "activation", "relu"]) + " | head -n 1"
    numbers = " ".join(map(str, range(50_000)))
    done = subprocess.run(
        ["bash", "-c", line], input=numbers, capture_output=True, text=True, env=environment
    )
    assert done.stdout == "0.0\n"
    assert done.stderr == ""


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_its_libraries_it_says_what_to_install(missing: str):
    code = f"import sys; sys.modules[{missing!r}] = None; from epochd.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("pip install 'epochd[cli]'")
    assert len(done.stderr.splitlines()) == 1


def test_serve_without_the_server_says_what_to_install():
    code = (
        "import sys; from importlib import metadata; metadata.entry_points = lambda **_: ();"
        "from epochd.cli.app import run; sys.exit(run(['serve']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'epochd[server]'" in done.stderr


def test_serve_shows_the_servers_own_help(offline_cli):
    done = offline_cli("serve", "--help")
    assert done.code == 0
    assert "--data-dir" in done.out


def test_the_program_is_a_process_with_that_exit_code_and_output(
    environment: dict[str, str], command: list[str]
):
    for program in (command, [str(Path(sys.executable).with_name("epochd"))]):
        done = subprocess.run(
            [*program, "diff", "2*w**2+5", "w=2"], capture_output=True, text=True, env=environment
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.split() == ["value", "13.0", "d/dw", "8.0"]
        assert subprocess.run([*program, "nope"], capture_output=True, env=environment).returncode == 2
