"""The registry on the command line."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def trained(cli, points: str) -> str:
    """A model with two versions."""
    if cli("models", "show", "listed/versions/2").code == 0:
        return "listed"
    for epochs in ("1", "2"):
        done = cli(
            "train",
            points,
            "--target",
            "y",
            "--epochs",
            epochs,
            "--name",
            "listed",
            "--label",
            f"epochs={epochs}",
        )
        assert done.code == 0, done.err
    return "listed"


def test_versions_are_found_by_label_and_labelled_anew(cli, trained):
    found = cli("models", "versions", trained, "--label", "epochs=1", "--json").json
    assert [one["version"] for one in found] == [1]
    labelled = cli("models", "label", f"{trained}/versions/1", "stage=live", "epochs-", "--json")
    assert labelled.json == {"stage": "live"}
    assert cli("models", "label", trained, "nothing").code == 2


def test_an_alias_with_a_canary_and_a_rollback(cli, trained):
    cli("models", "alias", f"{trained}/versions/1", "best")
    shown = cli(
        "models",
        "alias",
        f"{trained}/versions/2",
        "best",
        "--canary",
        f"{trained}/versions/1",
        "--percent",
        "5",
    )
    assert "@best=2 (5 % to 1)" in shown.out
    moves = cli("models", "history", f"{trained}@best", "--json").json
    assert [move["version"][-1] for move in moves] == ["2", "1"]
    assert "@best=1" in cli("models", "rollback", f"{trained}@best").out
    stale = cli("models", "alias", trained, "best", "--etag", "absent")
    assert (stale.code, "was moved" in stale.err) == (1, True)


def test_two_versions_side_by_side(cli, trained):
    shown = cli("models", "diff", f"{trained}/versions/1", trained)
    assert any(line.split() == ["epochs", "1", "2"] for line in shown.out.splitlines())
    fields = cli("models", "diff", f"{trained}/versions/1", trained, "--json").json["fields"]
    assert fields[0]["field"] == "final_loss"


def test_a_version_is_exported_and_imported(cli, trained, tmp_path):
    path = str(tmp_path / "m.safetensors")
    assert cli("models", "export", trained, path).code == 0
    made = cli("models", "import", path, "--name", "brought", "--label", "from=file", "--json")
    assert made.json == {"model_version": "models/brought/versions/1"}
    assert cli("models", "show", "brought", "--json").json["labels"]["from"] == "file"
    assert cli("models", "export", trained, str(tmp_path / "card.json")).code == 0
    assert "version" in json.loads((tmp_path / "card.json").read_text())
    assert cli("models", "export", trained, str(tmp_path / "m"), "--format", "pickle").code == 2


def test_a_training_goes_on_from_a_version(cli, trained, points):
    done = cli(
        "train",
        points,
        "--target",
        "y",
        "--epochs",
        "1",
        "--initial",
        f"{trained}/versions/1",
        "--name",
        "on",
    )
    assert done.code == 0, done.err
    lineage = cli("models", "show", "on", "--json").json["lineage"]
    assert lineage["parent"] == f"models/{trained}/versions/1"
