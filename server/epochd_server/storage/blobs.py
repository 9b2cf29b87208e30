"""The large parts of versions: in the database while they are small, otherwise as artifacts named by digest."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.resources import version_name
from epochd_server.storage.artifacts import CHUNK_BYTES, ArtifactDamagedError, Artifacts
from epochd_server.storage.durable_files import digest_of

INLINE_BYTES = 256 * 1024
"""Blobs up to this size are stored in the database, in the same transaction as their version."""

KEPT_BYTES = 256 * 1024 * 1024
"""Of artifacts that are kept checked and unpacked: a list of a million members is read page by page."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Blob:
    """A part of a version that is to be stored.

    Attributes:
        data: The bytes.
        digest: Their SHA-256 in hex.
        artifact: Where ``data`` must lie before its version is added; None: in the database.
    """

    data: bytes
    digest: str
    artifact: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBlob:
    """A part of a version as it is stored: its bytes, or the artifact that has them."""

    model: str
    version: int
    digest: str
    data: bytes | None
    artifact: str | None

    @property
    def damaged(self) -> EpochdError:
        """The error for bytes that are missing or do not have their digest."""
        name = version_name(self.model, self.version)
        return EpochdError(Reason.ARTIFACT_CORRUPT, f"The weights of {name} are damaged.", {"name": name})


def make_blob(identity: str, data: bytes, *, suffix: str) -> Blob:
    """A blob of the version with this identity; no two versions share an artifact, so deleting one is safe."""
    digest = digest_of(data)
    artifact = f"weights/{identity}.{digest}.{suffix}" if len(data) > INLINE_BYTES else None
    return Blob(data, digest, artifact)


class BlobReader:
    """Reads blobs, and gives out none that is damaged.

    Args:
        artifacts: Holds the large ones.
        kept_bytes: Of artifacts that are kept checked and unpacked.
    """

    def __init__(self, artifacts: Artifacts, kept_bytes: int = KEPT_BYTES) -> None:
        self._artifacts = artifacts
        self._kept = _Recent(kept_bytes)

    async def load(self, blob: StoredBlob, unpack: Callable[[memoryview], T]) -> T:
        """What ``unpack`` makes of the bytes; an artifact's are mapped, and stay so while anything refers to them.

        What was lately made of an artifact is given again: it must not be changed.

        Raises:
            EpochdError: ARTIFACT_CORRUPT.
        """
        if blob.data is not None:
            return unpack(_verified(blob, memoryview(blob.data)))
        key = (blob.artifact, blob.digest, unpack)
        found = self._kept.get(key)
        if found is None:
            data, found = await asyncio.to_thread(self._load_mapped, blob, unpack)
            self._kept.put(key, found, len(data))
        made: T = found
        return made

    async def stream(self, blob: StoredBlob) -> AsyncGenerator[bytes]:
        """The bytes in chunks of at most CHUNK_BYTES, checked before the first is given.

        Raises:
            EpochdError: ARTIFACT_CORRUPT.
        """
        data = await self.load(blob, _as_it_is)
        for start in range(0, len(data), CHUNK_BYTES):
            yield bytes(data[start : start + CHUNK_BYTES])

    def _load_mapped(self, blob: StoredBlob, unpack: Callable[[memoryview], T]) -> tuple[memoryview, T]:
        try:
            data = self._artifacts.map(blob.artifact or "", blob.digest)
        except (FileNotFoundError, ArtifactDamagedError) as error:
            raise blob.damaged from error
        return data, unpack(data)


class _Recent:
    """What was used last, up to so many bytes."""

    def __init__(self, nbytes: int) -> None:
        self._left = nbytes
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable) -> Any:
        """What is kept under a key, or None."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def put(self, key: Hashable, value: Any, nbytes: int) -> None:
        """Keeps a value, and lets go of those used longest ago."""
        if key in self._kept:
            self._left += self._kept.pop(key)[1]
        self._kept[key] = value, nbytes
        self._left -= nbytes
        while self._left < 0:
            _, (_, freed) = self._kept.popitem(last=False)
            self._left += freed


def _as_it_is(data: memoryview) -> memoryview:
    return data


def _verified(blob: StoredBlob, data: memoryview) -> memoryview:
    if digest_of(data) != blob.digest:
        raise blob.damaged
    return data
