"""Artifacts as objects of a bucket: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage.

Credentials, region and endpoint come from the environment that the cloud's own tools read (``AWS_…``, ``GOOGLE_…``,
``AZURE_…``), or from the machine's role; never from the URL.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from obstore.exceptions import BaseError
from obstore.store import from_url

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.storage.artifacts import CHUNK_BYTES, MARKS, ArtifactDamagedError, StoredArtifact
from epochd_server.storage.durable_files import digest_of, local_io, map_file
from epochd_server.storage.file_cache import FileCache

BucketError = BaseError
"""What the library raises, but for a missing object."""

_RETRIES: Any = {"max_retries": 4, "retry_timeout": timedelta(seconds=8)}
"""A bucket that does not answer is said to be away as soon as a database is."""

_PROBE = "incoming/probe"


class BucketArtifacts:
    """Artifacts in a bucket, with local copies of those that are read.

    Args:
        url: ``s3://BUCKET/PREFIX`` and the like.
        cache: Keeps the copies.

    Raises:
        BucketError: The URL, or what the environment says, cannot be used.
    """

    def __init__(self, url: str, cache: FileCache) -> None:
        # Typed loosely: the library's own types differ from one kind of bucket to the next.
        self._store: Any = from_url(url, retry_config=_RETRIES)
        self._cache = cache

    def probe(self) -> None:
        """Writes and deletes an object; blocks.

        Raises:
            EpochdError: STORAGE_UNAVAILABLE, caused by what the bucket said.
        """
        with _remote_io(missing=False):
            self._store.put(_PROBE, b"epochd")
            self._store.delete(_PROBE)

    async def put(self, name: str, data: bytes | memoryview) -> None:
        """Stores an artifact whole or not at all; an object that the bucket acknowledged is durable."""
        with _remote_io(missing=False):
            await self._store.put_async(name, data)

    async def put_file(self, name: str, path: Path) -> None:
        """Uploads a file in parts and then deletes it."""
        with _remote_io(missing=False):
            await self._store.put_async(name, path)
        await asyncio.to_thread(path.unlink)

    def map(self, name: str, digest: str | None = None) -> memoryview:
        """The content of a local copy as read-only memory; blocks."""
        with local_io():
            data = map_file(self.fetch(name))
            if digest is None or digest_of(data) == digest:
                return data
            self._cache.forget(name)
            data = map_file(self.fetch(name))
        if digest_of(data) != digest:
            raise ArtifactDamagedError
        return data

    def fetch(self, name: str, digest: str | None = None) -> Path:
        """A local copy; blocks."""
        return self._cache.get(name, digest, lambda path: self._download(name, path))

    async def delete(self, name: str) -> None:
        """Deletes an artifact and its local copy; one that is not there already is fine."""
        try:
            with _remote_io(missing=True):
                await self._store.delete_async(name)
        except FileNotFoundError:
            pass  # S3 is silent about it, others are not
        await asyncio.to_thread(self._cache.forget, name)

    async def list(self, folder: str = "") -> AsyncIterator[StoredArtifact]:
        """Every artifact below a folder."""
        with _remote_io(missing=False):
            async for page in self._store.list(folder or None):
                for found in page:
                    yield StoredArtifact(found["path"], found["size"], found["last_modified"])

    def mark(self, name: str) -> None:
        """Stores an empty object in the folder of marks; blocks."""
        with _remote_io(missing=False):
            self._store.put(f"{MARKS}/{name}", b"")

    def marks(self) -> frozenset[str]:
        """The names of all marks; blocks."""
        with _remote_io(missing=False):
            found = [found["path"] for page in self._store.list(MARKS) for found in page]
        return frozenset(path.removeprefix(f"{MARKS}/") for path in found)

    def _download(self, name: str, path: Path) -> None:
        with _remote_io(missing=True), path.open("xb", buffering=0) as file:
            for chunk in self._store.get(name).stream(min_chunk_size=CHUNK_BYTES):
                _write_all(file.write, memoryview(chunk))


def _write_all(write: Any, view: memoryview) -> None:
    while view:
        view = view[write(view) :]


@contextmanager
def _remote_io(*, missing: bool) -> Iterator[None]:
    """Raises what a bucket cannot do as STORAGE_UNAVAILABLE.

    Args:
        missing: Whether FileNotFoundError means a missing object; it means a missing bucket otherwise.
    """
    try:
        yield
    except FileNotFoundError as error:
        if missing:
            raise
        raise EpochdError(Reason.STORAGE_UNAVAILABLE) from error
    except (BucketError, OSError) as error:
        raise EpochdError(Reason.STORAGE_UNAVAILABLE) from error
