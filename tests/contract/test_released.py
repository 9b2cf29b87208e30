"""What servers of released schemas left, killed in the middle of a training: a server of today goes on with it."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path

import grpc
import numpy as np
import pytest
from sqlalchemy import create_engine, inspect, text

import epochd
from epochd import events
from epochd.v1 import runs_pb2, runs_pb2_grpc
from epochd_server.storage.engines import parse_url
from epochd_server.storage.migrating import KNOWN, upgrade

FOLDER = Path(__file__).with_name("released")
RECORDED = sorted(path.name.removesuffix(".json.gz") for path in FOLDER.glob("*.json.gz"))


def decoded(value):
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value


def restore(recording, url, data) -> None:
    """Makes the database and the folder as they were left."""
    for name, content in recording["files"].items():
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(content))
    engine = create_engine(parse_url(url))
    with engine.begin() as connection:
        upgrade(connection, recording["schema"])
        for table in inspect(connection).get_sorted_table_and_fkc_names():
            insert(connection, table[0], recording["tables"].get(table[0], []))
    engine.dispose()


def insert(connection, table, rows) -> None:
    for row in rows:
        names = ", ".join(f'"{name}"' for name in row)
        values = ", ".join(f":{name}" for name in row)
        statement = text(f"INSERT INTO {table} ({names}) VALUES ({values})")
        connection.execute(statement, {name: decoded(value) for name, value in row.items()})


def table_of(recording):
    """The rows that every run was trained on, as the dataset keeps them."""
    run = next(run for run in recording["tables"]["runs"] if run["model"] == "uploaded")
    return f"datasets/{run['dataset']}"


@pytest.fixture(params=["sqlite", "postgresql"])
def released_url(request, tmp_path):
    """A database of its own, without any table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'released.db'}"
        return
    url = request.getfixturevalue("postgres_url")
    engine = create_engine(parse_url(url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE DATABASE released"))
        yield url.replace("/postgres?", "/released?")
        connection.execute(text("DROP DATABASE released WITH (FORCE)"))
    engine.dispose()


def test_every_released_schema_is_recorded():
    """``released/record.py`` records one more, in the sources of the release that has it."""
    assert list(KNOWN[: len(RECORDED)]) == RECORDED
    assert len(RECORDED) >= 3


@pytest.mark.parametrize("schema", RECORDED)
def test_a_server_goes_on_where_a_release_was_killed(schema, released_url, tmp_path, start_server):
    recording = json.loads(gzip.decompress((FOLDER / f"{schema}.json.gz").read_bytes()))
    restore(recording, released_url, tmp_path / "data")
    with epochd.connect(start_server("--database-url", released_url).address) as client:
        assert_runs_are_told_as_they_were(client, recording)
        assert_versions_predict_as_they_did(client, recording)
        assert_unfinished_runs_end(client, recording)
        assert_work_goes_on(client, recording)


def assert_runs_are_told_as_they_were(client, recording) -> None:
    """Every run is there, with the log that it had, message by message; those that had not ended have more by now."""
    states = {run.name: run.state for run in client.runs()}
    logs = {}
    for row in recording["tables"]["events"]:
        logs.setdefault(f"runs/{row['run_id']}", []).append(decoded(row["event"]))
    with grpc.insecure_channel(client.address) as channel:
        stub = runs_pb2_grpc.RunsStub(channel)
        for run in recording["tables"]["runs"]:
            name = f"runs/{run['run_id']}"
            if run["state"] in {"succeeded", "failed", "cancelled"}:
                assert states[name] == run["state"].upper()
            log = [e for page in stub.WatchRun(runs_pb2.WatchRunRequest(run=name)) for e in page.events]
            assert [event.sequence for event in log] == list(range(1, len(log) + 1))
            told = [type(event).FromString(message) for message, event in zip(logs[name], log, strict=False)]
            assert log[: len(told)] == told
            assert len(log) == run["latest_sequence"] or run["state"] in {"running", "queued"}


def assert_versions_predict_as_they_did(client, recording) -> None:
    """To the bit; with fleets by key, promoted members and weights that lie in files among them."""
    table = client.dataset(table_of(recording)).preview(100) | sources()
    for expected in recording["expected"]:
        rows = {name: table[name] for name in expected["columns"]}
        predicted = client.model(expected["version"]).predict(rows)
        wanted = np.array(expected["predictions"], np.dtype(expected["dtype"]))
        np.testing.assert_array_equal(predicted, wanted, err_msg=expected["version"])


def sources():
    """The columns that the dataset does not have."""
    return {"city": np.array(["Rome", "Oslo", "Lima"])[np.arange(24) % 3]}


def assert_unfinished_runs_end(client, recording) -> None:
    """Both of them, in the bits of a run that nobody interrupted."""
    fresh = {}
    for run in recording["tables"]["runs"]:
        if run["state"] in {"running", "queued"}:
            model = client.run(f"runs/{run['run_id']}").result(timeout=120)
            fresh[run["model"]] = model.parameters()
    assert sorted(fresh) == ["interrupted", "waiting"]
    for name, value in fresh["interrupted"].items():
        np.testing.assert_array_equal(value, fresh["waiting"][name])


def assert_work_goes_on(client, recording) -> None:
    """Old models get new versions, old datasets are trained on, old aliases move."""
    assert client.model("price@champion").version in {1, 2}
    run = client.train(
        client.dataset(table_of(recording)), target="y", model=epochd.Linear(), optimizer=epochd.Adam(lr=0.05),
        epochs=5, name="price", initial="price/versions/1",
    )  # fmt: skip
    assert isinstance(list(run.events())[-1], events.Succeeded)
    run.result().set_alias("champion")
    assert client.model("price@champion").version == 3
    assert [version.version for version in client.versions("price")] == [3, 2, 1]
    if recording["schema"] >= "0002":
        fleet = client.model("fleet/versions/1")
        assert sorted(member.key for member in fleet.members()) == ["Lima", "Oslo", "Rome"]
        assert client.model("sweep").failed_members == 1
    if recording["schema"] >= "0003":
        assert client.model("exact").labels == {"team": "pricing"}
        assert client.model("exact").statistics().outputs[0].r_squared is not None
        assert [move.version for move in client.alias_moves("price@champion")][
            -1
        ] == "models/price/versions/1"
