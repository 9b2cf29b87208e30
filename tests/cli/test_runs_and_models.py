"""`epochd runs` and `epochd models`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest


@pytest.fixture
def run(cli, points: str) -> str:
    """The name of a run that has ended; its model is called kept."""
    done = cli("train", points, "--target", "y", "--epochs", "10", "--seed", "3", "--name", "kept", "--json")
    return done.json_lines[0]["run"]


@pytest.fixture
def endless(cli, wine: str) -> Iterator[str]:
    """The name of a run that goes on until it is cancelled."""
    options = ("--target", "cultivar", "--model", "64,tanh,out", "--epochs", "10000000", "--log-every", "10")
    run = cli("train", wine, *options, "--detach", "--json").json["run"]
    yield run
    cli("runs", "cancel", run)


def test_runs_are_listed_newest_first(cli, run: str):
    listed = cli("runs", "list", "--json").json
    assert listed[0]["name"] == run
    assert listed[0]["state"] == "SUCCEEDED"
    assert (listed[0]["latest_epoch"], listed[0]["epochs"], listed[0]["seed"]) == (9, 10, 3)
    times = [one["create_time"] for one in listed]
    assert times == sorted(times, reverse=True)


def test_runs_are_listed_in_aligned_columns_in_a_pipe(cli, run: str):
    header, first, *_ = cli("runs", "list", "--model", "kept", "--limit", "1").out.splitlines()
    assert header.split() == ["RUN", "STATE", "MODEL", "EPOCHS", "LOSS", "CREATED", "TOOK"]
    assert first.startswith(f"{run.removeprefix('runs/')}  SUCCEEDED  kept")
    assert header.index("STATE") == first.index("SUCCEEDED")


def test_runs_are_listed_by_state_and_model(cli, run: str):
    assert run in [
        one["name"] for one in cli("runs", "list", "--state", "succeeded", "--model", "kept", "--json").json
    ]
    assert cli("runs", "list", "--state", "failed", "--model", "kept", "--json").json == []


def test_more_runs_than_shown_are_mentioned(cli, run: str, points: str):
    cli("train", points, "--target", "y", "--epochs", "1")
    assert "There are more; see them with --limit 10" in cli("runs", "list", "--limit", "1").err


def test_a_run_is_shown_by_its_short_name(cli, run: str):
    done = cli("runs", "show", run.removeprefix("runs/"))
    assert done.code == 0
    assert "mse by sgd, lr 0.01" in done.out
    assert "10/10" in done.out


def test_a_run_is_watched_from_the_first_event_or_after_one(cli, run: str):
    events = cli("runs", "watch", run, "--json").json_lines
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert cli("runs", "watch", run, "--after", "5", "--json").json_lines == events[5:]


def test_cancelling_a_run_that_has_ended_leaves_it(cli, run: str):
    assert cli("runs", "cancel", run, "--json").json == {"run": run, "state": "SUCCEEDED"}


def test_a_running_run_is_cancelled_and_its_watcher_ends_with_1(cli, endless: str):
    run = endless
    assert cli("runs", "cancel", run).code == 0
    watched = cli("runs", "watch", run)
    assert watched.code == 1
    assert watched.out.splitlines()[-1].startswith("Cancelled after")


def test_a_run_is_paused_resumed_and_cancelled_with_its_weights(cli, endless: str):
    assert cli("runs", "pause", endless).code == 0
    assert cli("runs", "resume", endless, "--json").json["state"] in ("RUNNING", "QUEUED")
    assert cli("runs", "cancel", endless, "--keep-weights").code == 0
    watched = cli("runs", "watch", endless)
    assert watched.code == 1
    assert "keeps what it had reached" in watched.out.splitlines()[-1]


def test_ctrl_c_while_watching_leaves_the_run_alone(cli, terminal: Callable, endless: str):
    run = endless
    screen = terminal("runs", "watch", run)
    screen.read_until("10,000,000 epochs")
    screen.press("\x03")
    screen.read_until("goes on; see it again with")
    assert screen.code() == 130
    assert cli("runs", "show", run, "--json").json["state"] == "RUNNING"


def test_a_deleted_run_is_gone_and_its_model_is_not(cli, run: str):
    assert cli("runs", "delete", run).code == 0
    gone = cli("runs", "show", run)
    assert gone.code == 1
    assert run in gone.err
    assert cli("models", "show", "kept").code == 0


def test_models_are_listed_with_their_newest_version_and_aliases(cli, run: str):
    cli("models", "alias", "kept", "champion")
    kept = next(model for model in cli("models", "list", "--json").json if model["name"] == "models/kept")
    assert kept["aliases"] == {"champion": kept["latest_version"]}
    line = next(line for line in cli("models", "list").out.splitlines() if line.startswith("kept"))
    assert "@champion=" in line


def test_a_model_is_shown_with_its_parameters_if_they_are_few(cli, run: str):
    shown = cli("models", "show", "kept", "--json").json
    assert shown["run"] == run
    assert shown["model"] == "Linear(1, 1)"
    assert np.shape(shown["parameters"]["linear.weight"]) == (1, 1)
    assert "linear.bias" in cli("models", "show", "kept").out


def test_the_versions_of_a_model_are_listed(cli, run: str):
    versions = cli("models", "versions", "kept", "--json").json
    assert [one["version"] for one in versions] == list(range(len(versions), 0, -1))


def test_an_alias_is_moved_and_deleted(cli, run: str):
    cli("models", "alias", "kept/versions/1", "first")
    assert cli("models", "show", "kept@first", "--json").json["version"] == 1
    assert cli("models", "alias", "kept", "first", "--delete").code == 0
    assert cli("models", "show", "kept@first").code == 1


def test_a_version_and_a_model_are_deleted(cli, points: str):
    for _ in range(2):
        cli("train", points, "--target", "y", "--epochs", "1", "--name", "short-lived")
    assert cli("models", "delete", "short-lived/versions/1").code == 0
    assert [one["version"] for one in cli("models", "versions", "short-lived", "--json").json] == [2]
    assert cli("models", "delete", "short-lived").code == 0
    assert cli("models", "show", "short-lived").code == 1


def test_a_table_on_a_terminal_has_colours(terminal: Callable, run: str):
    screen = terminal("runs", "list")
    screen.read_all()
    assert "\x1b[32mSUCCEEDED" in screen.raw
