"""News of models, for those who remember which version a name means."""

from __future__ import annotations

from collections.abc import Callable


class ModelChanges:
    """Tells its subscribers which model has a new version, lost one, or had an alias moved, after the commit."""

    def __init__(self) -> None:
        self._subscribers: list[Callable[[str], None]] = []

    def subscribe(self, subscriber: Callable[[str], None]) -> None:
        """Has ``subscriber`` called with the model's id, in the loop, before the change's caller goes on."""
        self._subscribers.append(subscriber)

    def notify(self, model: str) -> None:
        """Says that a model changed."""
        for subscriber in self._subscribers:
            subscriber(model)
