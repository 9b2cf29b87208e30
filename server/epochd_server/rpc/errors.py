"""How an error looks on the wire: a status code, a message and the details of google.rpc.

The details travel in the trailer ``grpc-status-details-bin``. gRPC refuses trailers of more than 8 KiB, so
everything here is cut to a size that fits with room to spare: a client must never lose the reason of a
refusal because there was too much to say about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import grpc
from google.protobuf import any_pb2, duration_pb2, message
from google.rpc import error_details_pb2, status_pb2

from epochd_server.domain.errors import Code, EpochdError, FieldViolation, InvalidInput, Reason

DOMAIN: Final = "epochd"
"""``google.rpc.ErrorInfo.domain`` of every error."""

REQUEST_ID: Final = "request_id"
"""Key of the request's id in ``google.rpc.ErrorInfo.metadata``."""

DETAILS_TRAILER: Final = "grpc-status-details-bin"
"""The trailer that holds the serialised google.rpc.Status."""

MAX_MESSAGE_BYTES: Final = 600
"""UTF-8 bytes of a message; it travels twice, once percent-encoded (up to three bytes for one)."""

MAX_DETAILS_BYTES: Final = 3_400
"""Bytes of all details together; base64 adds a third."""

_MAX_DESCRIPTION_BYTES: Final = 300
_MAX_METADATA_BYTES: Final = 200

STATUS_CODES: Mapping[Code, grpc.StatusCode] = MappingProxyType(
    {code: grpc.StatusCode[code.value] for code in Code}
)
"""The domain's codes as gRPC's."""


def shorten(text: str, limit: int) -> str:
    """``text``, or as much of its beginning as fits ``limit`` bytes of UTF-8 with an ellipsis."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= limit:
        return encoded.decode()
    return encoded[: limit - 3].decode("utf-8", "ignore") + "…"


def to_status(error: EpochdError, request_id: str) -> status_pb2.Status:
    """What a client gets for an error.

    Args:
        error: The error.
        request_id: The id under which the server's log knows the request.

    Returns:
        A status with ErrorInfo always, BadRequest for invalid input and RetryInfo where a retry may help.
    """
    status = status_pb2.Status(
        code=STATUS_CODES[error.code].value[0], message=shorten(error.message, MAX_MESSAGE_BYTES)
    )
    status.details.append(_packed(_error_info(error, request_id)))
    if error.retry_after_seconds is not None:
        status.details.append(_packed(_retry_info(error.retry_after_seconds)))
    if isinstance(error, InvalidInput):
        room = MAX_DETAILS_BYTES - sum(len(detail.value) for detail in status.details)
        status.details.append(_packed(_bad_request(error.violations, room)))
    return status


def internal() -> EpochdError:
    """What a client is told of a bug: nothing but where to look."""
    return EpochdError(Reason.INTERNAL)


def _packed(detail: message.Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def _error_info(error: EpochdError, request_id: str) -> error_details_pb2.ErrorInfo:
    metadata = {REQUEST_ID: request_id}
    for key, value in list(error.metadata.items())[:5]:
        metadata[shorten(key, 64)] = shorten(value, _MAX_METADATA_BYTES)
    return error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN, metadata=metadata)


def _retry_info(seconds: float) -> error_details_pb2.RetryInfo:
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(round(seconds * 1000))
    return error_details_pb2.RetryInfo(retry_delay=delay)


def _bad_request(violations: Iterable[FieldViolation], room: int) -> error_details_pb2.BadRequest:
    """As many violations as fit into ``room`` bytes; a last one says how many did not."""
    listed = error_details_pb2.BadRequest()
    left_out = 0
    room -= 80  # for the line that counts the others
    for violation in violations:
        entry = error_details_pb2.BadRequest.FieldViolation(
            field=shorten(violation.field, _MAX_METADATA_BYTES),
            description=shorten(violation.description, _MAX_DESCRIPTION_BYTES),
        )
        size = entry.ByteSize() + 4
        if left_out or size > room:
            left_out += 1
            continue
        room -= size
        listed.field_violations.append(entry)
    if left_out:
        listed.field_violations.add(description=f"and {left_out} more that do not fit into this answer")
    return listed
