"""`epochd train --fit` and `epochd models statistics`."""

from __future__ import annotations

import pytest


def test_a_model_is_fitted_exactly_and_shows_its_statistics(cli, wine: str):
    columns = ("--target", "flavanoids", "--features", "hue,total_phenols")
    done = cli("train", wine, *columns, "--fit", "auto", "--name", "exact-wine")
    assert done.code == 0
    assert "least squares (auto), 3 parameters, 178 rows, float64" in done.out
    shown = cli("models", "statistics", "exact-wine")
    assert shown.code == 0
    assert [line.split()[0] for line in shown.out.splitlines()[3:6]] == ["hue", "total_phenols", "bias"]
    listed = cli("models", "statistics", "exact-wine", "--json")
    assert listed.json_lines[0]["coefficient"] == ["hue", "total_phenols", "bias"]


def test_classes_are_balanced_in_an_exact_fit(cli, wine: str):
    columns = ("--target", "cultivar", "--features", "hue,flavanoids")
    done = cli("train", wine, *columns, "--loss", "cross_entropy:class_weights=balanced", "--fit", "auto")
    assert done.code == 0
    assert "newton (auto)" in done.out


def test_a_members_statistics_are_found_by_its_key(cli, wine: str):
    columns = ("--target", "flavanoids", "--features", "hue", "--group-by", "cultivar")
    assert cli("train", wine, *columns, "--fit", "least_squares:l2=0", "--name", "by-cultivar").code == 0
    (members,) = cli("models", "members", "by-cultivar", "--json").json_lines
    key = str(members[0]["key"]["cultivar"])
    shown = cli("models", "statistics", "by-cultivar", "--member", key)
    assert shown.code == 0
    assert shown.out.startswith(f"{key}: ")


@pytest.mark.parametrize(
    "options",
    [("--fit", "exactly"), ("--fit", "newton:c=1"), ("--fit", "auto", "--epochs", "3")],
    ids=["unknown", "unknown argument", "with epochs"],
)
def test_wrong_use_is_told(cli, wine: str, options: tuple[str, ...]):
    done = cli("train", wine, "--target", "flavanoids", "--features", "hue", *options)
    assert done.code == 2
    assert "--fit" in done.err
