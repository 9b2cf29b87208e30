"""The large parts of versions: in the database while they are small, otherwise as artifacts named by digest."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import TypeVar

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.resources import version_name
from epochd_server.storage.artifacts import CHUNK_BYTES, Artifacts

INLINE_BYTES = 256 * 1024
"""Blobs up to this size are stored in the database, in the same transaction as their version."""

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


def digest_of(data: bytes | memoryview) -> str:
    """SHA-256 in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


class BlobReader:
    """Reads blobs, and gives out none that is damaged.

    Args:
        artifacts: Holds the large ones.
    """

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts

    async def load(self, blob: StoredBlob, unpack: Callable[[memoryview], T]) -> T:
        """What ``unpack`` makes of the bytes; an artifact's are mapped, and stay so while anything refers to them.

        Raises:
            EpochdError: ARTIFACT_CORRUPT.
        """
        if blob.data is not None:
            return unpack(_verified(blob, memoryview(blob.data)))
        return await asyncio.to_thread(self._load_mapped, blob, unpack)

    async def stream(self, blob: StoredBlob) -> AsyncGenerator[bytes]:
        """The bytes in chunks of at most CHUNK_BYTES, checked before the first is given.

        Raises:
            EpochdError: ARTIFACT_CORRUPT.
        """
        data = await self.load(blob, lambda view: view)
        for start in range(0, len(data), CHUNK_BYTES):
            yield bytes(data[start : start + CHUNK_BYTES])

    def _load_mapped(self, blob: StoredBlob, unpack: Callable[[memoryview], T]) -> T:
        try:
            data = self._artifacts.map(blob.artifact or "")
        except FileNotFoundError as error:
            raise blob.damaged from error
        return unpack(_verified(blob, data))


def _verified(blob: StoredBlob, data: memoryview) -> memoryview:
    if digest_of(data) != blob.digest:
        raise blob.damaged
    return data
