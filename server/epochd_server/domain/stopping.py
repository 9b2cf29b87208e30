"""Who and what stops runs before their last epoch."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

from epochd_server.domain.errors import FieldViolation, InvalidInput


class Wish(enum.Enum):
    """What is to become of a run that has not ended."""

    CANCEL = "cancel"

    KEEP = "keep"
    """Cancel it, and make a version of what it has reached."""

    PAUSE = "pause"

    RESUME = "resume"

    @property
    def cancels(self) -> bool:
        """Whether it ends the run."""
        return self in (Wish.CANCEL, Wish.KEEP)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """At which the server cancels a run by itself.

    Attributes:
        deadline: When, in UTC; None: never.
        training_seconds: After so long in training, pauses and interruptions left out; None: never.
        keep_weights: Whether a version is then made of what it has reached.
    """

    deadline: datetime | None = None
    training_seconds: float | None = None
    keep_weights: bool = False

    @property
    def wish(self) -> Wish:
        """What becomes of a run that reaches one of them."""
        return Wish.KEEP if self.keep_weights else Wish.CANCEL

    def require_future(self, now: datetime) -> None:
        """Makes sure that the deadline is still to come.

        Raises:
            InvalidInput: It is not.
        """
        if self.deadline is not None and self.deadline <= now:
            problem = f"must be in the future, is {self.deadline:%Y-%m-%d %H:%M:%S} UTC"
            raise InvalidInput([FieldViolation("limits.deadline", problem)])


DEADLINE_REACHED = "DEADLINE_REACHED"
"""Why a run was cancelled: its deadline came."""
TRAINING_TIME_SPENT = "TRAINING_TIME_SPENT"
"""Why a run was cancelled: it was in training for as long as it may be."""
