"""What is known of a call besides its request: an id for the logs, and whose it is."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, TypeAlias

import grpc
from structlog.typing import EventDict, WrappedLogger

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
"""A call as grpc.aio hands it to a handler."""

Encoded: TypeAlias = Any
"""A response as bytes, which the guard sends as they are."""

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""gRPC's default limit, which every client keeps: nothing larger is sent, and nothing larger is taken."""

REQUEST_ID_KEY: Final = "x-request-id"
"""Metadata in which a client (or a proxy) may name its request; an unusable value is replaced."""

CLIENT_KEY: Final = "epochd-client"
"""Metadata in which a client may say whose share of the workers its runs take; unset, its host is taken."""

_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@/-]{0,127}")
_current: ContextVar[Context | None] = ContextVar("epochd_call", default=None)
_request_id: ContextVar[str] = ContextVar("epochd_request_id")
_release: ContextVar[Callable[[], None]] = ContextVar("epochd_release")


def enter(context: Context, release: Callable[[], None]) -> None:
    """Makes a call the one that this task's log lines belong to.

    Args:
        context: The call.
        release: Gives back the memory that is kept for its request.
    """
    _current.set(context)
    _release.set(release)


def request_done() -> None:
    """Says that the current call has no use for its request any more, though it may go on for hours."""
    _release.get()()


def current_request_id() -> str:
    """The id under which the current call is logged: the client's own, or 16 random hex digits; "" outside a call.

    Found out only when somebody asks: most calls are neither logged nor refused.
    """
    context = _current.get()
    if context is None:
        return ""
    known = _request_id.get(None)
    if known is None:
        known = _token(context, REQUEST_ID_KEY) or secrets.token_hex(8)
        _request_id.set(known)
    return known


def add_request_id(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """A structlog processor: every line that belongs to a call has its request's id."""
    if request_id := current_request_id():
        event.setdefault("request_id", request_id)
    return event


def client_of(context: Context) -> str:
    """Who calls, for sharing the workers fairly: what the client says, or else the host it calls from."""
    given = _token(context, CLIENT_KEY)
    if given is not None:
        return given
    peer = context.peer()
    return peer.rpartition(":")[0] or peer


def _token(context: Context, key: str) -> str | None:
    for found, value in context.invocation_metadata() or ():
        if found == key:
            return value if isinstance(value, str) and _TOKEN.fullmatch(value) else None
    return None
