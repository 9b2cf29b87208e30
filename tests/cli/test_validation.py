"""Validation at the command line."""

from __future__ import annotations

import pytest

TRAIN = ("--target", "cultivar", "--loss", "cross_entropy", "--optimizer", "adam", "--seed", "1")


def test_logs_and_the_end_tell_of_the_rows_held_out(cli, wine: str):
    done = cli(
        "train", wine, *TRAIN, "--epochs", "20", "--log-every", "10", "--validation", "0.25",
        "--metrics", "accuracy,f1",
    )  # fmt: skip
    lines = done.out.splitlines()
    assert done.code == 0, done.err
    assert "  validation " in lines[2]
    assert "accuracy " in lines[2]
    assert "f1 " in lines[2]
    assert "; validation: 44 rows, loss " in lines[-1]


def test_patience_ends_a_run_early(cli, wine: str):
    done = cli(
        "train", wine, *TRAIN, "--epochs", "5000", "--lr", "0.1", "--validation", "0.25:stratify=true",
        "--patience", "3", "--json",
    )  # fmt: skip
    end = done.json_lines[-1]
    assert end["event"] == "succeeded"
    assert end["epochs"] < 5000
    assert end["evaluation"]["best_epoch"] == end["epochs"] - 4


def test_folds_are_a_sweep_with_a_mean(cli, wine: str):
    done = cli(
        "train", wine, *TRAIN, "--epochs", "5", "--folds", "3", "--sweep", "lr=0.1,0.001",
        "--metrics", "accuracy", "--json",
    )  # fmt: skip
    end = done.json_lines[-1]
    assert end["members"] == 6
    assert end["evaluation"]["best"] in (0.1, 0.001)
    assert end["evaluation"]["loss_deviation"] > 0


def test_members_are_listed_by_their_loss_on_the_rows_held_out(cli, wine: str):
    cli("train", wine, *TRAIN, "--epochs", "5", "--folds", "3", "--name", "folded")
    shown = cli("models", "members", "folded", "--by-loss", "--json").json
    losses = [member["evaluation"]["loss"] for member in shown]
    assert losses == sorted(losses)
    assert "VALIDATION" in cli("models", "members", "folded").out


def test_a_version_shows_how_it_did(cli, wine: str):
    cli("train", wine, *TRAIN, "--epochs", "2", "--validation", "0.25", "--metrics", "f1", "--name", "shown")
    evaluation = cli("models", "show", "shown", "--json").json["evaluation"]
    assert evaluation["rows"] == 44
    assert len(evaluation["confusion"]) == len(evaluation["classes"]) == 3
    assert "held out" in cli("models", "show", "shown").out


def test_a_file_may_hold_the_rows(cli, wine: str):
    done = cli("train", wine, *TRAIN, "--epochs", "1", "--validation", wine, "--json")
    assert done.json_lines[-1]["evaluation"]["rows"] == 178


def test_on_a_terminal_both_curves_are_drawn(terminal, wine: str):
    shown = terminal("train", wine, *TRAIN, "--epochs", "50", "--validation", "0.25").read_all()
    assert "validation loss by epoch" in shown
    assert "held out: 44 rows" in shown


@pytest.mark.parametrize("spec", ["a fifth", "0.2:month=day", "time"])
def test_what_cannot_be_held_out_is_refused(cli, wine: str, spec: str):
    done = cli("train", wine, *TRAIN, "--validation", spec)
    assert done.code == 2
    assert "--validation" in done.err
