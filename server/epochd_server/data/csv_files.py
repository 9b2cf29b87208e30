"""CSV files in UTF-8 with a header line.

A column's type is found from all of its values in a first pass: true/false, else integers, else numbers, else text.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from epochd_server.data.storing import check_names, malformed

_BLOCK = 2**20
_LADDER = (pa.bool_(), pa.int64(), pa.float64(), pa.string())
_TRUE, _FALSE = ["true", "True", "TRUE"], ["false", "False", "FALSE"]


def read_csv(source: Path, max_bytes: int) -> Iterator[pa.RecordBatch]:
    """The rows of a CSV file, about 1 MiB at a time.

    Raises:
        InvalidInput: A row has too few or too many values, a column has no unique name.
    """
    del max_bytes  # a block expands to a few times its size at most
    _check_encoding(source)
    names = _read_names(source)
    types = _find_types(source, names)
    yield from _blocks(source, dict(zip(names, types, strict=True)))


def _check_encoding(source: Path) -> None:
    """Makes sure that a file is UTF-8: the reader that follows tells nobody where it is not.

    Raises:
        InvalidInput: Naming the line and the byte in it.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines, begun = 1, 0  # of what was read before: its lines, and bytes of the last one
    with source.open("rb") as file:
        while True:
            block = file.read(_BLOCK)
            held = decoder.getstate()[0]
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                before = (held + block)[: error.start]
                line = lines + before.count(b"\n")
                place = len(before) - before.rfind(b"\n") + (begun - len(held)) * (b"\n" not in before)
                byte = (held + block)[error.start]
                raise malformed(f"line {line} is not UTF-8: byte {place} of it is {byte:#04x}") from None
            if not block:
                return
            lines += block.count(b"\n")
            begun = len(block) - block.rfind(b"\n") - 1 if b"\n" in block else begun + len(block)


def _read_names(source: Path) -> list[str]:
    with _opened(source, csv.ConvertOptions()) as reader:
        names: list[str] = reader.schema.names
    check_names(names)
    return names


def _find_types(source: Path, names: list[str]) -> list[pa.DataType]:
    rungs = [0] * len(names)
    for batch in _blocks(source, dict.fromkeys(names, pa.string()), strings_can_be_null=True):
        rungs = [_climb(column, rung) for column, rung in zip(batch.columns, rungs, strict=True)]
    return [_LADDER[rung] for rung in rungs]


def _climb(texts: pa.Array, rung: int) -> int:
    """The first rung of the ladder, from ``rung`` on, that all values can stand on."""
    trimmed = pc.utf8_trim_whitespace(texts.drop_null())
    while rung < len(_LADDER) - 1 and not _fits(trimmed, _LADDER[rung]):
        rung += 1
    return rung


def _fits(texts: pa.Array, type_: pa.DataType) -> bool:
    if type_ == pa.bool_():
        # A column without any value is no column of truth values, but of numbers that are missing.
        known = pc.is_in(texts, value_set=pa.array(_TRUE + _FALSE))
        return bool(len(texts)) and bool(pc.all(known).as_py())
    try:
        texts.cast(type_)
    except pa.ArrowInvalid:
        return False
    return True


def _blocks(
    source: Path, types: dict[str, pa.DataType], *, strings_can_be_null: bool = False
) -> Iterator[pa.RecordBatch]:
    options = csv.ConvertOptions(
        column_types=types,
        strings_can_be_null=strings_can_be_null,
        true_values=_TRUE,
        false_values=_FALSE,
    )
    with _opened(source, options) as reader:
        yield from reader


@contextmanager
def _opened(source: Path, options: csv.ConvertOptions) -> Iterator[csv.CSVStreamingReader]:
    """A reader of the file; a row of the wrong length is named instead of quoted."""
    wrong: list[csv.InvalidRow] = []

    def keep(row: csv.InvalidRow) -> str:
        wrong.append(row)
        return "error"

    # Row numbers are known only without threads.
    reading = csv.ReadOptions(block_size=_BLOCK, use_threads=False)
    parsing = csv.ParseOptions(newlines_in_values=True, invalid_row_handler=keep)
    try:
        reader = csv.open_csv(source, read_options=reading, parse_options=parsing, convert_options=options)
        with closing(reader):
            yield reader
    except pa.ArrowInvalid:
        if not wrong:
            raise
        raise malformed(_wrong_row(wrong[0])) from None


def _wrong_row(row: csv.InvalidRow) -> str:
    return (
        f"row {row.number}, where the header is row 1, has {row.actual_columns} values, "
        f"but the header has {row.expected_columns} names"
    )
