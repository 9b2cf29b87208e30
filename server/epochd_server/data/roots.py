"""Files of the server that clients may name: those below roots that the operator allowed, and no others.

A path is walked from its root one folder at a time, each opened relative to the one before and never through a
symbolic link: nothing that changes meanwhile can lead out of the root.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from epochd_server.data.bucket_roots import BucketRoot, is_bucket, parts_of
from epochd_server.domain.errors import EpochdError, Reason

_FOLDER = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_DIRECTORY
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_DETOURS = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ENXIO})


class DataRoots:
    """Opens files below allowed folders, and objects below allowed prefixes of buckets.

    Args:
        roots: Folders, of which those that are links mean what they lead to now, and URLs such as
            ``s3://BUCKET/PREFIX``.
        copies: Gets objects while they are read.
        most_bytes: The largest object that is read.

    Raises:
        ValueError: A root is neither.
    """

    def __init__(self, roots: Sequence[str], *, copies: Path, most_bytes: int) -> None:
        folders = [root for root in roots if not is_bucket(root)]
        self._given = [PurePosixPath(os.path.abspath(folder)) for folder in folders]
        self._real = [os.path.realpath(folder) for folder in folders]
        self._buckets = [BucketRoot(root) for root in roots if is_bucket(root)]
        self._copies = copies
        self._most_bytes = most_bytes

    def open(self, path: str) -> io.BufferedReader | io.BufferedRandom:
        """Opens a plain file, or a copy of an object, for reading; blocks.

        Raises:
            EpochdError: PATH_NOT_ALLOWED where it is not below a root, is no plain absolute path, file or URL, or leads
                through a symbolic link; FILE_NOT_FOUND where there is none below a root; of an object also
                DATA_TOO_LARGE, and STORAGE_UNAVAILABLE where its bucket cannot be read.
        """
        if is_bucket(path):
            return self._open_object(path)
        for given, real in zip(self._given, self._real, strict=True):
            parts = _below(path, given)
            if parts:
                return _open(real, parts)
        raise EpochdError(Reason.PATH_NOT_ALLOWED)

    def _open_object(self, url: str) -> io.BufferedReader | io.BufferedRandom:
        parts = parts_of(url)
        for root in self._buckets:
            if parts is not None and not url.endswith("/") and root.holds(parts):
                return root.copy(parts, self._copies, self._most_bytes)
        raise EpochdError(Reason.PATH_NOT_ALLOWED)


def _below(path: str, root: PurePosixPath) -> tuple[str, ...]:
    """The parts of a path below a root; none where it is not below it, or not plain."""
    parts = PurePosixPath(path).parts
    plain = path.startswith("/") and not path.startswith("//") and "\0" not in path and ".." not in parts
    if not plain or parts[: len(root.parts)] != root.parts:
        return ()
    return parts[len(root.parts) :]


def _open(root: str, parts: Sequence[str]) -> io.BufferedReader:
    try:
        folder = os.open(root, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        for part in parts[:-1]:
            folder = _step(folder, part, _FOLDER)
        file = _step(folder, parts[-1], _FILE)
    except UnicodeEncodeError:
        raise EpochdError(Reason.PATH_NOT_ALLOWED) from None
    except OSError as error:
        reason = Reason.PATH_NOT_ALLOWED if error.errno in _DETOURS else Reason.FILE_NOT_FOUND
        raise EpochdError(reason) from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise EpochdError(Reason.PATH_NOT_ALLOWED)
    return os.fdopen(file, "rb")


def _step(folder: int, part: str, flags: int) -> int:
    """Opens a part of a path, and closes the folder that it is in."""
    try:
        return os.open(part, flags, dir_fd=folder)
    finally:
        os.close(folder)
