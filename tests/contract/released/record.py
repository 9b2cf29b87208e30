"""Makes a data folder as a release leaves it when it is killed, and records it as ``SCHEMA.json.gz``.

    PYTHONPATH=client:server python record.py FOLDER

run in the sources of a release, whose server and client are the ones that are used. What a newer schema brought is
used where the release knows it. A recording holds every row of the database, every file of the folder, and what its
versions predicted.
"""

from __future__ import annotations

import base64
import gzip
import json
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

import epochd

ROWS = 24
FOREVER = 300_000
"""Epochs that take seconds."""


def main(folder: Path) -> None:
    """Records the release that is on the path."""
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data"
        expected = _live(data)
        schema, tables = _tables(data / "epochd.db")
        recording = {"schema": schema, "tables": tables, "files": _files(data), "expected": expected}
    target = folder / f"{schema}.json.gz"
    target.write_bytes(gzip.compress(json.dumps(recording).encode(), mtime=0))
    print(f"{target}: {target.stat().st_size:,} bytes, {len(expected)} versions")


def table() -> dict[str, Any]:
    """Numbers, a class and a city."""
    rng = np.random.default_rng(1)
    x, z = rng.normal(size=(2, ROWS)).round(3)
    return {
        "x": x,
        "z": z,
        "y": (3 * x - z + 1).round(3),
        "bought": np.where(x > z, "yes", "no"),
        "city": np.array(["Rome", "Oslo", "Lima"])[np.arange(ROWS) % 3],
    }


def columns(*names: str) -> dict[str, Any]:
    """Some columns of the table."""
    return {name: table()[name] for name in names}


def _live(data: Path) -> list[dict[str, Any]]:
    """Has a server live until it is killed; what its versions predict."""
    command = [sys.executable, "-m", "epochd_server", "--listen", "127.0.0.1:0", "--data-dir", str(data)]
    with subprocess.Popen([*command, "--workers", "1"], stdout=subprocess.PIPE, text=True) as server:
        line = server.stdout.readline() if server.stdout else ""
        try:
            with epochd.connect(line.split()[-1]) as client:
                _use(client)
                expected = _predictions(client)
                _leave_unfinished(client)
        finally:
            server.kill()
    return expected


def _use(client: Any) -> None:
    """What every release could do, and what some can."""
    adam = {"optimizer": epochd.Adam(lr=0.05), "epochs": 50, "log_every": 10, "seed": 7}
    linear, numbers = epochd.Linear(), columns("x", "z", "y")
    first = client.train(
        numbers, target="y", model=linear, name="price", log_parameters=True, **adam
    ).result()
    first.set_alias("champion")
    client.train(numbers, target="y", model=linear, name="price", batch_size=8, **adam).result()
    network = epochd.Sequential(epochd.Linear(4), "relu", epochd.Linear(2))
    client.train(
        columns("x", "z", "bought"), target="bought", model=network, loss="cross_entropy", name="bought",
        dtype="float64", **adam,
    ).result()  # fmt: skip
    client.train(client.upload(numbers), target="y", model=linear, name="uploaded", **adam).result()
    wide = epochd.Linear(260)
    large = epochd.Sequential(
        wide, wide, epochd.Linear(), init="zeros"
    )  # too large for a row of the database
    client.train(columns("x", "y"), target="y", model=large, name="large", **adam).result()
    client.train(
        numbers, target="y", model=linear, optimizer=epochd.SGD(lr=1e9), epochs=99, name="failed"
    ).wait()
    cancelled = client.train(
        numbers, target="y", model=linear, name="cancelled", **(adam | {"epochs": FOREVER})
    )
    cancelled.cancel()
    cancelled.wait()
    if hasattr(epochd, "Sweep"):
        _use_fleets(client, adam)
    if hasattr(epochd, "Canary"):
        _use_registry(client)


def _use_fleets(client: Any, adam: Mapping[str, Any]) -> None:
    """Since schema 0002."""
    linear = epochd.Linear()
    fleet = client.train(
        columns("x", "z", "y", "city"), target="y", group_by="city", model=linear, name="fleet",
        log_members=["Oslo"], **adam,
    ).result()  # fmt: skip
    fleet.promote("Lima")
    sweep = epochd.Sweep(lr=[0.1, 1e9])
    sgd = {"optimizer": epochd.SGD(lr=1.0), "epochs": 99, "seed": 1}
    client.train(columns("x", "y"), target="y", model=linear, sweep=sweep, name="sweep", **sgd).result()


def _use_registry(client: Any) -> None:
    """Since schema 0003."""
    exact = client.train(
        columns("x", "city", "y"), target="y", model=epochd.Linear(), fit=epochd.LeastSquares(), preprocess="auto",
        validation=0.25, metrics=["mae"], name="exact", labels={"team": "pricing"},
    ).result()  # fmt: skip
    exact.set_alias("champion")
    price = client.model("price/versions/2")
    price.set_alias("champion", canary=epochd.Canary(version="models/price/versions/1", percent=50.0))


def _predictions(client: Any) -> list[dict[str, Any]]:
    """What each version that is one model, or a fleet by key, predicts for the table."""
    found = []
    for model in client.models():
        for version in client.versions(model.name):
            if version.name == "sweep":
                continue
            names = [*version.features, *getattr(version, "key_columns", ())]
            names = [
                name
                for name in table()
                if name in names or (version.name == "exact" and name in {"x", "city"})
            ]
            predicted = version.predict(columns(*names))
            found.append(
                {
                    "version": version.resource_name.removeprefix("models/"),
                    "columns": names,
                    "predictions": predicted.tolist(),
                    "dtype": predicted.dtype.str,
                }
            )
    return found


def _leave_unfinished(client: Any) -> None:
    """A run in training, and one that waits for the only worker."""
    arguments = {
        "target": "y", "model": epochd.Linear(), "optimizer": epochd.SGD(lr=1e-4), "epochs": FOREVER, "seed": 3,
        "batch_size": 8, "log_every": FOREVER // 100,
    }  # fmt: skip
    running = client.train(columns("x", "z", "y"), name="interrupted", **arguments)
    client.train(columns("x", "z", "y"), name="waiting", **arguments)
    for number, _ in enumerate(running.logs()):
        if number == 3:
            return


def _tables(path: Path) -> tuple[str, dict[str, list[dict[str, Any]]]]:
    """The schema's number, and the rows of all tables."""
    with closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        (schema,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
        names = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return schema, {
            name: [_plain(row) for row in database.execute(f"SELECT * FROM {name}")]
            for name in sorted(names)
            if name != "alembic_version"
        }


def _plain(row: sqlite3.Row) -> dict[str, Any]:
    return {
        name: {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value
        for name, value in dict(row).items()
    }


def _files(data: Path) -> dict[str, str]:
    """All files but the database's, by their path in the folder."""
    return {
        str(path.relative_to(data)): base64.b64encode(path.read_bytes()).decode()
        for path in sorted(data.rglob("*"))
        if path.is_file() and not path.name.startswith("epochd.")
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
