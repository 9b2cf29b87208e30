"""What a backup says of itself; it is written last, so a folder without it is no whole backup."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from epochd_server.storage.durable_files import write_synced
from epochd_server.storage.failures import StorageUnusableError

NAME: Final = "backup.json"
DATABASE: Final = "epochd.db"
ARTIFACTS: Final = "artifacts"

_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class BackedUp:
    """A file of a backup.

    Attributes:
        path: Below the backup's folder.
        size: Its bytes.
        digest: SHA-256 of its bytes in hex; None: it is not known.
        owner: The resource that needs it; empty for the database.
    """

    path: str
    size: int
    digest: str | None
    owner: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A backup.

    Attributes:
        created: When its database was copied, RFC 3339.
        schema: The schema of its database.
        files: Everything in it.
    """

    created: str
    schema: str
    files: Sequence[BackedUp]

    def write(self, folder: Path) -> None:
        """Writes it to the disk."""
        text = json.dumps({"format": _FORMAT, **asdict(self)}, indent=1)
        write_synced(folder / NAME, text.encode())

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a backup.

        Raises:
            StorageUnusableError: The folder is no whole backup, or one of a newer epochd.
        """
        try:
            found = json.loads((folder / NAME).read_bytes())
            if found.pop("format") != _FORMAT:
                raise StorageUnusableError(f"the backup {folder} is of a newer epochd")
            files = [BackedUp(**file) for file in found.pop("files")]
            return cls(**found, files=files)
        except OSError as error:
            raise StorageUnusableError(f"{folder} is no whole backup: it has no {NAME}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StorageUnusableError(f"{folder} is no backup: its {NAME} cannot be read") from error
