"""Descriptions and first rows of stored datasets, in the memory of some thousand rows.

Means and deviations are merged as Chan, Golub and LeVeque have it ("Updating formulae and a pairwise algorithm for
computing sample variances", 1979). Distinct values are counted by the k smallest of their hashes (Bar-Yossef et al.,
"Counting distinct elements in a data stream", 2002): exactly up to k, else within about 1/sqrt(k).

Legend: n rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import ipc

from epochd_server.data.arrow_types import kind_of, to_numpy
from epochd_server.data.preprocessing.hashing import murmur3
from epochd_server.data.texts import encode_arrow
from epochd_server.domain.data import Column, ColumnKind, Table
from epochd_server.domain.descriptions import ColumnDescription
from epochd_server.domain.errors import EpochdError, Reason

SKETCH = 32_768
_ROWS = 65_536
_SPAN = 2.0**64
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)

Hashes = NDArray[np.uint64]


def describe(path: Path) -> tuple[ColumnDescription, ...]:
    """The columns of a stored dataset.

    Raises:
        EpochdError: DATASET_NOT_FOUND or ARTIFACT_CORRUPT.
    """
    summaries: list[_Summary] = []
    for batch in _chunks(path):
        if not summaries:
            summaries = [_Summary(field.name, kind_of(field.type)) for field in batch.schema]
        for summary, column in zip(summaries, batch.columns, strict=True):
            summary.add(column)
    return tuple(summary.description() for summary in summaries)


def first_rows(path: Path, count: int) -> Table:
    """The first rows of a stored dataset, at most ``count`` ≥ 1 of them.

    Raises:
        EpochdError: DATASET_NOT_FOUND or ARTIFACT_CORRUPT.
    """
    found: list[pa.RecordBatch] = []
    left = count
    for batch in _chunks(path):
        found.append(batch.slice(0, left))
        left -= len(found[-1])
        if not left:
            break
    table = pa.Table.from_batches(found).combine_chunks()
    return Table(tuple(_column(name, table.column(name).combine_chunks()) for name in table.column_names))


@dataclass(slots=True, eq=False)
class _Summary:
    name: str
    kind: ColumnKind
    missing: int = 0
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float | None = None
    high: float | None = None
    hashes: Hashes = field(default_factory=lambda: np.empty(0, np.uint64))

    def add(self, column: pa.Array) -> None:
        """Takes a chunk's values into account."""
        if self.kind is ColumnKind.TEXT:
            texts, codes = encode_arrow(pa.chunked_array([column]))
            self.missing += int(np.count_nonzero(codes < 0))
            self._hash(_text_hashes([str(text).encode() for text in texts.tolist()]))
            return
        self.missing += column.null_count
        values = to_numpy(column.drop_null())
        if self.kind is ColumnKind.TIMESTAMP:
            self._add_times(values.view(np.int64))
        else:
            self._add_numbers(values)

    def description(self) -> ColumnDescription:
        """What the values were."""
        exact = len(self.hashes) < SKETCH
        distinct = len(self.hashes) if exact else round((SKETCH - 1) / (float(self.hashes[-1]) / _SPAN))
        known = ColumnDescription(
            name=self.name,
            kind=self.kind,
            missing=self.missing,
            distinct=distinct,
            distinct_is_estimate=not exact,
        )
        if self.low is None or self.high is None:
            return known
        if self.kind is ColumnKind.TIMESTAMP:
            return replace(known, earliest=int(self.low), latest=int(self.high))
        deviation = float(np.sqrt(self.squares / self.count))
        return replace(known, min=self.low, max=self.high, mean=self.mean, std=deviation)

    def _add_times(self, micros: NDArray[np.int64]) -> None:
        if len(micros):
            low, high = int(micros.min()), int(micros.max())
            self.low = low if self.low is None else min(self.low, low)
            self.high = high if self.high is None else max(self.high, high)
        self._hash(_mixed(micros.view(np.uint64)))

    def _add_numbers(self, values: NDArray[np.generic]) -> None:
        numbers = values.astype(np.float64)
        found = numbers[~np.isnan(numbers)]
        self.missing += len(numbers) - len(found)
        # 64-bit integers beyond 2^53 are told apart though their float64 is the same; 0.0 and -0.0 are not.
        exact = values.astype(np.int64) if values.dtype.kind in "iub" else found + 0.0
        self._hash(_mixed(exact.view(np.uint64)))
        if not len(found):
            return
        low, high = float(found.min()), float(found.max())
        self.low = low if self.low is None else min(self.low, low)
        self.high = high if self.high is None else max(self.high, high)
        with np.errstate(invalid="ignore", over="ignore"):
            self._merge(len(found), float(found.mean()), found)

    def _merge(self, count: int, mean: float, values: NDArray[np.float64]) -> None:
        total, delta = self.count + count, mean - self.mean
        self.squares += float(((values - mean) ** 2).sum()) + delta * delta * self.count * count / total
        self.mean += delta * count / total
        self.count = total

    def _hash(self, hashes: Hashes) -> None:
        if len(self.hashes) == SKETCH:
            hashes = hashes[hashes < self.hashes[-1]]
        self.hashes = np.union1d(self.hashes, hashes)[:SKETCH]


def _chunks(path: Path) -> Iterator[pa.RecordBatch]:
    """A file's rows, at most some thousand at a time; what was read of them may be forgotten."""
    try:
        with pa.memory_map(str(path)) as source:
            reader = ipc.open_file(source)
            for index in range(reader.num_record_batches):
                batch = reader.get_batch(index)
                yield from (batch.slice(start, _ROWS) for start in range(0, len(batch), _ROWS))
    except FileNotFoundError:
        raise EpochdError(Reason.DATASET_NOT_FOUND) from None
    except pa.ArrowException:
        raise EpochdError(Reason.ARTIFACT_CORRUPT) from None


def _column(name: str, array: pa.Array) -> Column:
    if kind_of(array.type) is not ColumnKind.TEXT:
        return Column(name, to_numpy(array))
    texts: NDArray[np.generic] = np.empty(len(array), dtype=object)
    texts[:] = array.to_pylist()
    return Column(name, texts)


def _text_hashes(texts: list[bytes]) -> Hashes:
    high, low = (murmur3(texts, seed).view(np.uint32).astype(np.uint64) for seed in (0, 1))
    return _mixed(high << np.uint64(32) | low)


def _mixed(bits: Hashes) -> Hashes:
    """The output function of SplitMix64: a permutation whose bits are all alike (Steele, Lea, Flood, 2014)."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX_1
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX_2
    return bits ^ (bits >> np.uint64(31))
