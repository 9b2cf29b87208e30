"""Which runs of the cohort in training shall stop."""

from __future__ import annotations

from collections.abc import Collection


class StopRequests:
    """Runs that shall stop. Filled by the listening thread, read by the training one."""

    def __init__(self) -> None:
        self._run_ids: frozenset[str] = frozenset()

    def add(self, run_ids: Collection[str]) -> None:
        """Asks that these runs stop."""
        self._run_ids = self._run_ids.union(run_ids)

    def clear(self) -> None:
        """Forgets all requests: their cohort has ended."""
        self._run_ids = frozenset()

    @property
    def run_ids(self) -> frozenset[str]:
        """The runs asked for so far; the same object while nothing changes."""
        return self._run_ids
