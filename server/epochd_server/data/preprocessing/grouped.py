"""Statistics of all rows, or of each member's rows by themselves, by the same operations in the same order.

So a member learns the same bits as a single model of its rows does.

Legend: n rows, K members (1 where all rows count together).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Statistics(Protocol):
    """What steps learn of the values of K members; those that are missing or infinite are left out."""

    @property
    def counts(self) -> NDArray[np.int64]:
        """Values of each member [K]; may be 0."""

    @property
    def totals(self) -> NDArray[np.number]:
        """Sums of the values' weights [K]; the counts where all count alike."""

    def means(self) -> Floats:
        """[K]; 0 for a member without values."""

    def variances(self, means: Floats) -> Floats:
        """Mean squared deviations [K] from ``means``; 0 for a member without values."""

    def extremes(self) -> tuple[Floats, Floats]:
        """The smallest and largest values, [K] each; 0 and 0 for a member without values."""

    def medians(self) -> Floats:
        """[K]; NaN for a member without values."""

    def most_frequent(self) -> Floats:
        """The smallest of the most frequent values of all members [1]; there is a value."""


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """Values that belong to K members, sorted by member; those that are missing or infinite are left out.

    Attributes:
        values: float64 [n'].
        counts: int64 [K]; may be 0.
        weights: float64 [n'], > 0: how much each counts in means and variances; None where all count alike.
    """

    values: Floats
    counts: NDArray[np.int64]
    weights: Floats | None = None

    @property
    def totals(self) -> NDArray[np.number]:
        """Sums of the values' weights [K]; the counts where all count alike."""
        return self.counts if self.weights is None else self._sums(self.weights)

    def means(self) -> Floats:
        """[K]; 0 for a member without values."""
        return self._averages(self.values)

    def variances(self, means: Floats) -> Floats:
        """Mean squared deviations [K] from ``means``; 0 for a member without values."""
        deviations = self.values - np.repeat(means, self.counts)
        # The second term takes out what rounding of the mean left (Chan, Golub and LeVeque, 1983).
        squares, rest = self._averages(deviations * deviations), self._averages(deviations)
        return np.maximum(squares - rest * rest, 0.0)

    def extremes(self) -> tuple[Floats, Floats]:
        """The smallest and largest values, [K] each; 0 and 0 for a member without values."""
        return self._reduced(np.minimum, self.values), self._reduced(np.maximum, self.values)

    def medians(self) -> Floats:
        """[K]; NaN for a member without values."""
        members = np.repeat(np.arange(len(self.counts)), self.counts)
        ordered = self.values[np.lexsort((self.values, members))]
        starts = np.cumsum(self.counts) - self.counts
        medians = np.full(len(self.counts), np.nan)
        some = self.counts > 0
        below = ordered[(starts + (self.counts - 1) // 2)[some]]
        above = ordered[(starts + self.counts // 2)[some]]
        medians[some] = (below + above) / 2
        return medians

    def most_frequent(self) -> Floats:
        """The smallest of the most frequent values of all members [1]; there is a value."""
        values, counts = np.unique(self.values, return_counts=True)
        return values[[int(np.argmax(counts))]]

    def _averages(self, values: Floats) -> Floats:
        weighted = values if self.weights is None else values * self.weights
        return self._sums(weighted) / np.where(self.counts > 0, self.totals, 1)

    def _sums(self, values: Floats) -> Floats:
        return self._reduced(np.add, values)

    def _reduced(self, operation: np.ufunc, values: Floats) -> Floats:
        reduced = np.zeros(len(self.counts))
        some = self.counts > 0
        if some.any():
            starts = np.cumsum(self.counts) - self.counts
            reduced[some] = operation.reduceat(values, starts[some])
        return reduced


@dataclass(slots=True, eq=False)
class Learner:
    """What a fit learns from, and what it has learned of each member.

    Attributes:
        members: int64 [n]: the member of each training row; None where there is one model.
        count: K.
        weights: float64 [n], > 0: how much each row counts; None where all count alike.
    """

    members: NDArray[np.int64] | None = None
    count: int = 1
    weights: Floats | None = None
    _kept: list[Floats] = field(default_factory=list)

    def segments(self, values: Floats, *, per_member: bool) -> Segments:
        """The values [n] that are there, of each member or of all."""
        sound = np.isfinite(values)
        weights = None if self.weights is None else self.weights[sound]
        if not per_member or self.members is None:
            found = values if sound.all() else values[sound]
            return Segments(np.ascontiguousarray(found), np.array([len(found)]), weights)
        members = self.members[sound]
        order = np.argsort(members, kind="stable")
        ordered = None if weights is None else weights[order]
        return Segments(values[sound][order], np.bincount(members, minlength=self.count), ordered)

    def keep(self, columns: Sequence[Floats]) -> int:
        """Keeps numbers, [K] each, of the members; returns where they begin."""
        slot = len(self._kept)
        self._kept += columns
        return slot

    def statistics(self) -> Floats | None:
        """[K, S], or None where no member has numbers of its own."""
        return np.stack(self._kept, axis=1) if self._kept else None
