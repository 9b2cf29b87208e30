"""Files that are written once: through obstore, durable before they are referred to.

A writer stores an artifact first and then commits the row that names it; an artifact that no row names is garbage.
"""

from __future__ import annotations

import asyncio
import mmap
import os
from pathlib import Path

from obstore.store import LocalStore

CHUNK_BYTES = 1 << 20


class Artifacts:
    """Artifacts in a local folder.

    Args:
        folder: Made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store = LocalStore(folder, mkdir=True)

    async def put(self, name: str, data: bytes) -> None:
        """Stores an artifact whole or not at all; it survives a power loss once this returns.

        Args:
            name: Path of the artifact below the folder, with ``/``.
            data: The content.
        """
        await self._store.put_async(name, data, use_multipart=False)
        await asyncio.to_thread(self._sync, name)

    def map(self, name: str) -> memoryview:
        """The content as read-only memory that the kernel fills from the file as it is read; blocks.

        It stays valid while it is referred to, even when the artifact is deleted.

        Raises:
            FileNotFoundError: There is no such artifact.
        """
        with (self._folder / name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) if size else b"")

    async def delete(self, name: str) -> None:
        """Deletes an artifact; one that is not there already is fine."""
        try:
            await self._store.delete_async(name)
        except FileNotFoundError:
            return

    def _sync(self, name: str) -> None:
        """Flushes the file and the entries of every folder above it, any of which may be new."""
        path = self._folder / name
        sync_path(path)
        for parent in path.relative_to(self._folder).parents:
            sync_path(self._folder / parent)


def sync_path(path: Path) -> None:
    """Flushes a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
