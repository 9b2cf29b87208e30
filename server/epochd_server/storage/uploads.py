"""Uploads that are not complete: one file each, written at offsets and resumed where it ends."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from epochd_server.domain.errors import EpochdError, FieldViolation, InvalidInput, Reason
from epochd_server.domain.resources import dataset_name
from epochd_server.storage.durable_files import digest_of_file, local_io, sync_path


class PartialFile:
    """The bytes of an upload that have arrived. Blocking; meant for a thread.

    Args:
        folder: Where the file is.
        digest: SHA-256 that the whole must have, in hex.
        size: Bytes of the whole.
    """

    def __init__(self, folder: Path, digest: str, size: int) -> None:
        self.path = folder / f"{digest}.partial"
        self._digest = digest
        self._size = size

    def committed(self) -> int:
        """How many bytes are on disk and need not be sent again.

        Raises:
            EpochdError: STORAGE_UNAVAILABLE where they cannot be flushed, or that of :meth:`discard`.
        """
        try:
            length = self.path.stat().st_size
        except FileNotFoundError:
            return 0
        if length > self._size:  # of another announcement, with a wrong size
            self.discard()
            return 0
        with local_io():
            sync_path(self.path)
        return length

    def check_offset(self, offset: int) -> None:
        """Raises InvalidInput where bytes before ``offset`` are missing."""
        committed = self.committed()
        if offset > committed:
            raise InvalidInput([FieldViolation("header.offset", f"must be <= {committed}, is {offset}")])

    def write(self, offset: int, data: bytes) -> int:
        """Writes ``data`` at ``offset`` and returns the offset after it.

        Opens the file anew each time: a descriptor that outlives a cancelled call could be closed, and used for
        another file, while a thread still writes.

        Raises:
            InvalidInput: The upload is longer than announced.
            EpochdError: STORAGE_UNAVAILABLE where the disk is full or fails.
        """
        end = offset + len(data)
        if end > self._size:
            raise InvalidInput([FieldViolation("data", f"more than the {self._size} bytes announced")])
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                _write_all(descriptor, offset, data)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise EpochdError(Reason.STORAGE_UNAVAILABLE) from error
        return end

    def claim(self) -> ClaimedUpload:
        """Takes the file away from whoever would write to it, once it is whole.

        Raises:
            InvalidInput: Bytes are missing.
            EpochdError: STORAGE_UNAVAILABLE.
        """
        claimed = self.path.with_suffix(f".{os.urandom(4).hex()}.whole")
        with local_io():
            try:
                length = self.path.stat().st_size
                if length == self._size:
                    self.path.rename(claimed)
            except FileNotFoundError:  # another server has just claimed it
                length = 0
        if length != self._size:
            message = f"the upload ends after {length} of {self._size} bytes; go on from there"
            raise InvalidInput([FieldViolation("data", message)])
        return ClaimedUpload(claimed, self.path, self._digest)

    def discard(self) -> None:
        """Deletes the file.

        Raises:
            EpochdError: STORAGE_UNAVAILABLE.
        """
        with local_io():
            self.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class ClaimedUpload:
    """All bytes of an upload, which nobody writes to any more. Blocking; meant for a thread.

    Attributes:
        path: Where they are.
        digest: SHA-256 that they must have, in hex.
    """

    path: Path
    _before: Path
    digest: str

    def verify(self) -> None:
        """Checks the digest.

        Raises:
            EpochdError: DIGEST_MISMATCH, STORAGE_UNAVAILABLE.
        """
        with local_io():
            found = digest_of_file(self.path)
        if found != self.digest:
            metadata = {"name": dataset_name(self.digest), "sha256": found}
            raise EpochdError(Reason.DIGEST_MISMATCH, metadata=metadata)

    def give_back(self) -> None:
        """Lets the upload be completed once more: what kept it from becoming a dataset was no fault of its bytes."""
        with local_io():
            self.path.rename(self._before)

    def discard(self) -> None:
        """Deletes the file."""
        with local_io():
            self.path.unlink(missing_ok=True)


def _write_all(descriptor: int, offset: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        offset += written
        view = view[written:]
