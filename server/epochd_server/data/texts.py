"""Columns of text as numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_FEW = 4_096
"""Up to so many texts Python is about as fast as Arrow, which takes a while to be imported."""


def encode_texts(values: NDArray[np.generic]) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """The distinct texts of an array [N] of Python strings (dtype object), and each row's position among them.

    Returns:
        Texts in ascending order of their code points (dtype object), and int64 [N]; -1 where a text is None.
    """
    if len(values) <= _FEW:
        return _encode_few(values)
    # Imported here: most servers start without ever needing pyarrow.
    import pyarrow as pa

    return encode_arrow(pa.chunked_array([pa.array(values, pa.string())]))


def _encode_few(values: NDArray[np.generic]) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    given = values.tolist()
    distinct = sorted({text for text in given if text is not None})
    numbers = {None: -1, **{text: number for number, text in enumerate(distinct)}}
    texts: NDArray[np.generic] = np.empty(len(distinct), dtype=object)
    texts[:] = distinct
    return texts, np.fromiter(map(numbers.__getitem__, given), np.int64, len(given))


def encode_arrow(column: Any) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """As :func:`encode_texts`, of a pyarrow ChunkedArray of strings."""
    import pyarrow.compute as pc

    from epochd_server.data.arrow_types import to_numpy

    encoded = column.dictionary_encode().combine_chunks()
    # Arrow sorts by UTF-8 bytes, which is the order of the code points, and so Python's.
    order = pc.array_sort_indices(encoded.dictionary)
    texts: NDArray[np.generic] = np.empty(len(order), dtype=object)
    texts[:] = encoded.dictionary.take(order).to_pylist()
    ranks = np.empty(len(order) + 1, np.int64)
    ranks[to_numpy(order)] = np.arange(len(order))
    ranks[-1] = -1
    return texts, ranks[to_numpy(encoded.indices.fill_null(-1))]
