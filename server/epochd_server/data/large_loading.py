"""Datasets too large for memory, as the arrays of a training: made piece by piece, and kept in files that are mapped.

The arrays are those that the training would have in memory: whatever trains them takes its rows from the disk, and ends
in the same bits.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.arrays import ArrayReader, Arrays
from epochd_server.data.columns import PartedColumns
from epochd_server.data.drawing import drawn_rows
from epochd_server.data.row_files import RowFile
from epochd_server.domain.large_tables import RowSize
from epochd_server.domain.work import DatasetFile


def write_rows(
    file: DatasetFile, columns: PartedColumns, reader: ArrayReader
) -> tuple[Arrays, Arrays | None]:
    """The rows that are trained on, in mapped files beside the dataset, and those that are held out, in memory.

    Args:
        file: What planning found out about the dataset.
        columns: Its rows.
        reader: Makes arrays of them.

    Raises:
        EpochdError: STORAGE_UNAVAILABLE where the disk is full or fails.
        InvalidInput: The rows do not fit the plan.
    """
    held_out: list[Arrays] = []
    with closing(_Rows(Path(file.path).parent)) as trained:
        for first, part in columns.parts(_piece_rows(file, reader)):
            arrays = reader.read(part)
            if file.drawn is not None:
                held = drawn_rows(file.drawn, part, reader.selection.targets[0], first)
                held_out.append(arrays.part(held))
                arrays = arrays.part(~held)
            trained.add(arrays)
        return trained.map(), _joined(held_out) if held_out else None


def _piece_rows(file: DatasetFile, reader: ArrayReader) -> int:
    if file.drawn is not None:
        return file.drawn.piece_rows
    selection = reader.selection
    features = len(selection.features) if file.preprocess is None else len(file.preprocess.outputs)
    weighted = selection.weight is not None
    return RowSize.of(
        features, len(selection.targets), np.dtype(np.float64).itemsize, weighted=weighted
    ).piece_rows


class _Rows:
    """Files for features, targets and, where rows have them, weights."""

    def __init__(self, folder: Path) -> None:
        self._features, self._targets, self._weights = (RowFile(folder) for _ in range(3))
        self._is_weighted = False

    def add(self, arrays: Arrays) -> None:
        self._features.add(arrays.features)
        self._targets.add(arrays.targets)
        if arrays.weights is not None:
            self._is_weighted = True
            self._weights.add(arrays.weights)

    def map(self) -> Arrays:
        weights = self._weights.map() if self._is_weighted else None
        return Arrays(
            cast("NDArray[np.floating]", self._features.map()),
            self._targets.map(),
            cast("NDArray[np.floating] | None", weights),
        )

    def close(self) -> None:
        for file in (self._features, self._targets, self._weights):
            file.close()


def _joined(parts: list[Arrays]) -> Arrays:
    weights = [part.weights for part in parts if part.weights is not None]
    return Arrays(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.targets for part in parts]),
        np.concatenate(weights) if weights else None,
    )
