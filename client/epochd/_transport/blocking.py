"""Runs programs over a blocking gRPC channel; safe to use from several threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
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
from epochd._transport.failures import from_rpc
from epochd._transport.options import CallMetadata, Connection
from epochd.errors import DeadlineExceeded, EpochdError
from epochd.version import __version__

T = TypeVar("T")


class BlockingTransport:
    """A channel and the loop that runs programs over it."""

    def __init__(self, connection: Connection) -> None:
        self._address = connection.address
        self._metadata = CallMetadata(connection.client_name)
        self._callables: dict[str, Any] = {}
        self._closed = False
        options = connection.channel_options(__version__)
        if connection.credentials is None:
            self._channel = grpc.insecure_channel(connection.address, options)
        else:
            self._channel = grpc.secure_channel(connection.address, connection.credentials, options)

    def run(self, program: Program[T]) -> T:
        """Runs a program to its end and returns its value; what it emits is dropped."""
        values = self.iterate(program)
        while True:
            try:
                next(values)
            except StopIteration as stop:
                result: T = stop.value
                return result

    def iterate(self, program: Program[T]) -> Generator[Any, None, T]:
        """Runs a program and yields what it emits."""
        steps = Steps(program)
        try:
            while True:
                effect = steps.next()
                if isinstance(effect, Finished):
                    return effect.value
                if isinstance(effect, Emit):
                    yield effect.value
                    continue
                try:
                    steps.succeed(self.perform(effect))
                except EpochdError as error:
                    steps.fail(error)
        finally:
            steps.close()

    def close(self) -> None:
        """Closes the channel; what is under way on it is cancelled."""
        self._closed = True
        self._channel.close()

    def perform(self, effect: Effect) -> Any:
        """Does what one effect asks for and returns its outcome.

        Raises:
            EpochdError: For a failed call.
        """
        if self._closed:
            raise RuntimeError(f"this client is closed; connect to {self._address} again")
        try:
            match effect:
                case Invoke() | Open():
                    callable_ = self._callable(effect.method)
                    return callable_(effect.request, timeout=effect.timeout, metadata=self._metadata())
                case Receive(stream, timeout):
                    return _receive(stream, timeout)
                case Compute(function):
                    return function()
                case Sleep(seconds):
                    return time.sleep(seconds)
        except grpc.RpcError as error:
            raise from_rpc(error, self._address) from None

    def _callable(self, method: Method[Any, Any]) -> Any:
        found = self._callables.get(method.path)
        if found is None:
            factory = getattr(self._channel, method.kind)
            found = factory(
                method.path, request_serializer=method.encode, response_deserializer=method.decode
            )
            self._callables[method.path] = found  # made twice by two threads at worst
        return found


def _receive(stream: Any, timeout: float | None) -> Any:
    if timeout is None:
        return next(stream, END)
    late = threading.Event()

    def give_up() -> None:
        late.set()
        stream.cancel()

    timer = threading.Timer(timeout, give_up)
    timer.daemon = True
    timer.start()
    try:
        return next(stream, END)
    except grpc.RpcError:
        if late.is_set():
            raise DeadlineExceeded(f"The server did not answer within {timeout:g} s.") from None
        raise
    finally:
        timer.cancel()
