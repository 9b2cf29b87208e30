"""Which servers of a data folder have ended for certain, so that nobody need wait until their leases are over.

A living server holds a lock on a file of its own, and the kernel lets go of it when the process ends, however that
ends. A lock says nothing about servers on other machines: many network file systems keep locks to each machine. So
files carry the kernel's identity, and only those of the same one are looked at.
"""

from __future__ import annotations

import fcntl
import os
import platform
import uuid
from collections.abc import Collection
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Presence:
    """Holds this server's file. Blocking; meant for a thread.

    Args:
        folder: Where the files are.

    Attributes:
        server: This server's name, which no other ever has.
    """

    def __init__(self, folder: Path) -> None:
        self.server = uuid.uuid4().hex
        self._folder = folder
        self._kernel = _kernel()
        self._descriptor = os.open(self._file(self.server), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def gone(self) -> list[str]:
        """Names of servers that ran here and have ended."""
        names = (
            path.name.removeprefix(f"{self._kernel}.") for path in self._folder.glob(f"{self._kernel}.*")
        )
        return [name for name in names if name != self.server and not _is_locked(self._file(name))]

    def forget(self, servers: Collection[str]) -> None:
        """Deletes the files of servers that have ended, once everybody knows."""
        for server in servers:
            self._file(server).unlink(missing_ok=True)

    def close(self) -> None:
        """Lets go of this server's file, which others delete."""
        os.close(self._descriptor)

    def _file(self, server: str) -> Path:
        return self._folder / f"{self._kernel}.{server}"


def _kernel() -> str:
    """A name that this machine has until it is started anew."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return platform.node() or "unknown"


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
