"""Objects of buckets that clients may name: those below prefixes that the operator allowed, and no others.

Credentials, region and endpoint come from the environment, as the cloud's own tools read it, or the machine's role.
"""

from __future__ import annotations

import io
import re
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

from epochd_server.domain.errors import EpochdError, Reason

SCHEMES = ("s3", "gs", "az")
"""Of the URLs of buckets."""
_URL = re.compile(r"(\w+)://([a-z0-9][a-z0-9._-]*)((?:/[^/]+)*)/?")
_RETRIES: Any = {"max_retries": 4, "retry_timeout": timedelta(seconds=8)}
_TRICKS = re.compile(r"[\x00-\x1f\x7f%\\?#*]")
"""Nothing in a key may mean something else to whoever reads it, such as an encoded dot."""

Parts = tuple[str, ...]


def is_bucket(url: str) -> bool:
    """Whether a root or path means a bucket, or anything else that is no path of this machine."""
    return "://" in url


def parts_of(url: str) -> Parts | None:
    """Scheme, bucket and the parts of the key; None where a URL is not plain, or of no bucket that is known."""
    match = _URL.fullmatch(url)
    if match is None or match[1] not in SCHEMES or _TRICKS.search(url):
        return None
    key = tuple(part for part in match[3].split("/") if part)
    return None if {".", ".."} & set(key) else (match[1], match[2], *key)


class BucketRoot:
    """A prefix of a bucket.

    Args:
        url: ``s3://BUCKET/PREFIX`` and the like.

    Raises:
        ValueError: It is no plain URL of a bucket.
    """

    def __init__(self, url: str) -> None:
        parts = parts_of(url)
        if parts is None:
            known = ", ".join(f"{scheme}://BUCKET/PREFIX" for scheme in SCHEMES)
            raise ValueError(f"must be a folder, or one of {known}")
        self._parts = parts

    def holds(self, parts: Parts) -> bool:
        """Whether an object is below this root."""
        return len(parts) > len(self._parts) and parts[: len(self._parts)] == self._parts

    def copy(self, parts: Parts, folder: Path, most_bytes: int) -> io.BufferedRandom:
        """A copy of an object in a file without a name; blocks.

        Args:
            parts: The object, below this root.
            folder: Gets the copy.
            most_bytes: The largest object that is copied.

        Raises:
            EpochdError: FILE_NOT_FOUND, DATA_TOO_LARGE, STORAGE_UNAVAILABLE.
        """
        # Imported here: a server without such roots starts without the library.
        from obstore.exceptions import BaseError
        from obstore.store import from_url

        scheme, bucket, *key = parts
        # Closed by whoever asked for it.
        copy = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        try:
            store: Any = from_url(f"{scheme}://{bucket}", retry_config=_RETRIES)
            found = store.get("/".join(key))
            if found.meta["size"] > most_bytes:
                raise _too_large(found.meta["size"], most_bytes)
            for chunk in found:
                copy.write(chunk)
            copy.seek(0)
        except FileNotFoundError:
            copy.close()
            raise EpochdError(Reason.FILE_NOT_FOUND) from None
        except EpochdError:
            copy.close()
            raise
        except (BaseError, OSError) as error:
            copy.close()
            raise EpochdError(Reason.STORAGE_UNAVAILABLE) from error
        return copy


def _too_large(size: int, most_bytes: int) -> EpochdError:
    message = f"The data has {size} bytes; this server takes at most {most_bytes}."
    return EpochdError(Reason.DATA_TOO_LARGE, message, {"limit_bytes": str(most_bytes)})
