"""Files that are written once, behind one small protocol: durable before they are referred to.

A writer stores an artifact first and then commits the row that names it; an artifact that no row names is garbage,
which ``epochd admin gc`` collects. A name is never given to other content.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import structlog

from epochd_server.domain.errors import EpochdError

CHUNK_BYTES = 1 << 20

MARKS = "marks"
"""The folder of marks, to which no row refers by its name."""

_log = structlog.get_logger(__name__)


class ArtifactDamagedError(Exception):
    """An artifact's content does not have its digest."""


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """What a store knows of an artifact.

    Attributes:
        name: Its name.
        size: Its bytes.
        modified: When it was stored, in UTC.
    """

    name: str
    size: int
    modified: datetime


class Artifacts(Protocol):
    """A store of artifacts: a local folder, or a bucket.

    Names are paths with ``/``. Where a digest is given, it is the SHA-256 of the content in lower-case hex, and what
    does not have it is not given out. Whatever the store cannot do is STORAGE_UNAVAILABLE.
    """

    async def put(self, name: str, data: bytes | memoryview) -> None:
        """Stores an artifact whole or not at all; it survives a power loss once this returns.

        Raises:
            EpochdError: STORAGE_UNAVAILABLE, such as for a full disk.
        """

    async def put_file(self, name: str, path: Path) -> None:
        """Stores a local file as :meth:`put` does, and takes it over: it is moved, or copied and deleted.

        Raises:
            EpochdError: STORAGE_UNAVAILABLE; the file is still there.
        """

    def map(self, name: str, digest: str | None = None) -> memoryview:
        """The content as read-only memory that the kernel fills from a file as it is read; blocks.

        It stays valid while it is referred to, even when the artifact is deleted.

        Raises:
            FileNotFoundError: There is no such artifact.
            ArtifactDamagedError: It has another digest.
            EpochdError: STORAGE_UNAVAILABLE.
        """

    def fetch(self, name: str, digest: str | None = None) -> Path:
        """A local file with the content, to be opened soon and never written to; blocks.

        Its digest is computed when the file is first asked for, and again when it has changed.

        Raises:
            FileNotFoundError: There is no such artifact.
            ArtifactDamagedError: It has another digest.
            EpochdError: STORAGE_UNAVAILABLE.
        """

    async def delete(self, name: str) -> None:
        """Deletes an artifact; one that is not there already is fine.

        Raises:
            EpochdError: STORAGE_UNAVAILABLE.
        """

    def list(self, folder: str = "") -> AsyncIterator[StoredArtifact]:
        """Every artifact whose name begins with ``folder`` and a ``/``, in no particular order.

        Args:
            folder: Without a ``/`` at its end; empty: all artifacts.

        Raises:
            EpochdError: STORAGE_UNAVAILABLE.
        """

    def mark(self, name: str) -> None:
        """Stores an empty artifact in the folder ``MARKS``; blocks.

        Raises:
            EpochdError: STORAGE_UNAVAILABLE.
        """

    def marks(self) -> frozenset[str]:
        """The names of all marks, as the store has them now; blocks.

        Raises:
            EpochdError: STORAGE_UNAVAILABLE.
        """


async def discard(artifacts: Artifacts, names: Iterable[str]) -> None:
    """Deletes artifacts that no row names any more; those that cannot be deleted now are left to ``admin gc``."""
    for name in names:
        try:
            await artifacts.delete(name)
        except EpochdError as error:
            _log.warning("an artifact is left behind", artifact=name, reason=error.reason.value)
