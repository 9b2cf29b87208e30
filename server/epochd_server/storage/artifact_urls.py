"""From the URL of an artifact store to the store."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from epochd_server.domain.errors import EpochdError
from epochd_server.storage.artifacts import Artifacts
from epochd_server.storage.failures import StorageUnusableError
from epochd_server.storage.file_cache import HOLD_SECONDS, FileCache
from epochd_server.storage.local_artifacts import LocalArtifacts

BUCKETS: Final = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl")
"""Schemes of the URLs of buckets."""


def open_artifacts(
    url: str, *, cache: Path, cache_bytes: int, hold_seconds: float = HOLD_SECONDS
) -> Artifacts:
    """Opens a store and writes to it once, so that one that cannot be used is found at the start; blocks.

    Args:
        url: ``s3://BUCKET/PREFIX``, ``gs://…``, ``az://…``, ``file:///PATH``, or the path of a folder.
        cache: Keeps local copies of what is read of a bucket.
        cache_bytes: Of the copies together.
        hold_seconds: How long a use keeps a copy from being let go of.

    Raises:
        StorageUnusableError: It cannot be used; says why in one line.
    """
    folder = local_folder(url)
    if folder is not None:
        return _open_folder(folder)
    scheme = urlsplit(url).scheme
    if scheme not in BUCKETS:
        known = ", ".join(f"{name}://" for name in ("s3", "gs", "az", "file"))
        raise StorageUnusableError(f"the artifact store's URL begins with {scheme}://; known are {known}")
    return _open_bucket(url, cache, cache_bytes, hold_seconds)


def local_folder(url: str) -> Path | None:
    """The folder that a URL or path means, or None where it means a bucket."""
    if "://" not in url:
        return Path(url).absolute()
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" and not parts.netloc else None


def _open_folder(folder: Path) -> Artifacts:
    try:
        artifacts = LocalArtifacts(folder)
        artifacts.probe()
    except OSError as error:
        raise StorageUnusableError(
            f"the artifact folder {folder} cannot be written to: {error.strerror}"
        ) from error
    return artifacts


def _open_bucket(url: str, cache: Path, cache_bytes: int, hold_seconds: float) -> Artifacts:
    # Imported here: a server on a local folder starts without the library.
    from epochd_server.storage.bucket_artifacts import BucketArtifacts, BucketError

    try:
        artifacts = BucketArtifacts(url, FileCache(cache, cache_bytes, hold_seconds=hold_seconds))
        artifacts.probe()
    except OSError as error:
        raise StorageUnusableError(
            f"the cache folder {cache} cannot be written to: {error.strerror}"
        ) from error
    except BucketError as error:
        raise StorageUnusableError(
            f"the artifact store {url} cannot be used: {_first_line(error)}"
        ) from error
    except EpochdError as error:
        reason = _first_line(error.__cause__ or error)
        raise StorageUnusableError(f"the artifact store {url} cannot be used: {reason}") from error
    return artifacts


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:300]
