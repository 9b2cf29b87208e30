"""A disk that is full, one that nothing can be written to, and a data folder that two servers want."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from tests.contract.conftest import SPEC

from epochd_server.admin import admin
from epochd_server.domain.datasets import DatasetColumn, DatasetFormat, DatasetSummary
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.records import NewRun
from epochd_server.domain.runs import Event, Queued
from epochd_server.storage import Storage, open_storage

LEFT_BYTES = (0, 4_096, 16_384, 65_536, 262_144, 1_048_576)
"""What is left on the disk: where the first write fails that finds no room differs."""


class Disk:
    """A small file system in memory. Attributes: path, where it is mounted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"
        path.mkdir()
        self._as_root(
            "mount", "-t", "tmpfs", "-o", f"size=48m,mode=0777,uid={os.getuid()}", "tmpfs", str(path)
        )

    def fill(self, left: int) -> None:
        """Takes all room but so many bytes."""
        free = shutil.disk_usage(self.path).free - left
        with self._filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free)

    def free(self) -> None:
        """Gives the room back."""
        self._filler.unlink()

    def make_read_only(self) -> None:
        """Nothing can be written any more."""
        self._as_root("mount", "-o", "remount,ro", str(self.path))

    def close(self) -> None:
        """Takes it away with all that is on it."""
        self._as_root("umount", "-l", str(self.path))

    def _as_root(self, *command: str) -> None:
        prefix = [] if os.getuid() == 0 else ["sudo", "-n"]
        subprocess.run([*prefix, *command], check=True, timeout=30)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A small disk of the test's own."""
    made = Disk(tmp_path / "disk")
    try:
        yield made
    finally:
        made.close()


async def chunks(data: bytes):
    for start in range(0, len(data), 65_536):
        yield data[start : start + 65_536]


def rows_as_they_are(source: Path, format_: DatasetFormat, destination: Path) -> DatasetSummary:
    """Stands for the conversion to Arrow, which has tests of its own."""
    shutil.copyfile(source, destination)
    return DatasetSummary(rows=1, columns=(DatasetColumn("x", "float64"),))


def open_at(path: Path) -> Storage:
    return open_storage(path, convert=rows_as_they_are, most_dataset_bytes=1 << 24)


class Acknowledged:
    """What a storage said that it has.

    Attributes:
        datasets: Contents by digest.
        runs: Ids of accepted runs.
        artifacts: Contents by name.
        refusals: Reasons why something was refused.
    """

    def __init__(self) -> None:
        self.datasets: dict[str, bytes] = {}
        self.runs: list[str] = []
        self.artifacts: dict[str, bytes] = {}
        self.refusals: list[Reason] = []

    async def try_all(self, storage: Storage, number: int) -> None:
        """Stores something of every kind."""
        data = np.random.default_rng(number).bytes(700_000)
        for attempt in (self._upload, self._accept, self._put):
            try:
                await attempt(storage, number, data)
            except EpochdError as error:
                self.refusals.append(error.reason)

    async def check(self, storage: Storage) -> None:
        """Holds what is there to what was acknowledged."""
        for digest, data in self.datasets.items():
            assert (await storage.datasets.path_of(digest)).read_bytes() == data
        for name, data in self.artifacts.items():
            assert storage.artifacts.map(name) == data
        for run_id in self.runs:
            assert (await storage.runs.get(run_id)).run.latest_sequence == 1

    async def _upload(self, storage: Storage, _number: int, data: bytes) -> None:
        digest = hashlib.sha256(data).hexdigest()
        await storage.datasets.upload(digest, len(data), DatasetFormat.CSV, 0, chunks(data))
        self.datasets[digest] = data

    async def _accept(self, storage: Storage, number: int, data: bytes) -> None:
        run_id = f"01J{number:023}"
        run = NewRun(
            run_id=run_id, model="m", spec=SPEC, request=data, fingerprint=bytes(32),
            client="tests", create_time=datetime.now(UTC),
        )  # fmt: skip
        await storage.runs.accept(run, Event(1, datetime.now(UTC), Queued(run_id=run_id, model="m")))
        self.runs.append(run_id)

    async def _put(self, storage: Storage, number: int, data: bytes) -> None:
        name = f"weights/{number}"
        await storage.artifacts.put(name, data)
        self.artifacts[name] = data


async def test_a_full_disk_refuses_loses_nothing_and_recovers(disk):
    """Whichever write finds no room: what is refused may be tried again, and what was acknowledged is there."""
    said = Acknowledged()
    storage = open_at(disk.path / "data")
    try:
        for number, left in enumerate(LEFT_BYTES):
            disk.fill(left)
            await said.try_all(storage, 2 * number)
            await said.check(storage)
            disk.free()
            before = len(said.refusals)
            await said.try_all(storage, 2 * number + 1)
            assert len(said.refusals) == before
        assert set(said.refusals) == {Reason.STORAGE_UNAVAILABLE}
        assert len(said.refusals) >= len(LEFT_BYTES)
        assert EpochdError(Reason.STORAGE_UNAVAILABLE).retry_after_seconds
    finally:
        storage.close()
    again = open_at(disk.path / "data")
    try:
        await said.check(again)
    finally:
        again.close()
    assert await asyncio.to_thread(admin, ["check", "--data-dir", str(disk.path / "data")]) == 0


def one_line(data_dir: Path) -> str:
    """What a server says that cannot start."""
    command = [sys.executable, "-m", "epochd_server", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    return line


def test_a_folder_that_is_read_only_is_told_in_one_line(disk):
    data_dir = disk.path / "data"
    open_at(data_dir).close()
    disk.make_read_only()
    assert (
        one_line(data_dir)
        == f"epochd: the data folder {data_dir} cannot be written to: Read-only file system"
    )


def test_a_start_on_a_full_disk_is_told_in_one_line(disk):
    data_dir = disk.path / "data"
    open_at(data_dir).close()
    disk.fill(0)
    assert one_line(data_dir).endswith("cannot be written to: No space left on device")
    disk.free()
    open_at(data_dir).close()


def test_a_second_server_on_the_folder_names_the_first(tmp_path):
    first = open_at(tmp_path / "data")
    try:
        said = (
            f"the data folder {tmp_path / 'data'} is in use by another epochd server (process {os.getpid()})"
        )
        assert one_line(tmp_path / "data") == f"epochd: {said}"
    finally:
        first.close()
