"""How results are shown: tables and colours on a terminal, plain columns in a pipe, JSON on request."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table for people."""

    title: str
    """Its heading."""

    cell: Callable[[Any], str | Text]
    """The text for a row, styled or not."""

    style: str = ""
    """Rich style of its cells."""

    right: bool = False
    """Whether its cells end at the right."""

    whole: bool = False
    """Whether its cells are never cut, however narrow the terminal."""


class Output:
    """Where results go.

    Args:
        as_json: Whether results are JSON.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(highlight=False)
        self.errors = Console(stderr=True, highlight=False)

    @property
    def is_terminal(self) -> bool:
        """Whether a person is looking at colours and tables."""
        return self.console.is_terminal and not self.as_json

    def line(self, text: str) -> None:
        """Writes a line as it is, at once."""
        print(text, flush=True)

    def note(self, text: str) -> None:
        """Says something on standard error, which is no part of the result."""
        self.errors.print(text, style="dim", markup=False, soft_wrap=True)

    def json(self, value: Any) -> None:
        """Writes a value as one line of JSON."""
        self.line(json.dumps(plain(value), ensure_ascii=False, allow_nan=False))

    def rows(self, columns: Sequence[Column], rows: Sequence[Any], *, empty: str) -> None:
        """Shows rows as a table; as JSON, a list of them.

        Args:
            columns: What people see.
            rows: Anything that the columns' cells and :func:`plain` understand.
            empty: What is said on a terminal where there are none.
        """
        if self.as_json:
            self.json(list(rows))
        elif not self.is_terminal:
            for line in _aligned(columns, rows):
                self.line(line)
        elif rows:
            self.console.print(_table(columns, rows))
        else:
            self.note(empty)

    def record(self, value: Any, fields: Mapping[str, str]) -> None:
        """Shows one thing: its fields to people; as JSON, ``value``."""
        if self.as_json:
            self.json(value)
            return
        width = max(map(len, fields), default=0)
        for name, text in fields.items():
            padding = " " * (width - len(name) + 2)
            self.text(Text.assemble((name, "cyan"), padding, text.replace("\n", "\n" + " " * (width + 2))))

    def text(self, text: Text) -> None:
        """Writes styled text; never cut or wrapped in a pipe."""
        if self.console.is_terminal:
            self.console.print(text)
        else:
            self.line(text.plain)


def plain(value: Any) -> Any:
    """A value as JSON has it: arrays as lists, times as RFC 3339, NaN and infinities as text (as protobuf does)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(shortest(np.asarray(value)).tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def shortest(array: NDArray[Any]) -> NDArray[Any]:
    """The array whose numbers print as short as their own type allows: 3.1844087 of float32, not 3.184408664703369."""
    narrow = array.dtype.kind == "f" and array.dtype.itemsize < np.dtype(np.float64).itemsize
    return array.astype(np.str_).astype(np.float64) if narrow else array


def ago(time: datetime | None) -> str:
    """How long ago something was, roughly; empty where there is no time."""
    if time is None:
        return ""
    return f"{duration(max(0.0, (datetime.now(UTC) - time).total_seconds()))} ago"


def duration(seconds: float) -> str:
    """A time span, such as ``0.21 s``, ``3 min 12 s`` or ``2 h 5 min``."""
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    for unit, size, smaller, part in (
        ("d", 86_400, "h", 3_600),
        ("h", 3_600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit} {rest} {smaller}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def _table(columns: Sequence[Column], rows: Sequence[Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        justify: Literal["right", "left"] = "right" if column.right else "left"
        table.add_column(column.title, style=column.style, justify=justify, no_wrap=column.whole)
    for row in rows:
        table.add_row(*(_text(column.cell(row)) for column in columns))
    return table


def _aligned(columns: Sequence[Column], rows: Sequence[Any]) -> list[str]:
    cells = [[column.title for column in columns]]
    cells += [[_text(column.cell(row)).plain for column in columns] for row in rows]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    pads: list[Callable[[str, int], str]] = [str.rjust if column.right else str.ljust for column in columns]
    return [
        "  ".join(pad(text, width) for pad, text, width in zip(pads, row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _text(cell: str | Text) -> Text:
    return cell if isinstance(cell, Text) else Text(cell)


def is_tty_input() -> bool:
    """Whether standard input is a terminal, so that reading it would wait for somebody to type."""
    return sys.stdin is None or sys.stdin.isatty()
