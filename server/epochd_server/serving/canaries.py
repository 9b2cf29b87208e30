"""Which rows of a request an alias's canary predicts: always the ones of the same keys.

A row's key is hashed to 64 bits and taken modulo 10,000; the canary has the keys below its share. What decides is
the request's routing key, else the row's key columns (fleets), else its features. The hash depends on the alias and
on these values alone: not on the types they were sent in, nor on the versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.canaries import HUNDREDTHS
from epochd_server.domain.commands import PredictCommand
from epochd_server.domain.data import Column, Table
from epochd_server.domain.models import VersionCard
from epochd_server.domain.predictions import Prediction

_Hashes = NDArray[np.uint64]


def canary_rows(command: PredictCommand, card: VersionCard, share: int) -> NDArray[np.bool_]:
    """Bool [n]: the rows that a canary with so many hundredths of a percent predicts.

    Args:
        command: A command that suits the alias's version.
        card: That version's.
        share: 1 to 9,999.
    """
    columns = _deciding_columns(command, card)
    hashes: _Hashes = np.full(len(columns[0]), _of_text(str(command.reference)))
    for column in columns:
        hashes = _mixed(hashes ^ _of_column(column))
    chosen = (hashes % np.uint64(HUNDREDTHS)) < np.uint64(share)
    return np.broadcast_to(chosen, _row_count(command))


def part_of(command: PredictCommand, chosen: NDArray[np.bool_]) -> PredictCommand:
    """The command for some of its rows, bool [n]."""
    rows = command.rows
    if isinstance(rows, Table):
        return replace(command, rows=_some_rows(rows, chosen))
    keys = None if command.keys is None else _some_rows(command.keys, chosen)
    return replace(command, rows=rows.reshape(len(chosen), -1)[chosen], keys=keys)


def merged(main: Prediction, canary: Prediction, chosen: NDArray[np.bool_]) -> Prediction:
    """The predictions of all rows out of those of two versions, of which the canary has the chosen ones, bool [n]."""
    return Prediction(
        version=main.version,
        values=_interleaved(main.values, canary.values, chosen),
        probabilities=_interleaved_if_any(main.probabilities, canary.probabilities, chosen),
        logits=_interleaved_if_any(main.logits, canary.logits, chosen),
        canary=canary.version,
        canary_rows=np.flatnonzero(chosen),
    )


def _row_count(command: PredictCommand) -> int:
    rows = command.rows
    if isinstance(rows, Table):
        return rows.rows
    return 1 if rows.ndim == 1 else len(rows)


def _deciding_columns(command: PredictCommand, card: VersionCard) -> list[NDArray[Any]]:
    """The columns whose values decide: [n] each, or [1] where one decides for all rows."""
    if command.routing_key is not None:
        return [np.array([command.routing_key], object)]
    if command.member is not None:
        return [np.array([value], object if isinstance(value, str) else None) for value in command.member]
    if card.key_columns:
        keys = command.rows if isinstance(command.rows, Table) else command.keys
        return _named(keys or Table(()), card.key_columns)
    if isinstance(command.rows, Table):
        columns = _named(command.rows, card.input_columns)
    else:
        columns = list(command.rows.reshape(_row_count(command), -1).T)
    # Features come as float32 from some clients, as float64 from others: what float32 tells apart decides.
    with np.errstate(over="ignore"):
        return [column.astype(np.float32) if column.dtype.kind in "biuf" else column for column in columns]


def _named(table: Table, names: Sequence[str]) -> list[NDArray[Any]]:
    values = {column.name: column.values for column in table.columns}
    return [values[name] for name in names]


def _some_rows(table: Table, chosen: NDArray[np.bool_]) -> Table:
    return Table(tuple(Column(column.name, column.values[chosen]) for column in table.columns))


def _of_column(column: NDArray[Any]) -> _Hashes:
    """Hashes of values: of texts by BLAKE2b, of numbers their bits as float64, of times their microseconds."""
    if column.dtype == object:
        texts = column.tolist()
        hashes = {text: _of_text(text or "") for text in set(texts)}  # a missing text is an empty one
        return np.array([hashes[text] for text in texts], np.uint64)
    if column.dtype.kind == "M":
        return column.astype("M8[us]").view(np.uint64)
    numbers = column.astype(np.float64) + 0.0  # one zero
    numbers[np.isnan(numbers)] = np.nan  # one NaN
    return numbers.view(np.uint64)


def _of_text(text: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))


def _mixed(hashes: _Hashes) -> _Hashes:
    """A bijection of 64 bits in which every bit of the input moves every bit of the output: SplitMix64's.

    Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    z = hashes + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _interleaved(main: NDArray[Any], canary: NDArray[Any], chosen: NDArray[np.bool_]) -> NDArray[Any]:
    both = np.empty((len(chosen), *main.shape[1:]), main.dtype)
    both[~chosen], both[chosen] = main, canary
    return both


def _interleaved_if_any(
    main: NDArray[Any] | None, canary: NDArray[Any] | None, chosen: NDArray[np.bool_]
) -> NDArray[Any] | None:
    return None if main is None or canary is None else _interleaved(main, canary, chosen)
