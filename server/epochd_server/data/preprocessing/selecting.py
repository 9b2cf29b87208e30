"""Statistics of values that do not fit memory: read some at a time, as often as needed, and exact.

Order statistics are found digit by digit: numbers are read as integers of the same order, of which four passes count 16
bits each (a radix selection). No more is kept than the counts.

Legend: n values, R ranks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from epochd_server.data.preprocessing.blocks import StepProblem

Floats = NDArray[np.float64]
Keys = NDArray[np.uint64]
Weighted = tuple[Floats, Floats | None]
"""Values [m], and how much each counts [m], > 0; None where all count alike."""
Values = Callable[[], Iterator[Weighted]]
"""Begins to read the values from the beginning; some at a time."""

_MOST_DISTINCT = 1_000_000
_SIGN = np.uint64(1 << 63)
_DIGIT_BITS = 16


class StreamedValues:
    """A column's values as one member's; those that are missing or infinite are left out.

    Implements :class:`~epochd_server.data.preprocessing.grouped.Statistics`.

    Args:
        values: The column, any number of times.
    """

    def __init__(self, values: Values) -> None:
        self._values = values
        self._count: int | None = None
        self._total: float | None = None

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many there are, [1]."""
        if self._count is None:
            self._count = sum(len(part) for part in self._finite())
        return np.array([self._count])

    @property
    def totals(self) -> NDArray[np.number]:
        """The sum of the values' weights, [1]; the count where all count alike."""
        if self._total is None:
            self._total = math.fsum(
                len(part) if weights is None else float(weights.sum()) for part, weights in self._weighted()
            )
        return np.array([self._total])

    def means(self) -> Floats:
        """[1]; 0 where there are none."""
        return np.array(
            [math.fsum(_sum(part, weights) for part, weights in self._weighted()) / self._divisor()]
        )

    def variances(self, means: Floats) -> Floats:
        """The mean squared deviation [1] from ``means``; 0 where there are no values."""
        squares, rests = [], []
        for part, weights in self._weighted():
            deviations = part - means[0]
            squares.append(_sum(deviations * deviations, weights))
            rests.append(_sum(deviations, weights))
        # The second term takes out what rounding of the mean left (Chan, Golub and LeVeque, 1983).
        rest = math.fsum(rests) / self._divisor()
        return np.array([max(math.fsum(squares) / self._divisor() - rest * rest, 0.0)])

    def extremes(self) -> tuple[Floats, Floats]:
        """The smallest and the largest value, [1] each; 0 and 0 where there are none."""
        ends = [(float(part.min()), float(part.max())) for part in self._finite() if len(part)]
        if not ends:
            return np.zeros(1), np.zeros(1)
        return np.array([min(low for low, _ in ends)]), np.array([max(high for _, high in ends)])

    def medians(self) -> Floats:
        """[1]; NaN where there are no values."""
        count = int(self.counts[0])
        if not count:
            return np.full(1, np.nan)
        below, above = self.ranked([(count - 1) // 2, count // 2])
        return np.array([(below + above) / 2])

    def most_frequent(self) -> Floats:
        """The smallest of the most frequent values, [1].

        Raises:
            StepProblem: There are too many distinct ones to count.
        """
        counted: Counter[float] = Counter()
        for part in self._finite():
            distinct, counts = np.unique(part, return_counts=True)
            counted.update(dict(zip(distinct.tolist(), counts.tolist(), strict=True)))
            if len(counted) > _MOST_DISTINCT:
                raise StepProblem(f"has more than {_MOST_DISTINCT:,} distinct values, too many to be counted")
        most = max(counted.values())
        return np.array([min(value for value, count in counted.items() if count == most)])

    def quantiles(self, shares: Floats) -> Floats:
        """Quantiles [R] by linear interpolation, as ``np.quantile`` has them; there is a value."""
        places = shares * (int(self.counts[0]) - 1)
        floors = np.floor(places).astype(np.int64)
        ceilings = np.minimum(floors + 1, int(self.counts[0]) - 1)
        found = self.ranked([*floors.tolist(), *ceilings.tolist()])
        low, high = np.array(found[: len(floors)]), np.array(found[len(floors) :])
        parts = places - floors
        rise = high - low
        between: Floats = np.where(parts < 0.5, low + rise * parts, high - rise * (1 - parts))
        return between

    def ranked(self, ranks: list[int]) -> list[float]:
        """The values of these ranks, of which 0 is the smallest value's."""
        prefixes, left = [0] * len(ranks), list(ranks)
        for shift in range(64 - _DIGIT_BITS, -1, -_DIGIT_BITS):
            counts = self._digits(set(prefixes), shift)
            for place, prefix in enumerate(prefixes):
                ends = np.cumsum(counts[prefix])
                digit = int(np.searchsorted(ends, left[place], "right"))
                left[place] -= int(ends[digit - 1]) if digit else 0
                prefixes[place] = prefix << _DIGIT_BITS | digit
        found: list[float] = _numbers(np.array(prefixes, np.uint64)).tolist()
        return found

    def _digits(self, prefixes: set[int], shift: int) -> dict[int, NDArray[np.int64]]:
        """How often each digit follows each prefix of keys."""
        counts = {prefix: np.zeros(1 << _DIGIT_BITS, np.int64) for prefix in prefixes}
        for part in self._finite():
            heads = _keys(part) >> np.uint64(shift)
            digits = (heads & np.uint64((1 << _DIGIT_BITS) - 1)).astype(np.int64)
            before = heads >> np.uint64(_DIGIT_BITS)
            for prefix, found in counts.items():
                found += np.bincount(digits[before == np.uint64(prefix)], minlength=len(found))
        return counts

    def _finite(self) -> Iterator[Floats]:
        return (part for part, _ in self._weighted())

    def _weighted(self) -> Iterator[Weighted]:
        for part, weights in self._values():
            sound = np.isfinite(part)
            if sound.all():
                yield np.ascontiguousarray(part), weights
            else:
                yield part[sound], None if weights is None else weights[sound]

    def _divisor(self) -> float:
        return float(self.totals[0]) or 1.0


def _sum(values: Floats, weights: Floats | None) -> float:
    return float(values.sum() if weights is None else values @ weights)


def _keys(values: Floats) -> Keys:
    """Integers in the order of the numbers; those of 0 and −0 are the same."""
    bits = (values + 0.0).view(np.uint64)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def _numbers(keys: Keys) -> Floats:
    return np.where(keys & _SIGN, keys & ~_SIGN, ~keys).view(np.float64)
