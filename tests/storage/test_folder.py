"""The data folder and who may use it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from epochd_server.storage import DataFolder, StorageUnusableError, open_storage

HOLD = """
import sys, time, pathlib
from epochd_server.storage import DataFolder
folder = DataFolder(pathlib.Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_is_made_with_its_parents(tmp_path):
    folder = DataFolder(tmp_path / "a" / "b")
    assert folder.uploads.is_dir()
    assert folder.artifacts.is_dir()
    folder.close()


def test_datasets_that_were_kept_beside_the_artifacts_are_moved_there(tmp_path):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "0123.arrow").write_bytes(b"rows")
    for _ in range(2):
        folder = DataFolder(tmp_path)
        assert (folder.artifacts / "datasets" / "0123.arrow").read_bytes() == b"rows"
        assert not (tmp_path / "datasets").exists()
        folder.close()


def test_a_second_server_is_refused_in_one_line_that_names_the_first(tmp_path):
    folder = DataFolder(tmp_path)
    with pytest.raises(StorageUnusableError) as caught:
        DataFolder(tmp_path)
    assert str(caught.value) == (
        f"the data folder {tmp_path} is in use by another epochd server (process {os.getpid()})"
    )
    folder.close()
    DataFolder(tmp_path).close()


def test_the_folder_of_a_server_that_was_killed_is_free(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(StorageUnusableError, match=f"process {process.pid}"):
        DataFolder(tmp_path)
    process.kill()
    process.communicate()
    DataFolder(tmp_path).close()


def test_a_folder_that_cannot_be_written_to_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageUnusableError) as caught:
        DataFolder(tmp_path / "file" / "data")
    assert str(caught.value) == (
        f"the data folder {tmp_path / 'file' / 'data'} cannot be written to: Not a directory"
    )


def test_a_database_that_cannot_be_used_leaves_the_folder_free(tmp_path):
    with pytest.raises(StorageUnusableError):
        open_storage(tmp_path, convert=None, most_dataset_bytes=1, database_url="nonsense")
    DataFolder(tmp_path).close()


def test_a_file_that_is_no_database_is_one_clear_line(tmp_path):
    (tmp_path / "epochd.db").write_bytes(b"this is no database" * 1000)
    with pytest.raises(StorageUnusableError) as caught:
        open_storage(tmp_path, convert=None, most_dataset_bytes=1)
    assert str(caught.value) == "the database cannot be used: file is not a database"


def test_servers_on_a_shared_database_share_a_folder_but_none_has_it_alone(tmp_path):
    first, second = DataFolder(tmp_path, shared=True), DataFolder(tmp_path, shared=True)
    with pytest.raises(StorageUnusableError, match="in use by another epochd server"):
        DataFolder(tmp_path)
    first.close()
    second.close()
    alone = DataFolder(tmp_path)
    with pytest.raises(StorageUnusableError, match="in use by another epochd server"):
        DataFolder(tmp_path, shared=True)
    alone.close()
