"""RunLimits: at which the server cancels a run."""

from __future__ import annotations

from datetime import datetime

from epochd.v1 import trainer_pb2 as pb
from epochd_server.codec.times import decode_time
from epochd_server.domain.errors import Violations
from epochd_server.domain.stopping import RunLimits

LEAST_SECONDS = 0.001
_NANOSECONDS = 1e9
_LAST_SECOND = 253_402_300_799
"""Of the year 9999, the last that Timestamp and datetime have."""


def decode_limits(message: pb.RunLimits, violations: Violations) -> RunLimits:
    """The limits of a request; whether a deadline is still to come is not looked at."""
    deadline = _deadline(message, violations) if message.HasField("deadline") else None
    seconds = _training_seconds(message, violations) if message.HasField("training_time") else None
    if message.keep_weights and deadline is None and seconds is None and not violations:
        violations.add("keep_weights", "is for a deadline or a training_time, and neither is set")
    return RunLimits(deadline=deadline, training_seconds=seconds, keep_weights=message.keep_weights)


def _deadline(message: pb.RunLimits, violations: Violations) -> datetime | None:
    if not 0 <= message.deadline.seconds <= _LAST_SECOND:
        violations.add("deadline", "must be from the years 1970 to 9999")
        return None
    return decode_time(message.deadline)


def _training_seconds(message: pb.RunLimits, violations: Violations) -> float | None:
    seconds = message.training_time.seconds + message.training_time.nanos / _NANOSECONDS
    if seconds < LEAST_SECONDS:
        violations.add("training_time", f"must be >= {LEAST_SECONDS} s, is {seconds:g} s")
        return None
    return seconds
