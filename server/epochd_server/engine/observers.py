"""An observer for trainings whose progress nobody wants to know."""

from __future__ import annotations

from collections.abc import Collection

from epochd_server.engine.task import EndBatch, LogBatch, ProgressBatch


class SilentObserver:
    """Takes everything, does nothing with it and stops nobody."""

    def logs(self, batch: LogBatch) -> None:
        """Nothing."""

    def ended(self, batch: EndBatch) -> None:
        """Nothing."""

    def progress(self, batch: ProgressBatch) -> None:
        """Nothing."""

    def stopped_members(self) -> Collection[int]:
        """Nobody."""
        return ()
