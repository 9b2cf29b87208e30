"""What happens around every call, of all four shapes: decoding, admission, errors, logs and counts.

The only place that aborts a call. Handlers are wrapped once, when they are registered, rather than by a chain
of interceptors at every call: a small Predict costs little more than what gRPC itself takes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Final, NoReturn, TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError, Message

from epochd_server.domain.errors import Code, EpochdError, FieldViolation, InvalidInput, Reason
from epochd_server.rpc.admission import Admission, Lease, Untaken
from epochd_server.rpc.calls import MAX_MESSAGE_BYTES as MAX_MESSAGE_BYTES
from epochd_server.rpc.calls import Context, client_of, current_request_id, enter
from epochd_server.rpc.errors import DETAILS_TRAILER, STATUS_CODES, internal, to_status

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

ADMITTED_WHILE_STOPPING: Final = ("Get", "List", "Watch", "Cancel", "Export")
"""Beginnings of the methods that a stopping server still answers: they read, or make the end come sooner."""

QUIET: Final = frozenset({"Predict", "ActivationTransform", "Differentiate"})
"""Methods so frequent that only their failures are logged above the level debug."""

_MALFORMED = FieldViolation("", "is not a well-formed message of the method's request type")

_log = structlog.get_logger()


class Guard:
    """Stands between gRPC and the handlers, which raise what they please and know nothing of status codes.

    Args:
        admission: How much memory requests may take.

    Attributes:
        admission: The same.
        stopping: Set when the server begins to stop; from then on only some methods are admitted.
        calls: Finished calls by method and code.
    """

    def __init__(self, admission: Admission | None = None) -> None:
        self.admission = admission or Admission()
        self.stopping = False
        self.calls: Counter[tuple[str, str]] = Counter()
        self._logs_all = bool(_log.is_enabled_for(logging.DEBUG))

    def wrap(self, method: str, handler: Handler) -> Handler:
        """A handler of bytes around one of messages.

        Args:
            method: The method's name, such as ``Predict``.
            handler: As generated code makes it.
        """
        return _Method(self, method, handler).handler()

    def finished(self, method: str, code: str, started: float) -> None:
        """Counts a call and logs its one line."""
        self.calls[method, code] += 1
        quiet = code == "OK" and method in QUIET
        if quiet and not self._logs_all:
            return
        log = _log.debug if quiet else _log.info
        log("call", method=method, code=code, ms=round((time.perf_counter() - started) * 1000, 2))


class Registrar:
    """A server as generated ``add_…Servicer_to_server`` functions see it: registers every handler wrapped.

    Args:
        server: The server that gets the handlers.
        guard: Wraps them.
    """

    def __init__(self, server: grpc.aio.Server, guard: Guard) -> None:
        self._server = server
        self._guard = guard
        self.services: list[str] = []
        """Full names of the services registered so far."""

    def add_generic_rpc_handlers(self, handlers: Iterable[object]) -> None:
        """Passes over what generated code registers a second time, for servers without registered methods."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Registers a service."""
        wrapped = {name: self._guard.wrap(name, handler) for name, handler in handlers.items()}
        register(self._server, service, wrapped)
        self.services.append(service)


def register(server: grpc.aio.Server, service: str, handlers: Mapping[str, Handler]) -> None:
    """Registers a service's handlers by method as generic ones.

    grpc.aio waits for each "registered" method with a task of its own, and looks through all of them at every
    call: forty methods cost a small Predict a tenth of its time.
    """
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, dict(handlers)),))


class _Method:
    """One method of a service, and what is done around each call of it."""

    def __init__(self, guard: Guard, name: str, handler: Handler) -> None:
        self._guard = guard
        self._name = name
        self._decode: Callable[[bytes], Any] = handler.request_deserializer or bytes
        self._open: Callable[[Lease, Context], Awaitable[Any]] = (
            self._requests if handler.request_streaming else self._request
        )
        self._streams_responses = bool(handler.response_streaming)
        self._admitted_while_stopping = name.startswith(ADMITTED_WHILE_STOPPING)
        self._behaviour: Any = (
            handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        )

    def handler(self) -> Handler:
        """The handler to be registered.

        It streams requests, which is the same on the wire: a call with one request, too, is read when there is room.
        """
        if self._streams_responses:
            return grpc.stream_stream_rpc_method_handler(self._many)
        return grpc.stream_unary_rpc_method_handler(self._one)

    async def _one(self, _: object, context: Context) -> bytes:
        """A call with one response."""
        started = time.perf_counter()
        try:
            with self._admit(context) as lease:
                response = _encode(await self._behaviour(await self._open(lease, context), context))
        except BaseException as error:
            await self._fail(error, context, started)
        self._guard.finished(self._name, "OK", started)
        return response

    async def _many(self, _: object, context: Context) -> None:
        """A call with a stream of responses."""
        started = time.perf_counter()
        try:
            with self._admit(context) as lease:
                async with aclosing(self._behaviour(await self._open(lease, context), context)) as responses:
                    async for response in responses:
                        await lease.taken(context.write(_encode(response)))
        except BaseException as error:
            await self._fail(error, context, started)
        self._guard.finished(self._name, "OK", started)

    def _admit(self, context: Context) -> Lease:
        """Names the call in the logs; refuses new work while the server stops."""
        lease = self._guard.admission.lease(self._name, client_of(context))
        enter(context, lease.release)
        if self._guard.stopping and not self._admitted_while_stopping:
            raise EpochdError(Reason.SERVER_STOPPING)
        return lease

    async def _request(self, lease: Lease, context: Context) -> Any:
        """The request of a call that has one."""
        return self._decoded(await lease.message(context.read))

    async def _requests(self, lease: Lease, context: Context) -> AsyncIterator[Any]:
        """The requests of a call that streams them."""
        await lease.stream()
        return self._stream(lease, context)

    async def _stream(self, lease: Lease, context: Context) -> AsyncIterator[Any]:
        while (data := await lease.next(context.read)) is not grpc.aio.EOF:
            yield self._decoded(data)

    def _decoded(self, data: Any) -> Any:
        if data is grpc.aio.EOF:
            raise InvalidInput([_MALFORMED])
        try:
            return self._decode(data)
        except DecodeError:
            raise InvalidInput([_MALFORMED]) from None

    async def _fail(self, error: BaseException, context: Context, started: float) -> NoReturn:
        """Ends a call that raised ``error``: the client gets a status, the log what happened."""
        if not isinstance(error, Exception) or context.cancelled():
            self._guard.finished(self._name, Code.CANCELLED.value, started)
            if isinstance(error, Exception):
                raise asyncio.CancelledError from error
            raise error
        if isinstance(error, EpochdError):
            known = error
            _log.info("refused", method=self._name, reason=known.reason.value, message=known.message)
        else:
            known = internal()
            _log.error("bug", method=self._name, exc_info=error)
        self._guard.finished(self._name, known.code.value, started)
        error.__traceback__ = None  # its frames may hold a message, and a client may take long to be told
        if isinstance(error, Untaken):
            await error.taken()
        status = to_status(known, current_request_id())
        trailer = ((DETAILS_TRAILER, status.SerializeToString()),)
        await context.abort(STATUS_CODES[known.code], status.message, trailer)


def _encode(response: Message | bytes) -> bytes:
    """A response as bytes; a handler may have encoded it before."""
    data = response if isinstance(response, bytes) else response.SerializeToString()
    if len(data) > MAX_MESSAGE_BYTES:
        raise EpochdError(Reason.MESSAGE_TOO_LARGE)
    return data
