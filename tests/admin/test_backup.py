"""`epochd admin backup` and `restore`: a server out of a backup serves the same bits."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
from tests.admin.conftest import WIDE

import epochd


def parameters(address: str, *names: str) -> dict[str, np.ndarray]:
    with epochd.connect(address) as client:
        return {
            f"{name}.{key}": value for name in names for key, value in client.model(name).parameters().items()
        }


def assert_same_bits(first, second):
    assert first.keys() == second.keys()
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_a_restored_server_serves_the_same_bits(admin, start_server, data_dir, tmp_path):
    server = start_server(data_dir=data_dir)
    before = parameters(server.address, "small", "wide")
    done = admin("backup", tmp_path / "backup", "--data-dir", data_dir, "--json")
    assert (done.code, done.json["artifacts"]) == (0, 4)
    server.kill()
    restored = admin("restore", tmp_path / "backup", "--data-dir", tmp_path / "again", "--json")
    assert (restored.code, restored.json["damage"]) == (0, [])
    assert admin("check", "--data-dir", tmp_path / "again").code == 0
    again = start_server(data_dir=tmp_path / "again")
    assert_same_bits(parameters(again.address, "small", "wide"), before)
    with epochd.connect(again.address) as client:
        assert len([*client.models()]) == 3
        assert next(iter(client.datasets())).describe().rows == 300
    assert again.stop() == 0


def test_a_backup_under_load_is_of_one_instant(admin, start_server, data_dir, tmp_path):
    """Large versions come and go all the while; no backup lacks an artifact that its database names."""
    server = start_server(data_dir=data_dir)
    done = threading.Event()

    def churn() -> None:
        x = np.random.default_rng(1).normal(size=(2, WIDE)).astype("float32")
        with epochd.connect(server.address) as client:
            while not done.is_set():
                client.train(
                    x, x[:, :1], model=epochd.Linear(), optimizer=epochd.SGD(lr=1e-6), epochs=1, name="churn"
                ).result()
                client.delete_model("churn")

    churning = threading.Thread(target=churn)
    churning.start()
    try:
        for number in range(4):
            backup, target = tmp_path / f"backup-{number}", tmp_path / f"target-{number}"
            assert admin("backup", backup, "--data-dir", data_dir).code == 0
            assert admin("restore", backup, "--data-dir", target).code == 0
            assert admin("check", "--data-dir", target, "--json").json["damage"] == []
    finally:
        done.set()
        churning.join()


def test_a_run_in_the_backup_goes_on_to_the_same_bits(admin, start_server, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2_000, 6)).astype("float32")
    arguments = {
        "model": epochd.Linear(), "optimizer": epochd.Adam(lr=0.01), "epochs": 3_000, "batch_size": 16, "seed": 3,
    }  # fmt: skip
    server = start_server()
    with epochd.connect(server.address) as client:
        run = client.train(x, x[:, 0], name="going", log_every=10, **arguments)
        next(iter(run.logs()))
        assert admin("backup", tmp_path / "backup", "--data-dir", server.data_dir).code == 0
        undisturbed = {f"going.{key}": value for key, value in run.result().parameters().items()}
    server.kill()
    assert admin("restore", tmp_path / "backup", "--data-dir", tmp_path / "again").code == 0
    again = start_server(data_dir=tmp_path / "again")
    with epochd.connect(again.address) as client:
        finished = client.run(run.name).result().parameters()
        sequences = [event.sequence for event in client.run(run.name).events()]
    assert_same_bits({f"going.{key}": value for key, value in finished.items()}, undisturbed)
    assert sequences == list(range(1, len(sequences) + 1))


def test_artifacts_are_links_unless_copies_are_asked_for(admin, data_dir, tmp_path):
    admin("backup", tmp_path / "linked", "--data-dir", data_dir)
    admin("backup", tmp_path / "copied", "--data-dir", data_dir, "--copy")
    [path] = (data_dir / "artifacts" / "weights").glob("*.safetensors")
    linked, copied = (tmp_path / name / "artifacts" / "weights" / path.name for name in ("linked", "copied"))
    assert linked.samefile(path)
    assert not copied.samefile(path)
    assert copied.read_bytes() == path.read_bytes()


def test_what_nothing_refers_to_is_left_out(admin, data_dir, tmp_path):
    (data_dir / "artifacts" / "weights" / "orphan").write_bytes(b"garbage")
    (data_dir / "artifacts" / "incoming" / "0.tmp").write_bytes(b"garbage")
    (data_dir / "uploads" / "0.partial").write_bytes(b"garbage")
    assert admin("backup", tmp_path / "backup", "--data-dir", data_dir).code == 0
    names = {path.name for path in (tmp_path / "backup").rglob("*") if path.is_file()}
    assert names & {"orphan", "0.tmp", "0.partial"} == set()
    assert {"epochd.db", "backup.json"} < names


@pytest.mark.parametrize("spoil", ["changed", "missing"])
def test_damage_in_a_backup_is_named_and_the_rest_restored(admin, start_server, data_dir, tmp_path, spoil):
    admin("backup", tmp_path / "backup", "--data-dir", data_dir, "--copy")
    [path] = (tmp_path / "backup" / "artifacts" / "weights").glob("*.safetensors")
    path.unlink()
    if spoil == "changed":
        path.write_bytes(b"garbage")
    done = admin("restore", tmp_path / "backup", "--data-dir", tmp_path / "again", "--json")
    assert done.code == 1
    [damage] = done.json["damage"]
    assert damage["name"] == "models/wide/versions/1"
    assert damage["artifact"] == f"weights/{path.name}"
    again = start_server(data_dir=tmp_path / "again")
    parameters(again.address, "small")
    with pytest.raises(epochd.DataLoss, match="models/wide/versions/1"):
        parameters(again.address, "wide")


def test_what_the_server_lacks_is_named_and_the_rest_backed_up(admin, data_dir, tmp_path):
    [path] = (data_dir / "artifacts" / "weights").glob("*.safetensors")
    path.unlink()
    done = admin("backup", tmp_path / "backup", "--data-dir", data_dir, "--json")
    assert (done.code, done.json["artifacts"]) == (1, 3)
    assert [(one["name"], one["problem"]) for one in done.json["damage"]] == [
        ("models/wide/versions/1", "missing")
    ]
    assert "models/wide/versions/1" in admin("backup", tmp_path / "again", "--data-dir", data_dir).out


def test_a_backup_with_another_database_is_refused_and_nothing_is_left(admin, data_dir, tmp_path):
    admin("backup", tmp_path / "backup", "--data-dir", data_dir)
    (tmp_path / "backup" / "epochd.db").write_bytes(b"garbage")
    before = sorted(path.name for path in tmp_path.iterdir())
    done = admin("restore", tmp_path / "backup", "--data-dir", tmp_path / "again")
    assert done.code == 1
    assert "the database of the backup" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_neither_overwrites_anything(admin, data_dir, tmp_path):
    assert admin("backup", tmp_path / "backup", "--data-dir", data_dir).code == 0
    for command in (("backup", tmp_path / "backup"), ("restore", tmp_path / "backup")):
        done = admin(*command, "--data-dir", data_dir)
        assert done.code == 1
        assert done.err.endswith("is not empty\n")
    (tmp_path / "empty").mkdir()
    assert admin("restore", tmp_path / "backup", "--data-dir", tmp_path / "empty").code == 0


def test_what_is_no_whole_backup_is_refused(admin, data_dir, tmp_path):
    (tmp_path / "half").mkdir()
    done = admin("restore", tmp_path / "half", "--data-dir", tmp_path / "again")
    assert (done.code, done.err) == (
        1,
        f"epochd: {tmp_path / 'half'} is no whole backup: it has no backup.json\n",
    )
    for content in ("{}", "[]", "garbage", '{"format": 1, "files": [1]}'):
        (tmp_path / "half" / "backup.json").write_text(content)
        done = admin("restore", tmp_path / "half", "--data-dir", tmp_path / "again")
        assert (done.code, len(done.err.splitlines())) == (1, 1)
    (tmp_path / "half" / "backup.json").write_text('{"format": 2, "files": []}')
    assert "newer" in admin("restore", tmp_path / "half", "--data-dir", tmp_path / "again").err
    assert not (tmp_path / "again").exists()


def test_what_is_not_embedded_says_what_to_do_instead(admin, data_dir, tmp_path):
    postgres = ("--database-url", "postgresql://127.0.0.1/epochd")
    done = admin("backup", tmp_path / "backup", "--data-dir", data_dir, *postgres)
    assert (done.code, "pg_dump" in done.err) == (1, True)
    done = admin("backup", tmp_path / "backup", "--data-dir", data_dir, "--artifacts", "s3://bucket/")
    assert (done.code, "bucket" in done.err) == (1, True)
    assert not os.path.exists(tmp_path / "backup")
