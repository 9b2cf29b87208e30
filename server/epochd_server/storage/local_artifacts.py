"""Artifacts as files of a local folder."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

from epochd_server.storage.artifacts import MARKS, ArtifactDamagedError, StoredArtifact
from epochd_server.storage.durable_files import (
    CheckedFiles,
    copy_synced,
    digest_of,
    local_io,
    map_file,
    move_synced,
    sync_path,
    write_synced,
)

INCOMING = "incoming"
"""The folder of files that are being written. Those that a crash left are garbage as any other."""


class LocalArtifacts:
    """Artifacts in a local folder.

    Args:
        folder: Made if it is not there.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._checked = CheckedFiles()
        (folder / INCOMING).mkdir(parents=True, exist_ok=True)

    def probe(self) -> None:
        """Raises OSError where nothing can be written; blocks."""
        fresh = self._fresh()
        write_synced(fresh, b"epochd")
        fresh.unlink()

    async def put(self, name: str, data: bytes | memoryview) -> None:
        """Stores an artifact whole or not at all; it survives a power loss once this returns."""
        await asyncio.to_thread(self._put, name, data)

    async def put_file(self, name: str, path: Path) -> None:
        """Moves a file to its place."""
        await asyncio.to_thread(self._move, name, path)

    def map(self, name: str, digest: str | None = None) -> memoryview:
        """The content as read-only memory; blocks."""
        with local_io():
            data = map_file(self._folder / name)
        if digest is not None and digest_of(data) != digest:
            raise ArtifactDamagedError
        return data

    def fetch(self, name: str, digest: str | None = None) -> Path:
        """The file itself; blocks."""
        path = self._folder / name
        with local_io():
            path.stat()
            if digest is not None:
                self._checked.check(path, digest)
        return path

    async def delete(self, name: str) -> None:
        """Deletes an artifact; one that is not there already is fine."""
        await asyncio.to_thread(self._delete, name)

    async def list(self, folder: str = "") -> AsyncIterator[StoredArtifact]:
        """Every artifact below a folder."""
        for found in await asyncio.to_thread(lambda: list(self._walk(folder))):
            yield found

    def mark(self, name: str) -> None:
        """Stores an empty artifact in the folder of marks; blocks."""
        self._put(f"{MARKS}/{name}", b"")

    def marks(self) -> frozenset[str]:
        """The names of all marks; blocks."""
        return frozenset(found.name.removeprefix(f"{MARKS}/") for found in self._walk(MARKS))

    def _put(self, name: str, data: bytes | memoryview) -> None:
        fresh = self._fresh()
        with local_io():
            write_synced(fresh, data)
            move_synced(fresh, self._folder, name)

    def _fresh(self) -> Path:
        return self._folder / INCOMING / f"{os.urandom(8).hex()}.tmp"

    def _move(self, name: str, path: Path) -> None:
        with local_io():
            if path.stat().st_dev == self._folder.stat().st_dev:
                sync_path(path)
                move_synced(path, self._folder, name)
                return
            fresh = self._fresh()
            copy_synced(path, fresh)
            move_synced(fresh, self._folder, name)
            path.unlink()

    def _delete(self, name: str) -> None:
        path = self._folder / name
        self._checked.forget(path)
        with local_io():
            path.unlink(missing_ok=True)

    def _walk(self, folder: str) -> Iterator[StoredArtifact]:
        with local_io():
            for parent, _, names in os.walk(self._folder / folder):
                for name in names:
                    yield from self._stored(Path(parent, name))

    def _stored(self, path: Path) -> Iterator[StoredArtifact]:
        """What is known of a file, unless it is gone meanwhile."""
        try:
            found = path.stat()
        except FileNotFoundError:
            return
        modified = datetime.fromtimestamp(found.st_mtime, UTC)
        yield StoredArtifact(path.relative_to(self._folder).as_posix(), found.st_size, modified)
