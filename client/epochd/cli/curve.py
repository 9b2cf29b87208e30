"""A loss curve in characters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

_BARS = "▁▂▃▄▅▆▇█"
_BRAILLE = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # bits of a cell, by row and column
_LOG_SPAN = 20.0


class Trace:
    """Points of a curve in bounded memory: past ``limit`` of them, every other one is dropped.

    Args:
        limit: Most points kept, even.
    """

    def __init__(self, limit: int = 1024) -> None:
        self._limit = limit
        self._stride = 1
        self._seen = 0
        self._points: list[tuple[float, float]] = []
        self._last: tuple[float, float] | None = None

    def add(self, x: float, y: float) -> None:
        """Adds a point; not-finite ones are passed over."""
        if not math.isfinite(y):
            return
        self._last = (x, y)
        if self._seen % self._stride == 0:
            self._points.append(self._last)
        self._seen += 1
        if len(self._points) >= self._limit:
            del self._points[1::2]
            self._stride *= 2

    @property
    def points(self) -> list[tuple[float, float]]:
        """The points kept, the first and the last one among them."""
        ends_with_last = not self._points or self._points[-1] == self._last
        return self._points if ends_with_last or self._last is None else [*self._points, self._last]


def is_log(values: Sequence[float]) -> bool:
    """Whether values are better shown on a logarithmic scale: all positive and spread over more than 20 to 1."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > _LOG_SPAN


def sparkline(values: Sequence[float], width: int) -> str:
    """One line of bars, at most ``width`` wide; on a logarithmic scale where :func:`is_log` says so."""
    if not values or width < 1:
        return ""
    shown = _scaled(
        [values[index * len(values) // min(width, len(values))] for index in range(min(width, len(values)))]
    )
    low, high = min(shown), max(shown)
    return "".join(_BARS[_position(value, low, high, len(_BARS))] for value in shown)


def plot(points: Sequence[tuple[float, float]], width: int, height: int) -> list[str]:
    """A curve in Braille dots, two by four to a character, with the ends of both axes written beside it.

    Args:
        points: (x, y), at least one, x ascending.
        width: Characters in a line, the axis included; at least 24.
        height: Lines of the curve, at least 2; one more line says what x is.
    """
    ys = _scaled([y for _, y in points])
    labels = [f"{max(y for _, y in points):.4g}", f"{min(y for _, y in points):.4g}"]
    margin = max(map(len, labels))
    columns = width - margin - 2
    cells = [[0] * columns for _ in range(height)]
    for x, y in _line(_pixels([x for x, _ in points], ys, 2 * columns, 4 * height)):
        cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
    gutter = [f"{labels[0]:>{margin}} ┤", *[" " * margin + " │"] * (height - 2), f"{labels[1]:>{margin}} ┤"]
    lines = [
        label + "".join(chr(_BRAILLE + cell) for cell in row)
        for label, row in zip(gutter, cells, strict=True)
    ]
    first, last = f"{points[0][0]:,.0f}", f"{points[-1][0]:,.0f}"
    return [*lines, " " * (margin + 2) + first + last.rjust(columns - len(first))]


def _scaled(values: Sequence[float]) -> list[float]:
    return [math.log(value) for value in values] if is_log(values) else list(values)


def _position(value: float, low: float, high: float, steps: int) -> int:
    share = (value - low) / (high - low) if high > low else 0.0
    return min(steps - 1, int(share * steps))


def _pixels(xs: Sequence[float], ys: Sequence[float], width: int, height: int) -> Iterator[tuple[int, int]]:
    """Where points fall on a grid whose y runs downwards."""
    low_x, high_x, low_y, high_y = xs[0], xs[-1], min(ys), max(ys)
    for x, y in zip(xs, ys, strict=True):
        yield _position(x, low_x, high_x, width), height - 1 - _position(y, low_y, high_y, height)


def _line(pixels: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The pixels, and those between neighbours."""
    previous: tuple[int, int] | None = None
    for x, y in pixels:
        from_x, from_y = previous or (x, y)
        steps = max(abs(x - from_x), abs(y - from_y), 1)
        for step in range(1, steps + 1):
            yield from_x + (x - from_x) * step // steps, from_y + (y - from_y) * step // steps
        previous = (x, y)
