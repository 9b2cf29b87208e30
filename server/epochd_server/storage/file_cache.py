"""Local copies of files that lie elsewhere, up to so many bytes: the ones used last."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from weakref import WeakValueDictionary

from epochd_server.storage.artifacts import ArtifactDamagedError
from epochd_server.storage.durable_files import CheckedFiles, local_io, sync_path

HOLD_SECONDS = 60.0
"""So long after its last use a copy is kept whatever else comes: who was given its path is about to open it."""

_ABANDONED_SECONDS = 3600.0
"""A download that nothing was written to for so long is nobody's: other processes may share the folder."""

_Download = Callable[[Path], None]


class FileCache:
    """Keeps copies in a folder, also over restarts. May be used by several threads and processes.

    Args:
        folder: Made if it is not there.
        limit_bytes: Of the copies together; those in use just now may exceed it.
        hold_seconds: How long a use keeps a copy from being let go of.
    """

    def __init__(self, folder: Path, limit_bytes: int, *, hold_seconds: float = HOLD_SECONDS) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._hold_seconds = hold_seconds
        self._checked = CheckedFiles()
        self._lock = threading.Lock()
        self._busy: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        folder.mkdir(parents=True, exist_ok=True)
        for used, _, path in _used_size_path(folder):
            if path.suffix == ".tmp" and used < time.time() - _ABANDONED_SECONDS:
                path.unlink(missing_ok=True)

    def get(self, name: str, digest: str | None, download: _Download) -> Path:
        """A copy, downloaded where it is not there or is damaged.

        Args:
            name: What it is called, with ``/``.
            digest: SHA-256 that it must have, in hex; None: it is not checked.
            download: Writes the content to a new file.

        Raises:
            ArtifactDamagedError: What was downloaded does not have the digest.
            EpochdError: STORAGE_UNAVAILABLE; and whatever ``download`` raises.
        """
        path = self._folder / name
        with self._lock_of(name), local_io():
            if path.exists() and self._is_sound(path, digest):
                _touch(path)
                return path
            path.parent.mkdir(parents=True, exist_ok=True)
            self._download(path, digest, download)
        self._evict()
        return path

    def forget(self, name: str) -> None:
        """Deletes a copy where there is one."""
        with local_io():
            self._remove(self._folder / name)

    def _lock_of(self, name: str) -> threading.Lock:
        with self._lock:
            return self._busy.setdefault(name, threading.Lock())

    def _is_sound(self, path: Path, digest: str | None) -> bool:
        try:
            if digest is not None:
                self._checked.check(path, digest)
        except ArtifactDamagedError:
            return False
        return True

    def _download(self, path: Path, digest: str | None, download: _Download) -> None:
        fresh = path.with_name(f"{path.name}.{os.urandom(4).hex()}.tmp")
        try:
            download(fresh)
            sync_path(fresh)  # a copy without a digest is trusted after a power loss, too
            if digest is not None:
                self._checked.check(fresh, digest)
                self._checked.forget(fresh)
            fresh.rename(path)
        finally:
            fresh.unlink(missing_ok=True)

    def _evict(self) -> None:
        """Lets go of the copies used longest ago, until the rest fits."""
        held_since = time.time() - self._hold_seconds
        with self._lock:
            copies = sorted(copy for copy in _used_size_path(self._folder) if copy[2].suffix != ".tmp")
            excess = sum(size for _, size, _ in copies) - self._limit_bytes
            for used, size, path in copies:
                if excess <= 0 or used > held_since:
                    return
                self._remove(path)
                excess -= size

    def _remove(self, path: Path) -> None:
        self._checked.forget(path)
        path.unlink(missing_ok=True)


def _touch(path: Path) -> None:
    """Marks a copy as used now; many file systems do not note that by themselves."""
    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def _used_size_path(folder: Path) -> list[tuple[float, int, Path]]:
    found: list[tuple[float, int, Path]] = []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            state = path.stat()
            if path.is_file():
                found.append((max(state.st_atime, state.st_mtime), state.st_size, path))
    return found
