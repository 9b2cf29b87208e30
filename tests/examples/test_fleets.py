"""The examples of fleets and sweeps say what was computed in other ways."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from statsmodels.datasets import grunfeld

from epochd.cli.tables import read

Example = Callable[[str], str]


def fitted() -> dict[str, tuple[LinearRegression, float]]:
    """Least squares for each firm, and its mean squared error, in units of the firm's means."""
    models = {}
    for firm, rows in grunfeld.load_pandas().data.groupby("firm"):
        amounts = rows[["invest", "value", "capital"]]
        invest, *features = (amounts / amounts.mean()).to_numpy().T
        model = LinearRegression().fit(np.stack(features, axis=1), invest)
        models[firm] = (model, float(((model.predict(np.stack(features, axis=1)) - invest) ** 2).mean()))
    return models


def test_the_panel_is_what_the_script_extracts_and_statsmodels_has(examples: Path, tmp_path: Path):
    written = tmp_path / "grunfeld.csv"
    subprocess.run([sys.executable, str(examples / "data" / "extract_grunfeld.py"), str(written)], check=True)
    assert written.read_text() == (examples / "data" / "grunfeld.csv").read_text()
    table, source = read(str(written)), grunfeld.load_pandas().data
    for name in table:
        assert list(table[name]) == source[name].tolist()


def test_every_firms_model_is_its_least_squares(example: Example):
    text = example("fleet.py")
    best = fitted()
    ranked = dict(re.findall(r"^ *\d+\. +(.+?)  +([\d.]+)  +2,000$", text, re.MULTILINE))
    assert list(ranked) == sorted(best, key=lambda firm: best[firm][1])
    assert {firm: float(loss) for firm, loss in ranked.items()} == pytest.approx(
        {firm: loss for firm, (_, loss) in best.items()}, rel=1e-4
    )
    value, capital = best["IBM"][0].coef_
    assert f"value {value:.3f}, capital {capital:.3f}" in text
    for firm in ("US Steel", "IBM", "Chrysler"):
        assert f"{firm:<9} {best[firm][0].predict([[1.2, 1.0]])[0]:.3f}" in text


def test_a_firm_that_is_not_known_is_named_or_predicted_as_nan(example: Example):
    text = example("fleet.py")
    assert "'Acme'" in text
    assert "or, on request, [nan]" in text
    assert re.search(r"^investment-ibm \[1\.19\d+\]$", text, re.MULTILINE)


def test_the_sweep_ranks_its_members_and_the_best_is_a_model(example: Example):
    text = example("sweep.py")
    assert "24 members by lr, weight_decay, seed" in text
    losses = [float(loss) for loss in re.findall(r"^\d\..* (\S+)  +100$", text, re.MULTILINE)]
    assert len(losses) == 5
    assert losses == sorted(losses)
    assert re.search(r"It is right about (100\.0|9\d\.\d)% of the rows", text)
