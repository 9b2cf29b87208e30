"""Arrow IPC files as they are mapped into memory: batches are looked at when their rows are asked for."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import ipc

from epochd_server.data.arrow_types import from_numpy, to_numpy
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.work import RowChoice

_LOOKED_AT = 8


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Rows that lie in one batch of the file.

    Attributes:
        batch: The batch.
        numbers: Which of its rows, ascending; None is all of them.
        places: Where among the rows that were asked for they belong.
    """

    batch: pa.RecordBatch
    numbers: NDArray[np.int64] | None
    places: slice | NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.batch) if self.numbers is None else len(self.numbers)

    def column(self, index: int) -> pa.Array:
        """The rows' values in a column."""
        column = self.batch.column(index)
        return column if self.numbers is None else column.take(from_numpy(self.numbers))

    def numeric(self, index: int) -> NDArray[np.generic]:
        """The rows' numbers in a column; missing ones are NaN."""
        column = self.batch.column(index)
        if self.numbers is None or column.null_count or pa.types.is_boolean(column.type):
            return to_numpy(self.column(index))
        return to_numpy(column)[self.numbers]


class ArrowFile:
    """A mapped file; what is read of it stays in the page cache, and is nobody's own memory.

    Args:
        path: The file.

    Raises:
        EpochdError: DATASET_NOT_FOUND where there is no such file, ARTIFACT_CORRUPT where it is no Arrow file.
    """

    def __init__(self, path: Path | str) -> None:
        try:
            with open(path, "rb") as file:
                self._mapping = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
            self._reader = ipc.open_file(pa.BufferReader(pa.py_buffer(self._mapping)))
            sizes = list(self._sizes())
        except FileNotFoundError:
            raise EpochdError(Reason.DATASET_NOT_FOUND) from None
        except (pa.ArrowException, ValueError):  # an empty file cannot be mapped
            raise EpochdError(Reason.ARTIFACT_CORRUPT) from None
        self.schema: pa.Schema = self._reader.schema
        self._ends = np.cumsum([0, *sizes])[1:]
        self.rows = sum(sizes)

    def _sizes(self) -> Iterator[int]:
        """Rows of each batch; a look at one may map megabytes around it."""
        for index in range(self._reader.num_record_batches):
            yield self._reader.get_batch(index).num_rows
            if index % _LOOKED_AT == _LOOKED_AT - 1:
                self.release()

    def pieces(self, rows: RowChoice) -> Iterator[Piece]:
        """Rows of the file, those of each batch together; ranges in the order of the file."""
        if isinstance(rows, np.ndarray):
            yield from self._picked(rows)
            return
        first, last = bounds(rows, self.rows)
        batch = int(np.searchsorted(self._ends, first, "right"))
        place = 0
        while first + place < last:
            end = int(self._ends[batch])
            found = self._reader.get_batch(batch)
            low, high = first + place - (end - len(found)), min(last, end) - (end - len(found))
            yield Piece(found.slice(low, high - low), None, slice(place, place + high - low))
            place += high - low
            # empty batches have the end of those before them
            batch = int(np.searchsorted(self._ends, end, "right"))

    def _picked(self, rows: NDArray[np.integer]) -> Iterator[Piece]:
        places = np.argsort(rows)
        numbers = rows[places].astype(np.int64)
        cuts = np.searchsorted(numbers, self._ends).tolist()
        first = 0
        for index, last in enumerate(cuts):
            if last > first:
                batch = self._reader.get_batch(index)
                begin = int(self._ends[index]) - len(batch)
                yield Piece(batch, numbers[first:last] - begin, places[first:last])
            first = last

    def release(self) -> None:
        """Lets go of the pages that were read, for as long as nobody reads them again."""
        self._mapping.madvise(mmap.MADV_DONTNEED)


def bounds(rows: slice | None, count: int) -> tuple[int, int]:
    """The first row of a range among ``count``, and the one after the last."""
    first, last, step = (rows or slice(None)).indices(count)
    if step != 1:
        raise ValueError("rows are chosen by ranges without steps")
    return first, max(first, last)
