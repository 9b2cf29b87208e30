"""Times: google.protobuf.Timestamp ↔ datetime in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS_A_DAY = 86_400


def encode_time(time: datetime) -> Timestamp:
    """The message of an aware datetime; exact to the microsecond."""
    since = time - _EPOCH
    return Timestamp(seconds=since.days * _SECONDS_A_DAY + since.seconds, nanos=since.microseconds * 1_000)


def decode_time(message: Timestamp) -> datetime:
    """The datetime in UTC; nanoseconds below a microsecond are dropped."""
    return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1_000)
