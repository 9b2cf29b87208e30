"""CSV in and out, by the standard library: a header line, numbers and text."""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO, TypeAlias

import numpy as np
import typer
from numpy.typing import NDArray

Column: TypeAlias = NDArray[np.int64] | NDArray[np.float64] | list[str]
Table: TypeAlias = dict[str, Column]

STDIN = "-"
"""The file name that stands for standard input."""

_INT64_DIGITS = 18


def read(path: str) -> Table:
    """Reads a CSV file into columns.

    A column of whole numbers becomes int64; one of numbers and empty cells float64, with NaN for the empty ones;
    any other one text.

    Args:
        path: The file, UTF-8 with or without a byte-order mark; ``-`` for standard input.

    Raises:
        typer.BadParameter: The file cannot be read or is no table; says which line is wrong.
    """
    try:
        if path == STDIN:
            return parse(io.StringIO(sys.stdin.read().removeprefix("\ufeff")), "standard input")
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            return parse(file, path)
    except OSError as error:
        raise typer.BadParameter(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise typer.BadParameter(
            f"{path} is not UTF-8: byte {error.start:,} is {error.object[error.start]:#04x}"
        ) from None


def parse(file: TextIO, name: str) -> Table:
    """Reads columns from an open file; ``name`` is for messages."""
    rows = csv.reader(file, strict=True)
    try:
        header = [cell.strip() for cell in next(rows, [])]
        _check_header(header, name)
        cells = list(_rows(rows, len(header), name))
    except csv.Error as error:
        raise typer.BadParameter(f"{name}, line {rows.line_num}: {error}") from None
    if not cells:
        raise typer.BadParameter(f"{name} has a header but no rows")
    return {column: _typed(values) for column, values in zip(header, zip(*cells, strict=True), strict=True)}


def select(table: Table, columns: Iterable[str], name: str) -> Table:
    """The table without its other columns; a column that is not there is left to the server to name."""
    return {column: table[column] for column in columns if column in table}


def write(file: TextIO, columns: Mapping[str, Sequence[object]]) -> None:
    """Writes columns of one length as CSV with a header line."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))


def _check_header(header: list[str], name: str) -> None:
    if not header:
        raise typer.BadParameter(f"{name} is empty; the first line must name the columns")
    if "" in header:
        raise typer.BadParameter(f"{name}: column {header.index('') + 1} has no name")
    if repeated := sorted({column for column in header if header.count(column) > 1}):
        raise typer.BadParameter(f"{name} has more than one column {', '.join(repeated)}")
    if all(_number(column) is not None for column in header):
        raise typer.BadParameter(f"{name} has no header: its first line holds only numbers")


def _rows(rows: Iterator[list[str]], width: int, name: str) -> Iterator[list[str]]:
    for line, row in enumerate(rows, start=2):
        if not row:
            continue  # a blank line
        if len(row) != width:
            raise typer.BadParameter(
                f"{name}, line {line}: {len(row)} cells, but the header names {width} columns"
            )
        yield row


def _typed(values: Sequence[str]) -> Column:
    cells = [value.strip() for value in values]
    if all(_is_integer(cell) for cell in cells):
        return np.array([int(cell) for cell in cells], dtype=np.int64)
    numbers = [_number(cell) if cell else math.nan for cell in cells]
    if all(number is not None for number in numbers) and any(cells):
        return np.array(numbers, dtype=np.float64)
    return cells


def _is_integer(cell: str) -> bool:
    digits = cell.removeprefix("-").removeprefix("+")
    return digits.isascii() and digits.isdecimal() and len(digits) <= _INT64_DIGITS


def _number(cell: str) -> float | None:
    """The number that a cell holds; Python's digit groups (``1_000``) are text."""
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None
