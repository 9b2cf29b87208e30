"""`epochd admin check`: finds what is damaged, and nothing else."""

from __future__ import annotations

import os
import time

import pytest
from tests.admin.conftest import fill, only


def damaged(result):
    assert result.code == 1, result.err
    return [(one["name"], one["part"], one["problem"]) for one in result.json["damage"]]


def test_all_is_well_after_a_graceful_stop(admin, data_dir):
    done = admin("check", "--data-dir", data_dir, "--json")
    assert done.code == 0
    assert done.json | {"artifact_bytes": 0} == {
        "sound": True, "versions": 3, "datasets": 1, "runs": 3, "artifacts": 3, "artifact_bytes": 0, "damage": [],
        "orphans": [],
    }  # fmt: skip


def test_people_read_lines(command_line, data_dir):
    done = command_line("admin", "check", "--data-dir", data_dir)
    assert done.code == 0
    assert done.err == ""
    lines = done.out.splitlines()
    assert lines[0].split() == ["versions", "3"]
    assert lines[-1] == "Everything is as it was stored."


def test_json_may_be_asked_for_before_the_command_too(command_line, data_dir):
    assert command_line("--json", "admin", "check", "--data-dir", data_dir).json["sound"]


def test_every_command_has_help(admin):
    listed = admin("--help")
    assert listed.code == 0
    for name in ("check", "gc", "backup", "restore", "adopt"):
        assert name in listed.out
        assert "--json" in admin(name, "--help").out


def test_it_reads_beside_a_running_server(admin, start_server, data_dir):
    server = start_server(data_dir=data_dir)
    assert admin("check", "--data-dir", data_dir).code == 0
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("pattern", "name", "part"),
    [
        ("weights/*.safetensors", "models/wide/versions/1", "weights"),
        ("weights/*.members.arrow", "models/fleet/versions/1", "members"),
        ("datasets/*.arrow", "datasets/", "rows"),
    ],
)
def test_a_changed_byte_and_a_missing_file_are_named(admin, data_dir, pattern, name, part):
    path = only(data_dir, pattern)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    [found] = damaged(admin("check", "--data-dir", data_dir, "--json"))
    assert found[0].startswith(name)
    assert found[1:] == (part, "does not have its digest")
    path.unlink()
    [found] = damaged(admin("check", "--data-dir", data_dir, "--json"))
    assert found[1:] == (part, "missing")


def test_bytes_in_the_database_are_verified_too(admin, data_dir, sql):
    sql("UPDATE version_weights SET data = zeroblob(length(data)) WHERE model = 'small'")
    found = damaged(admin("check", "--data-dir", data_dir, "--json"))
    assert found == [("models/small/versions/1", "weights", "does not have its digest")]
    sql("DELETE FROM version_weights WHERE model = 'small'")
    found = damaged(admin("check", "--data-dir", data_dir, "--json"))
    assert found == [("models/small/versions/1", "weights", "missing")]


def test_a_log_with_gaps_is_named(admin, data_dir, sql):
    [[run_id]] = sql("SELECT run_id FROM runs WHERE model = 'small'")
    sql("DELETE FROM events WHERE run_id = ? AND sequence = 3", run_id)
    found = damaged(admin("check", "--data-dir", data_dir, "--json"))
    assert found == [(f"runs/{run_id}", "log", "has gaps")]


def test_an_unfinished_run_without_its_dataset_is_named(admin, data_dir, sql):
    [[run_id, digest]] = sql("SELECT run_id, dataset FROM runs WHERE model = 'small'")
    sql("UPDATE runs SET state = 'queued' WHERE run_id = ?", run_id)
    sql("DELETE FROM datasets")
    found = damaged(admin("check", "--data-dir", data_dir, "--json"))
    assert found == [(f"runs/{run_id}", "dataset", f"datasets/{digest} is missing")]


def test_a_damaged_database_is_told(admin, data_dir):
    path = data_dir / "epochd.db"
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 8192] = os.urandom(8192)
    path.write_bytes(content)
    done = admin("check", "--data-dir", data_dir)
    assert done.code == 1
    assert done.out + done.err


def test_files_that_nothing_refers_to_are_listed_and_no_damage(admin, data_dir):
    orphan = data_dir / "artifacts" / "weights" / "old.safetensors"
    for path, age in ((orphan, 7200), (orphan.with_name("young.safetensors"), 0)):
        path.write_bytes(b"abc")
        os.utime(path, (time.time() - age,) * 2)
    done = admin("check", "--data-dir", data_dir, "--json")
    assert done.code == 0
    assert [found["name"] for found in done.json["orphans"]] == ["weights/old.safetensors"]
    assert "weights/old.safetensors" in admin("check", "--data-dir", data_dir).out


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "there is no data folder"),
        (lambda path: path.mkdir(), "there is no database"),
        (lambda path: (path.mkdir(), (path / "epochd.db").touch()), "the database has schema none"),
    ],
    ids=["no folder", "no database", "no schema"],
)
def test_where_there_is_no_server_one_line_says_so(admin, tmp_path, make, said):
    make(tmp_path / "data")
    done = admin("check", "--data-dir", tmp_path / "data")
    assert done.code == 1
    [line] = done.err.splitlines()
    assert line.startswith(f"epochd: {said}")


def test_settings_that_make_no_sense_are_wrong_usage(admin):
    done = admin("gc", "--keep-runs", -1)
    assert done.code == 2
    assert "--keep-runs" in done.err


def test_artifacts_in_a_bucket_are_checked_and_cleaned(admin, start_server, bucket, tmp_path):
    server = start_server("--artifacts", bucket)
    fill(server.address)
    done = admin("check", "--data-dir", server.data_dir, "--artifacts", bucket, "--json")
    assert (done.code, done.json["artifacts"]) == (0, 3)
    done = admin("gc", "--data-dir", server.data_dir, "--artifacts", bucket, "--json")
    assert (done.code, done.json["orphans"]) == (0, [])
    empty = ("--data-dir", server.data_dir, "--artifacts", f"{bucket}/empty")
    for command in ("check", "gc"):
        refused = admin(command, *empty)
        assert (refused.code, "epochd admin adopt" in refused.err) == (1, True)
    assert admin("adopt", *empty, "--json").json == {"artifacts": f"{bucket}/empty"}
    found = damaged(admin("check", *empty, "--json"))
    assert {problem for _, _, problem in found} == {"missing"}
    assert len(found) == 3
