"""Batches of members whose rows are large: windows of rows are read one after the other, shuffled, cut into batches.

An epoch permutes the chunks of the rows, 128 KiB of neighbours each; so many chunks as make 32 MiB are a window, whose
rows are permuted in turn. A window thus is a sample of some 256 places all over the rows, and only one is in memory.
Which rows make a batch follows from the seed, the epoch and the member's own rows; docs/gradient-descent.md says how
well they are mixed.

Legend: n rows of a member, d features, t targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from epochd_server.engine.arrays import release
from epochd_server.engine.class_weights import classes_of, scaled
from epochd_server.engine.rows import Rows
from epochd_server.engine.shuffling import derived_seed, epoch_permutation
from epochd_server.engine.task import CohortTask, Floats

CHUNK_BYTES = 128 * 2**10
WINDOW_BYTES = 32 * 2**20
WHOLE_ROWS = 8_192
"""Rows of a full batch whose gradient is computed at once."""
_RELEASED_CHUNKS = 8
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some rows of a member: features [m, d], targets [m, t] or [m], weights [m] or None."""

    features: Floats
    targets: NDArray[np.generic]
    weights: Floats | None

    def __len__(self) -> int:
        return len(self.features)

    def part(self, rows: slice | NDArray[np.int64]) -> Batch:
        """Some of the rows."""
        weights = None if self.weights is None else self.weights[rows]
        return Batch(self.features[rows], self.targets[rows], weights)


@dataclass(frozen=True, slots=True, eq=False)
class _Window:
    """Rows that are in memory, and the order in which those that are wanted are taken; None is all as they are."""

    rows: Batch
    order: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.rows if self.order is None else self.order)

    def part(self, rows: slice) -> Batch:
        return self.rows.part(rows if self.order is None else self.order[rows])


def window_order(
    seed: int, epoch: int, rows: int, row_bytes: int
) -> Iterator[tuple[list[slice], NDArray[np.int64]]]:
    """The windows of an epoch.

    Args:
        seed: The training's.
        epoch: Counted from 0.
        rows: n.
        row_bytes: What features, targets and weight of a row take.

    Yields:
        The chunks of a window, as ranges of rows, and the order of their rows once they are one after the other.
    """
    chunk = max(CHUNK_BYTES // row_bytes, 1)
    count = max(WINDOW_BYTES // (chunk * row_bytes), 1)
    chunks = epoch_permutation(derived_seed(seed, "chunks", epoch), 0, -(-rows // chunk)).tolist()
    within = derived_seed(seed, "windows", epoch)
    for number, first in enumerate(range(0, len(chunks), count)):
        window = [slice(one * chunk, min((one + 1) * chunk, rows)) for one in chunks[first : first + count]]
        size = sum(one.stop - one.start for one in window)
        yield window, epoch_permutation(within, number, size)


class LargeRows:
    """The rows of one large member.

    Args:
        task: The whole cohort.
        rows: Its rows.
        member: Which member.
    """

    def __init__(self, task: CohortTask, rows: Rows, member: int) -> None:
        piece = slice(int(rows.starts[member]), int(rows.starts[member] + rows.counts[member]))
        weights = None if rows.weights is None else rows.weights[piece]
        self._task, self._scales = task, rows.class_scales
        self._place = member if rows.class_scales is not None and len(rows.class_scales) > 1 else 0
        self._all = Batch(rows.features[piece], rows.targets[piece], weights)
        self._seed = int(task.seeds[member])
        self._row_bytes = sum(array.itemsize * array[0].size for array in self._arrays()) if len(self) else 1

    def __len__(self) -> int:
        return len(self._all)

    def batches(self, epoch: int, size: int, first: int = 0) -> Iterator[Batch]:
        """The mini-batches of an epoch from the ``first`` on, of ``size`` rows but for the last one."""
        skipped = first * size
        windows = self._shuffled(epoch, skipped) if self._task.shuffle else self._in_order(skipped)
        yield from map(self._weighted, _cut(windows, size))

    def pieces(self, first: int = 0) -> Iterator[Batch]:
        """All rows in their order, :data:`WHOLE_ROWS` at a time, from the ``first`` such piece on."""
        yield from map(self._weighted, _cut(self._in_order(first * WHOLE_ROWS), WHOLE_ROWS))

    def _shuffled(self, epoch: int, skipped: int) -> Iterator[_Window]:
        """The windows of an epoch without the rows that come first; what is not taken is not read."""
        rows = self._all
        for window, order in window_order(self._seed, epoch, len(rows), self._row_bytes):
            if skipped >= len(order):
                skipped -= len(order)
                continue
            weights = None if rows.weights is None else _gathered(rows.weights, window)
            gathered = Batch(_gathered(rows.features, window), _gathered(rows.targets, window), weights)
            yield _Window(gathered, order[skipped:])
            skipped = 0

    def _in_order(self, skipped: int) -> Iterator[_Window]:
        step = max(WINDOW_BYTES // self._row_bytes, 1)
        for begin in range(skipped // step * step, len(self), step):
            yield _Window(self._all.part(slice(max(begin, skipped), begin + step)), None)
            for array in self._arrays():
                release(array)

    def _weighted(self, batch: Batch) -> Batch:
        """The batch with the weights of its rows' classes."""
        if self._scales is None:
            return batch
        classes = classes_of(self._task.loss, batch.targets)
        weights = scaled(self._scales, self._place, classes, batch.weights, self._task.dtype)
        return Batch(batch.features, batch.targets, weights)

    def _arrays(self) -> list[NDArray[np.generic]]:
        rows = self._all
        return (
            [rows.features, rows.targets]
            if rows.weights is None
            else [rows.features, rows.targets, rows.weights]
        )


def _gathered(array: NDArray[Number], window: Sequence[slice]) -> NDArray[Number]:
    """The rows of some ranges, one after the other, in memory of their own."""
    size = sum(rows.stop - rows.start for rows in window)
    found = np.empty((size, *array.shape[1:]), array.dtype)
    place = 0
    for number, rows in enumerate(window):
        found[place : place + rows.stop - rows.start] = array[rows]
        place += rows.stop - rows.start
        if number % _RELEASED_CHUNKS == 0:  # a chunk may bring some megabytes of the file along
            release(array)
    release(array)
    return found


def _cut(windows: Iterator[_Window], size: int) -> Iterator[Batch]:
    """The rows of windows in batches of ``size``; one may be of several windows."""
    begun: list[Batch] = []
    missing = size
    for window in windows:
        first = 0
        while len(window) - first >= missing:
            begun.append(window.part(slice(first, first + missing)))
            yield _joined(begun)
            first, begun, missing = first + missing, [], size
        if first < len(window):
            begun.append(window.part(slice(first, len(window))))
            missing -= len(window) - first
        del window  # before the next one is read: both need not fit
    if begun:
        yield _joined(begun)


def _joined(parts: Sequence[Batch]) -> Batch:
    if len(parts) == 1:
        return parts[0]
    weights = [part.weights for part in parts if part.weights is not None]
    return Batch(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.targets for part in parts]),
        np.concatenate(weights) if weights else None,
    )
