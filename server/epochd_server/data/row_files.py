"""Rows of a training that do not fit memory: arrays in files without a name, which go with their process."""

from __future__ import annotations

import mmap
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.errors import EpochdError, Reason


class RowFile:
    """An array that is written some rows at a time, and mapped into memory once it is whole.

    Args:
        folder: Where the file is, without a name: on the disk that has the dataset, which has room for such files.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 — closed by close
        self._dtype: np.dtype[np.generic] = np.dtype(np.float64)
        self._width: tuple[int, ...] = ()
        self._rows = 0

    def add(self, rows: NDArray[np.generic]) -> None:
        """Writes rows [n, …]; all of them have the type and width of the first.

        Raises:
            EpochdError: STORAGE_UNAVAILABLE where the disk is full or fails.
        """
        self._dtype, self._width = rows.dtype, rows.shape[1:]
        self._rows += len(rows)
        try:
            self._file.write(np.ascontiguousarray(rows).data)
        except OSError as error:
            message = "The disk of the server's data folder has no room for the rows of this training."
            raise EpochdError(Reason.STORAGE_UNAVAILABLE, message) from error

    def map(self) -> NDArray[np.generic]:
        """All rows [N, …]; the kernel reads them from the file, and nobody may write to them.

        Raises:
            EpochdError: STORAGE_UNAVAILABLE where the disk is full or fails.
        """
        try:
            self._file.flush()
            mapping = mmap.mmap(self._file.fileno(), 0)
        except OSError as error:
            raise EpochdError(Reason.STORAGE_UNAVAILABLE) from error
        return np.frombuffer(mapping, self._dtype).reshape(self._rows, *self._width)

    def close(self) -> None:
        """Closes the file; what is mapped stays."""
        self._file.close()
