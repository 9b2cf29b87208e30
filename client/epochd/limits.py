"""When the server cancels a run by itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from epochd.errors import invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When the server cancels a run by itself, which then ends as CANCELLED.

    Example:
        >>> from datetime import timedelta
        >>> Limits(training_time=timedelta(minutes=5), keep_weights=True).training_time
        datetime.timedelta(seconds=300)
    """

    deadline: datetime | timedelta | None = None
    """At this time, which must know its zone, or so long from now; whether the run is in training or not."""

    training_time: timedelta | float | None = None
    """After so long in training, seconds if it is a number; waiting, pauses and interruptions do not count."""

    keep_weights: bool = False
    """Whether a version is then made of what the run has reached; with early stopping the best of it."""

    def __post_init__(self) -> None:
        if isinstance(self.deadline, datetime) and self.deadline.tzinfo is None:
            raise invalid("limits.deadline", "must know its time zone, such as datetime.now(UTC)")
        if isinstance(self.training_time, int | float):
            object.__setattr__(self, "training_time", timedelta(seconds=self.training_time))

    @property
    def ends_at(self) -> datetime | None:
        """The deadline in UTC."""
        if isinstance(self.deadline, timedelta):
            return datetime.now(UTC) + self.deadline
        return None if self.deadline is None else self.deadline.astimezone(UTC)
