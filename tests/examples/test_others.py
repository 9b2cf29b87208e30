"""The data, the demo, and the examples in other languages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sklearn.datasets import load_wine
from sklearn.linear_model import LinearRegression

from epochd.cli.tables import read

ROOT = Path(__file__).parents[2]
BUF = Path(sys.executable).with_name("buf")


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=150
    )


def test_the_data_is_what_the_script_extracts(examples: Path, tmp_path: Path):
    run(sys.executable, str(examples / "data" / "extract_wine.py"), str(tmp_path / "wine.csv"))
    assert (tmp_path / "wine.csv").read_text() == (examples / "data" / "wine.csv").read_text()


def test_the_data_is_scikit_learns(examples: Path):
    table = read(str(examples / "data" / "wine.csv"))
    wine = load_wine()
    assert [list(column) for column in list(table.values())[:13]] == wine.data.T.tolist()
    assert list(table["cultivar"]) == (wine.target + 1).tolist()


@pytest.fixture(scope="module")
def demo() -> subprocess.CompletedProcess[str]:
    """The demo, in a pipe."""
    return run(sys.executable, str(ROOT / "examples" / "demo.py"))


def test_the_demo_trains_predicts_and_stops(demo: subprocess.CompletedProcess[str]):
    assert demo.returncode == 0, demo.stderr
    assert demo.stderr == ""
    assert "for 4 it predicts 7.99" in demo.stdout
    assert demo.stdout.count("loss by epoch") == 2
    assert "The server has stopped." in demo.stdout


def test_the_demo_is_plain_and_80_columns_wide_in_a_pipe(demo: subprocess.CompletedProcess[str]):
    assert "\x1b" not in demo.stdout
    names = ("runs/", "flavanoids from")  # lines that are as long as they are
    assert [line for line in demo.stdout.splitlines() if len(line) > 80 and not line.startswith(names)] == []


def test_the_demos_model_of_real_data_is_close_to_least_squares(
    demo: subprocess.CompletedProcess[str], examples: Path
):
    final = re.search(r"models/wine/versions/1  2,000 epochs in .* → ([\d.]+)", demo.stdout)
    assert final is not None
    table = read(str(examples / "data" / "wine.csv"))
    names = ("total_phenols", "proanthocyanins", "hue", "od280_od315")
    features = [[float(table[name][row]) for name in names] for row in range(178)]
    fitted = LinearRegression().fit(features, table["flavanoids"])
    best = ((fitted.predict(features) - table["flavanoids"]) ** 2).mean()
    assert 0.999 * best <= float(final[1]) <= 1.01 * best


def test_the_shell_session_works_over_reflection(examples: Path, server_address: str):
    done = run(str(examples / "shell" / "session.sh"), server_address, BUF=str(BUF))
    assert done.returncode == 0, done.stderr
    assert '"status": "SERVING"' in done.stdout
    assert "4 → 7.99" in done.stdout
    assert "σ'(37) = 8.533047625744065e-17" in done.stdout
    assert "at w = 2: 8" in done.stdout
    assert "gradient.optimizer.sgd.lr" in done.stdout + done.stderr


@pytest.fixture
def node(examples: Path) -> str:
    """Node with what the example needs."""
    folder = examples / "node"
    if not (folder / "node_modules").is_dir():
        npm = shutil.which("npm")
        assert npm, "the Node example needs npm"
        command = [npm, "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(command, cwd=folder, check=True, timeout=150)
    found = shutil.which("node")
    assert found, "the Node example needs node"
    return found


def test_node_trains_prints_logs_and_predicts(examples: Path, server_address: str, node: str):
    done = run(node, str(examples / "node" / "train.js"), server_address)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "training 2 parameters on 3 rows, on cpu" in lines
    assert "epoch    0  loss 18.666666" in lines
    assert [int(line.split()[1]) for line in lines if line.startswith("epoch")] == [*range(0, 2000, 200)]
    assert lines[-1].startswith("4 → 7.99")


def test_node_says_what_is_wrong_when_nothing_listens(examples: Path, node: str):
    done = run(node, str(examples / "node" / "train.js"), "127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.startswith("error: No connection established")


def test_the_lock_file_names_no_registry(examples: Path):
    assert '"resolved"' not in (examples / "node" / "package-lock.json").read_text()
