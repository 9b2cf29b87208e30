"""From a failed RPC to the exception that says so."""

from __future__ import annotations

from typing import Any

import grpc

from epochd.errors import BY_CODE, ConnectionFailed, EpochdError, Internal, InvalidArgument, Violation
from epochd.v1 import errors_pb2

DETAILS_KEY = "grpc-status-details-bin"


def from_rpc(error: Any, address: str) -> EpochdError:
    """Builds the exception for a failed call.

    Args:
        error: A ``grpc.RpcError`` that is also a ``grpc.Call``, or a ``grpc.aio.AioRpcError``.
        address: Where the server was expected.
    """
    code: grpc.StatusCode = error.code()
    details = _details(error)
    if code is grpc.StatusCode.UNAVAILABLE and details is None:
        return ConnectionFailed(_unreachable(address, error.details() or ""))
    return build(code.name, error.details() or "", details or errors_pb2.ErrorStatus())


def build(code: str, message: str, status: errors_pb2.ErrorStatus) -> EpochdError:
    """The exception for a status code, with what the details say: reason, metadata, violations, retry delay."""
    info = errors_pb2.ErrorInfo()
    bad, retry = errors_pb2.BadRequest(), errors_pb2.RetryInfo()
    for detail in status.details:
        # The type's last part decides: google.rpc.ErrorInfo and its wire-compatible mirror end alike.
        target = {"ErrorInfo": info, "BadRequest": bad, "RetryInfo": retry}.get(
            detail.type_url.rsplit(".", 1)[-1]
        )
        if target is not None:
            target.MergeFromString(detail.value)
    kind = BY_CODE.get(code, Internal)
    delay = retry.retry_delay
    common: dict[str, Any] = {
        "metadata": dict(info.metadata),
        "retry_after": delay.seconds + delay.nanos / 1e9 if retry.HasField("retry_delay") else None,
    }
    if not issubclass(kind, InvalidArgument):
        return kind(message or code, reason=info.reason, **common)
    violations = [Violation(v.field, v.description) for v in bad.field_violations]
    if violations:
        message = f"The request has {len(violations)} invalid field{'s' if len(violations) > 1 else ''}:"
    return kind(message or code, reason=info.reason or "INVALID_FIELDS", violations=violations, **common)


def _details(error: Any) -> errors_pb2.ErrorStatus | None:
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY:
            return errors_pb2.ErrorStatus.FromString(value)
    return None


def _unreachable(address: str, details: str) -> str:
    cause = details.splitlines()[0] if details else "no answer"
    return (
        f"No epochd server answers at {address}.\n"
        f"  Start one with: epochd serve --listen {address}\n"
        f"  gRPC says: {cause}"
    )
