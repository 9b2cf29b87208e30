"""Limits of runs as their message."""

from __future__ import annotations

from datetime import timedelta

from epochd.limits import Limits
from epochd.v1 import trainer_pb2


def encode_limits(limits: Limits | None) -> trainer_pb2.RunLimits | None:
    """The message of a run's limits."""
    if limits is None:
        return None
    message = trainer_pb2.RunLimits(keep_weights=limits.keep_weights)
    if (deadline := limits.ends_at) is not None:
        message.deadline.FromDatetime(deadline)
    if isinstance(limits.training_time, timedelta):
        message.training_time.FromTimedelta(limits.training_time)
    return message
