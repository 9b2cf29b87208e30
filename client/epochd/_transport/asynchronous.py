"""Runs programs over an asyncio gRPC channel.

Calls that stream requests go over a blocking channel in threads: where a server answers such a call before it has
read everything, grpc.aio replaces the server's status by INTERNAL when a write is under way (grpc/grpc#36066).
Encoding and digesting large tables does not hold up the event loop that way, either.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, TypeVar

import grpc

from epochd._core.effects import (
    END,
    Compute,
    Effect,
    Emit,
    Finished,
    Invoke,
    Method,
    Open,
    Program,
    Receive,
    Sleep,
    Steps,
)
from epochd._transport.blocking import BlockingTransport
from epochd._transport.failures import from_rpc
from epochd._transport.options import CallMetadata, Connection
from epochd.errors import DeadlineExceeded, EpochdError
from epochd.version import __version__

T = TypeVar("T")


class AsyncTransport:
    """A channel and the loop that runs programs over it."""

    def __init__(self, connection: Connection) -> None:
        self._address = connection.address
        self._metadata = CallMetadata(connection.client_name)
        self._callables: dict[str, Any] = {}
        self._closed = False
        self._connection = connection
        self._blocking: BlockingTransport | None = None
        options = connection.channel_options(__version__)
        if connection.credentials is None:
            self._channel = grpc.aio.insecure_channel(connection.address, options)
        else:
            self._channel = grpc.aio.secure_channel(connection.address, connection.credentials, options)

    async def run(self, program: Program[T]) -> T:
        """Runs a program to its end and returns its value; what it emits is dropped."""
        steps = Steps(program)
        try:
            while True:
                effect = steps.next()
                if isinstance(effect, Finished):
                    return effect.value
                await self._step(steps, effect)
        finally:
            steps.close()

    async def iterate(self, program: Program[Any]) -> AsyncGenerator[Any, None]:
        """Runs a program and yields what it emits."""
        steps = Steps(program)
        try:
            while not isinstance(effect := steps.next(), Finished):
                if isinstance(effect, Emit):
                    yield effect.value
                else:
                    await self._step(steps, effect)
        finally:
            steps.close()

    async def close(self) -> None:
        """Closes the channel; what is under way on it is cancelled."""
        self._closed = True
        if self._blocking is not None:
            self._blocking.close()
        await self._channel.close()

    async def _step(self, steps: Steps[Any], effect: Effect) -> None:
        try:
            steps.succeed(await self._perform(effect))
        except EpochdError as error:
            steps.fail(error)

    async def _perform(self, effect: Effect) -> Any:
        if self._closed:
            raise RuntimeError(f"this client is closed; connect to {self._address} again")
        try:
            match effect:
                case Invoke(method) | Open(method) if method.kind.startswith("stream"):
                    return await asyncio.to_thread(self._threaded().perform, effect)
                case Receive(stream) if not hasattr(stream, "read"):
                    return await asyncio.to_thread(self._threaded().perform, effect)
                case Compute(function):
                    return await asyncio.to_thread(function)
                case Invoke(method, request, timeout):
                    return await self._callable(method)(request, timeout=timeout, metadata=self._metadata())
                case Open(method, request, timeout):
                    return self._callable(method)(request, timeout=timeout, metadata=self._metadata())
                case Receive(stream, timeout):
                    return await _receive(stream, timeout)
                case Sleep(seconds):
                    return await asyncio.sleep(seconds)
        except grpc.RpcError as error:
            raise from_rpc(error, self._address) from None

    def _threaded(self) -> BlockingTransport:
        if self._blocking is None:
            self._blocking = BlockingTransport(self._connection)
        return self._blocking

    def _callable(self, method: Method[Any, Any]) -> Any:
        found = self._callables.get(method.path)
        if found is None:
            factory = getattr(self._channel, method.kind)
            found = factory(
                method.path, request_serializer=method.encode, response_deserializer=method.decode
            )
            self._callables[method.path] = found
        return found


async def _receive(stream: Any, timeout: float | None) -> Any:  # noqa: ASYNC109 - None is common, and cheaper
    try:
        message = await asyncio.wait_for(stream.read(), timeout)
    except TimeoutError:
        raise DeadlineExceeded(f"The server did not answer within {timeout:g} s.") from None
    return END if message is grpc.aio.EOF else message
