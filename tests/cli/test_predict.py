"""`epochd predict`."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import epochd


@pytest.fixture
def line(cli, points: str) -> str:
    """The name of a model of y = 2x."""
    arguments = ("--target", "y", "--init", "zeros", "--epochs", "2000", "--name", "line", "--json")
    assert cli("train", points, *arguments).code == 0
    return "line"


@pytest.fixture
def classifier(cli, wine: str) -> str:
    """The name of a classifier of wines."""
    arguments = (
        "--loss",
        "cross_entropy",
        "--features",
        "hue,flavanoids,alcohol",
        "--epochs",
        "20",
        "--name",
        "cultivar",
    )
    assert cli("train", wine, "--target", "cultivar", *arguments).code == 0
    return "cultivar"


def columns(text: str) -> dict[str, list[str]]:
    header, *rows = csv.reader(io.StringIO(text))
    return dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))


def test_in_a_pipe_the_result_is_csv_with_the_numbers_that_python_gets(cli, server_address: str, line: str):
    done = cli("predict", line, "-", stdin="x\n4\n5.5\n")
    with epochd.connect(server_address) as client:
        expected = client.predict(line, {"x": [4, 5.5]})
    assert done.code == 0
    np.testing.assert_array_equal(np.array(columns(done.out)["y"], dtype=expected.dtype), expected)
    assert columns(done.out)["y"] == [
        str(value) for value in expected
    ]  # no digits that float32 does not have


def test_columns_that_the_model_does_not_use_are_left_out(cli, points: str, line: str):
    done = cli("predict", line, points)
    assert done.code == 0
    assert len(columns(done.out)["y"]) == 3


def test_missing_columns_are_named(cli, line: str):
    done = cli("predict", line, "-", stdin="z\n4\n")
    assert done.code == 1
    assert "x" in done.err


def test_the_result_goes_to_a_file(cli, points: str, line: str, tmp_path: Path):
    done = cli("predict", line, points, "--out", str(tmp_path / "out.csv"))
    assert done.out == ""
    assert "3 predictions of models/line/versions/" in done.err
    assert len(columns((tmp_path / "out.csv").read_text())["y"]) == 3


def test_a_classifier_gives_labels_and_probabilities_that_add_up_to_one(cli, wine: str, classifier: str):
    found = columns(cli("predict", classifier, wine, "--probabilities").out)
    assert list(found) == ["cultivar", "probability_1", "probability_2", "probability_3"]
    assert set(found["cultivar"]) <= {"1", "2", "3"}
    shares = np.array([found[f"probability_{label}"] for label in (1, 2, 3)], dtype=float)
    np.testing.assert_allclose(shares.sum(axis=0), 1, rtol=1e-6)
    np.testing.assert_array_equal(shares.argmax(axis=0) + 1, np.array(found["cultivar"], dtype=int))


def test_as_json_it_is_one_object(cli, points: str, line: str):
    done = cli("predict", line, points, "--json").json
    assert done["model_version"].startswith("models/line/versions/")
    assert len(done["y"]) == 3


def test_on_a_terminal_the_first_rows_are_a_table(terminal: Callable, wine: str, classifier: str):
    text = terminal("predict", classifier, wine).read_all()
    assert "ROW" in text
    assert "and 158 more; --out FILE writes them all" in text


def test_a_model_that_is_not_there_is_named(cli, points: str):
    done = cli("predict", "nothing", points)
    assert done.code == 1
    assert "models/nothing" in done.err
