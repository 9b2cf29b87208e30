"""Local files that survive a power loss, and the check that they are what they were."""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.storage.artifacts import ArtifactDamagedError


def digest_of(data: bytes | memoryview) -> str:
    """SHA-256 in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's content in lower-case hex."""
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_path(path: Path) -> None:
    """Flushes a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, data: bytes | memoryview) -> None:
    """Makes a file whose content is on the disk; its folder's entry is not yet. None is left where this raises."""
    try:
        with path.open("xb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def copy_synced(source: Path, path: Path) -> None:
    """Copies a file as :func:`write_synced` makes one."""
    try:
        shutil.copyfile(source, path)
        sync_path(path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def move_synced(source: Path, root: Path, name: str) -> None:
    """Gives a file whose content is on the disk its name below a root, and flushes every folder on the way.

    Any of the folders may be new.
    """
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    source.rename(path)
    for parent in path.relative_to(root).parents:
        sync_path(root / parent)


def map_file(path: Path) -> memoryview:
    """A file's content as read-only memory, which stays valid when the file is deleted."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) if size else b"")


@contextmanager
def local_io() -> Iterator[None]:
    """Raises a disk that is full, or fails, as STORAGE_UNAVAILABLE; a missing file remains FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise EpochdError(Reason.STORAGE_UNAVAILABLE) from error


class CheckedFiles:
    """Checks the digests of files, each once while it does not change. May be used by several threads."""

    def __init__(self) -> None:
        self._checked: dict[Path, tuple[str, tuple[int, int, int]]] = {}
        self._lock = threading.Lock()

    def check(self, path: Path, digest: str) -> None:
        """Raises ArtifactDamagedError where a file does not have a digest."""
        found = path.stat()
        state = digest, (found.st_ino, found.st_size, found.st_mtime_ns)
        with self._lock:
            if self._checked.get(path) == state:
                return
        if digest_of_file(path) != digest:
            raise ArtifactDamagedError
        with self._lock:
            self._checked[path] = state

    def forget(self, path: Path) -> None:
        """Lets go of what is known of a file."""
        with self._lock:
            self._checked.pop(path, None)
