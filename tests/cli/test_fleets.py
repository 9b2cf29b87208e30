"""Fleets and sweeps on the command line."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

STORES = "store,size,sales\n" + "".join(
    f"{store},{size},{slope * size}\n" for store, slope in (("north", 2), ("south", 3)) for size in range(4)
)
FIT = ("--target", "sales", "--lr", "0.05", "--epochs", "300", "--seed", "1")


@pytest.fixture
def stores(tmp_path: Path) -> str:
    """Two stores with a slope each, and a third of which a target is missing."""
    path = tmp_path / "stores.csv"
    path.write_text(STORES + "west,1,\nwest,2,3\n")
    return str(path)


@pytest.fixture
def fleet(cli, stores: str) -> str:
    """A fleet by store, of which one member failed."""
    done = cli("train", stores, "--group-by", "store", "--name", "stores", *FIT)
    assert done.code == 0, done.err
    return "stores"


def test_a_column_makes_a_fleet_and_the_run_shows_its_progress(cli, stores: str):
    done = cli("train", stores, "--group-by", "store", "--log-member", "north", *FIT)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert "3 members by store" in lines[1]
    assert any(line.startswith("north  Epoch ") for line in lines)
    assert lines[-2].startswith("3/3 members, 1 failed, loss p50 ")
    assert "with 3 members, 1 of them failed" in lines[-1]


def test_members_are_listed_with_their_reasons(cli, fleet: str):
    lines = cli("models", "members", fleet).out.splitlines()
    assert lines[0].split() == ["STORE", "ROWS", "EPOCHS", "LOSS", "FAILURE"]
    assert [line.split()[0] for line in lines[1:]] == ["north", "south", "west"]
    (west,) = cli("models", "members", fleet, "--failed", "--json").json
    assert west["key"] == {"store": "west"}
    assert west["failure"]["reason"] == "TARGET_NOT_FINITE"


def test_a_short_list_says_how_many_there_are(cli, fleet: str):
    done = cli("models", "members", fleet, "--by-loss", "--limit", "1")
    assert len(done.out.splitlines()) == 2
    assert "… and 2 more" in done.err


def test_rows_are_predicted_by_their_keys(cli, fleet: str):
    rows = "store,size\nsouth,2\nnorth,2\n"
    table = list(csv.reader(io.StringIO(cli("predict", fleet, "-", stdin=rows).out)))
    assert table[0] == ["store", "sales"]
    assert [row[0] for row in table[1:]] == ["south", "north"]
    assert [float(row[1]) for row in table[1:]] == pytest.approx([6, 4], abs=0.1)


def test_unknown_keys_are_an_error_nan_or_another_members(cli, fleet: str):
    rows = "store,size\neast,2\n"
    refused = cli("predict", fleet, "-", stdin=rows)
    assert refused.code == 1
    assert "east" in refused.err
    assert cli("predict", fleet, "-", "--unknown", "nan", stdin=rows).out == "store,sales\neast,nan\n"
    filled = cli("predict", fleet, "-", "--unknown", "south", "--json", stdin=rows).json
    assert filled["sales"] == pytest.approx([6], abs=0.1)


def test_one_member_predicts_rows_without_keys(cli, fleet: str):
    done = cli("predict", fleet, "-", "--member", "south", stdin="size\n2\n")
    assert float(done.out.splitlines()[1]) == pytest.approx(6, abs=0.1)


def test_a_member_becomes_a_model(cli, fleet: str):
    done = cli("models", "promote", fleet, "south", "--to", "flagship", "--json")
    assert done.json == {"model_version": "models/flagship/versions/1"}
    assert float(cli("predict", "flagship", "-", stdin="size\n2\n").out.split()[1]) == pytest.approx(
        6, abs=0.1
    )
    refused = cli("models", "members", "flagship")
    assert refused.code == 2
    assert "is a single model" in refused.err


def test_showing_a_fleet_tells_of_its_members(cli, fleet: str):
    assert "3 members by store, 1 of them failed" in cli("models", "show", fleet).out
    shown = cli("models", "show", fleet, "--json").json
    assert (shown["members"], shown["failed_members"], shown["key_columns"]) == (3, 1, ["store"])


def test_a_sweep_ranks_its_combinations(cli, points: str):
    arguments = ("--target", "y", "--sweep", "lr=0.1,0.001", "--sweep", "seed=1,2", "--epochs", "50")
    assert cli("train", points, *arguments, "--log-member", "0.1,2", "--name", "tuning").code == 0
    best, *_, worst = cli("models", "members", "tuning", "--by-loss", "--json").json
    assert set(best["key"]) == {"lr", "seed"}
    assert (best["key"]["lr"], worst["key"]["lr"]) == (0.1, 0.001)


def test_integer_keys_are_integers(cli):
    rows = "shop,x,y\n7,1,2\n7,2,4\n8,1,3\n8,2,6\n"
    done = cli(
        "train",
        "-",
        "--target",
        "y",
        "--group-by",
        "shop",
        "--log-member",
        "8",
        "--name",
        "shops",
        stdin=rows,
    )
    assert done.code == 0, done.err
    assert cli("models", "promote", "shops", "8").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--log-member", "a"), "is for --group-by and --sweep"),
        (("--sweep", "lr"), "is not NAME=VALUE"),
        (("--sweep", "lr=a"), "must list numbers"),
        (("--sweep", "seed=0.5"), "must list integers"),
        (("--sweep", "seed=1", "--log-member", "a"), "seed must be an integer, is 'a'"),
        (("--group-by", "x,y", "--log-member", "1"), "a value for each of x, y"),
    ],
)
def test_wrong_options_are_usage_errors(cli, points: str, arguments, message):
    done = cli("train", points, "--target", "y", *arguments)
    assert done.code == 2
    assert message in " ".join(done.err.replace("│", " ").split())


def test_members_of_a_single_model_cannot_be_asked_for(cli, points: str):
    assert cli("train", points, "--target", "y", "--name", "single", "--epochs", "1").code == 0
    assert cli("predict", "single", points, "--member", "a").code == 2


def test_a_terminal_shows_members_that_are_done(terminal, stores: str):
    shown = terminal("train", stores, "--group-by", "store", *FIT)
    assert shown.code() == 0
    assert "3 members by store" in shown.text
    assert "✓ models/" in shown.text
    assert "1 failed" in shown.text
