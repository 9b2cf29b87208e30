"""The data folder: where everything lies, and who may use it at the same time."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from epochd_server.storage.durable_files import sync_path
from epochd_server.storage.failures import StorageUnusableError


class DataFolder:
    """Makes a data folder if it is not there, and keeps other servers out of it until closed.

    The lock is the kernel's: it goes with the process, however that ends.

    Args:
        path: The folder.
        shared: Whether other servers that share it, too, may use it: those whose database is a shared one.

    Raises:
        StorageUnusableError: It cannot be written to, or a live server uses it.
    """

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        self.path = path.absolute()
        self._shared = shared
        try:
            for folder in (self.artifacts, self.uploads, self.servers):
                folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(
                self.path / "epochd.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
            )
        except OSError as error:
            raise StorageUnusableError(
                f"the data folder {self.path} cannot be written to: {error.strerror}"
            ) from error
        self._lock()
        try:
            self._adopt_datasets()
        except OSError as error:
            self.close()
            raise StorageUnusableError(
                f"the datasets in {self.path} cannot be moved: {error.strerror}"
            ) from error

    @property
    def database_url(self) -> str:
        """The SQLite database that is used where no other is configured."""
        return f"sqlite:///{self.path / 'epochd.db'}"

    @property
    def artifacts(self) -> Path:
        """The artifacts, unless they are elsewhere."""
        return self.path / "artifacts"

    @property
    def cache(self) -> Path:
        """Local copies of artifacts that lie in a bucket."""
        return self.path / "cache"

    @property
    def uploads(self) -> Path:
        """Uploads that are not complete."""
        return self.path / "uploads"

    @property
    def servers(self) -> Path:
        """A file for each server that uses the folder."""
        return self.path / "servers"

    def close(self) -> None:
        """Lets the next server in."""
        os.close(self._descriptor)

    def _lock(self) -> None:
        try:
            kind = fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 32, 0).decode().strip() or "unknown"
            os.close(self._descriptor)
            raise StorageUnusableError(
                f"the data folder {self.path} is in use by another epochd server (process {holder})"
            ) from None
        with suppress(OSError):  # of a full disk: then nobody learns who has the folder
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def _adopt_datasets(self) -> None:
        """Moves the datasets of a server that kept them beside the artifacts."""
        before, now = self.path / "datasets", self.artifacts / "datasets"
        if before.is_dir() and not now.exists():
            with suppress(FileNotFoundError):  # another server was faster
                before.rename(now)
            sync_path(self.artifacts)
            sync_path(self.path)
