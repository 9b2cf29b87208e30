"""`epochd admin gc`: deletes what nobody needs, and nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

import epochd

DAY = 86_400


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def make_old(path: Path, days: float = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_bytes(b"garbage")
    os.utime(path, (time.time() - days * DAY,) * 2)
    return path


@pytest.fixture
def artifacts(data_dir):
    """The artifacts of the copy, all of them older than any safety age."""
    for path in (data_dir / "artifacts").rglob("*"):
        if path.is_file():
            make_old(path)
    return data_dir / "artifacts"


def age_rows(sql, days: float) -> None:
    for table, column in (("runs", "create_time"), ("runs", "end_time"), ("datasets", "create_time")):
        sql(f"UPDATE {table} SET {column} = {column} - ?", round(days * DAY * 1e6))


def test_without_orphans_and_retention_nothing_is_deleted(admin, data_dir, artifacts, sql):
    age_rows(sql, 1000)
    before = files(artifacts)
    done = admin("gc", "--data-dir", data_dir, "--json")
    assert done.code == 0
    assert done.json == {
        "dry_run": False, "runs": [], "datasets": [], "orphans": [], "uploads": [], "freed_bytes": 0
    }  # fmt: skip
    assert files(artifacts) == before
    assert admin("check", "--data-dir", data_dir).code == 0


def test_old_orphans_and_broken_uploads_go_and_young_ones_stay(admin, data_dir, artifacts):
    before = files(artifacts)
    orphan = make_old(artifacts / "weights" / "01J.abc.safetensors")
    left = make_old(artifacts / "incoming" / "0123.tmp")
    upload = make_old(data_dir / "uploads" / "abc.partial")
    young = (artifacts / "weights" / "01K.abc.safetensors", data_dir / "uploads" / "def.partial")
    for path in young:
        path.write_bytes(b"garbage")
    wanted = admin("gc", "--data-dir", data_dir, "--dry-run", "--json").json
    assert orphan.exists()
    done = admin("gc", "--data-dir", data_dir, "--json").json
    assert done == wanted | {"dry_run": False}
    assert sorted(found["name"] for found in done["orphans"]) == [
        "incoming/0123.tmp", "weights/01J.abc.safetensors"
    ]  # fmt: skip
    assert (done["uploads"], done["freed_bytes"]) == (["abc.partial"], 21)
    assert not any(path.exists() for path in (orphan, left, upload))
    assert all(path.exists() for path in young)
    assert files(artifacts) == before | {"weights/01K.abc.safetensors"}


def test_what_an_unfinished_run_stored_ahead_of_its_row_is_no_orphan(admin, data_dir, artifacts, sql):
    [[run_id]] = sql("SELECT run_id FROM runs WHERE model = 'small'")
    kept = [
        make_old(artifacts / folder / f"{run_id}.ab.safetensors") for folder in ("weights", "checkpoints")
    ]
    sql("UPDATE runs SET state = 'running' WHERE run_id = ?", run_id)
    assert admin("gc", "--data-dir", data_dir, "--json").json["orphans"] == []
    assert all(path.exists() for path in kept)
    sql("UPDATE runs SET state = 'succeeded' WHERE run_id = ?", run_id)
    assert len(admin("gc", "--data-dir", data_dir, "--json").json["orphans"]) == 2


def test_runs_are_kept_as_long_as_is_said_and_their_models_for_ever(admin, data_dir, sql):
    age_rows(sql, 10)
    [[young]] = sql("SELECT run_id FROM runs WHERE model = 'wide'")
    sql("UPDATE runs SET end_time = end_time + ? WHERE run_id = ?", round(5 * DAY * 1e6), young)
    assert admin("gc", "--data-dir", data_dir, "--keep-runs", 11, "--json").json["runs"] == []
    assert len(admin("gc", "--data-dir", data_dir, "--keep-runs", 7, "--json").json["runs"]) == 2
    assert sql("SELECT run_id FROM runs") == [(young,)]
    assert {run_id for (run_id,) in sql("SELECT DISTINCT run_id FROM events")} == {young}
    done = admin("check", "--data-dir", data_dir, "--json").json
    assert (done["sound"], done["versions"], done["runs"]) == (True, 3, 1)


def test_runs_that_have_not_ended_are_kept_however_old(admin, data_dir, sql):
    age_rows(sql, 10)
    sql("UPDATE runs SET state = 'queued', end_time = NULL")
    assert admin("gc", "--data-dir", data_dir, "--keep-runs", 1, "--json").json["runs"] == []


def test_datasets_go_when_neither_they_nor_their_runs_are_young(admin, data_dir, artifacts, sql):
    [[digest]] = sql("SELECT digest FROM datasets")
    age_rows(sql, 10)
    sql("UPDATE runs SET create_time = create_time + ?", round(5 * DAY * 1e6))
    assert admin("gc", "--data-dir", data_dir, "--keep-datasets", 7, "--json").json["datasets"] == []
    sql("UPDATE runs SET create_time = create_time - ?", round(5 * DAY * 1e6))
    sql("UPDATE runs SET state = 'queued' WHERE dataset IS NOT NULL")
    assert admin("gc", "--data-dir", data_dir, "--keep-datasets", 7, "--json").json["datasets"] == []
    sql("UPDATE runs SET state = 'succeeded'")
    size = sum(path.stat().st_size for path in (artifacts / "datasets").iterdir())
    done = admin("gc", "--data-dir", data_dir, "--keep-datasets", 7, "--json").json
    assert (done["datasets"], done["freed_bytes"]) == ([f"datasets/{digest}"], size)
    assert files(artifacts / "datasets") == set()
    assert admin("check", "--data-dir", data_dir, "--json").json["datasets"] == 0


def test_people_read_what_was_deleted(admin, data_dir, artifacts):
    make_old(artifacts / "weights" / "01J.abc.safetensors")
    done = admin("gc", "--data-dir", data_dir, "--dry-run").out.splitlines()
    assert done == [
        "WOULD BE DELETED",
        "weights/01J.abc.safetensors",
        "Would delete 0 runs, 0 datasets, 1 orphan and 0 broken uploads: 7 B of files.",
    ]


def test_a_running_server_goes_on_beside_it(admin, start_server, data_dir, artifacts, sql):
    age_rows(sql, 10)
    server = start_server(data_dir=data_dir)
    with epochd.connect(server.address) as client:
        dataset = client.upload({"x": np.arange(9.0), "y": np.arange(9.0)})
        long = client.train(
            dataset, target="y", model=epochd.Linear(), optimizer=epochd.Adam(lr=0.01), epochs=200_000,
            batch_size=1, name="long",
        )  # fmt: skip
        done = admin("gc", "--data-dir", data_dir, "--keep-runs", 1, "--keep-datasets", 1, "--json").json
        assert (len(done["runs"]), len(done["datasets"])) == (3, 1)
        assert long.name not in done["runs"]
        with pytest.raises(epochd.NotFound):
            client.run(done["runs"][0]).events()
        assert client.dataset(dataset.name).preview(1)["x"].tolist() == [0.0]
        long.cancel()
        assert client.model("wide").parameters()["linear.weight"].shape[1] == 70_000
    assert server.stop() == 0
    assert admin("check", "--data-dir", data_dir).code == 0
