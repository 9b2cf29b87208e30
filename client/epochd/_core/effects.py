"""Programs: generators that ask for I/O instead of doing it.

A program yields an effect and is sent its outcome (or has the error thrown in). What a call does (build, retry,
reconnect, decode) is thereby written once; `epochd._transport` runs it over a blocking or an asyncio channel.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, Protocol, TypeAlias, TypeVar, cast

Q = TypeVar("Q")
R = TypeVar("R")
T = TypeVar("T")

Kind: TypeAlias = Literal["unary_unary", "unary_stream", "stream_unary", "stream_stream"]


@dataclass(frozen=True, slots=True)
class Method(Generic[Q, R]):
    """An RPC: where it is, and how its messages become bytes."""

    path: str
    """Such as ``/epochd.v1.Trainer/Predict``."""

    kind: Kind
    """Which sides stream; also the name of the channel's factory."""

    encode: Callable[[Q], bytes]
    """Serialises a request."""

    decode: Callable[[bytes], R]
    """Parses a response."""


class Stream(Protocol):
    """An open response stream, of either kind of channel."""

    def cancel(self) -> bool:
        """Ends the stream; harmless on one that has ended."""


class _End:
    """The type of END."""


END: Final = _End()
"""What Receive gives when a stream has ended well."""


@dataclass(frozen=True, slots=True)
class Invoke(Generic[Q, R]):
    """Call a method with one response; the outcome is the response."""

    method: Method[Q, R]
    request: Q | Iterable[Q]
    timeout: float


@dataclass(frozen=True, slots=True)
class Open(Generic[Q, R]):
    """Call a method with a response stream; the outcome is a Stream."""

    method: Method[Q, R]
    request: Q | Iterable[Q]
    timeout: float | None


@dataclass(frozen=True, slots=True)
class Receive:
    """Await a stream's next message; the outcome is the message or END."""

    stream: Stream
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Compute(Generic[T]):
    """Do work that would hold up an event loop; the outcome is the function's value."""

    function: Callable[[], T]


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Emit:
    """Hand a value to whoever iterates over the program; the outcome is None."""

    value: Any


Effect: TypeAlias = Invoke[Any, Any] | Open[Any, Any] | Receive | Compute[Any] | Sleep | Emit
Program: TypeAlias = Generator[Effect, Any, T]


def invoke(method: Method[Q, R], request: Q | Iterable[Q], timeout: float) -> Program[R]:
    """Calls a method once and returns its response."""
    return cast("R", (yield Invoke(method, request, timeout)))


def open_stream(method: Method[Q, R], request: Q | Iterable[Q], timeout: float | None) -> Program[Stream]:
    """Opens a response stream, with a deadline for all of it if ``timeout`` is given."""
    return cast("Stream", (yield Open(method, request, timeout)))


def receive(method: Method[Any, R], stream: Stream, timeout: float | None = None) -> Program[R | None]:
    """Returns the next message of a stream that ``method`` opened, or None at its end."""
    message = yield Receive(stream, timeout)
    return None if message is END else cast("R", message)


def compute(function: Callable[[], T]) -> Program[T]:
    """Returns the function's value, computed where it holds up nobody."""
    return cast("T", (yield Compute(function)))


@dataclass(frozen=True, slots=True)
class Finished(Generic[T]):
    """A program's end."""

    value: T


class Steps(Generic[T]):
    """Advances a program effect by effect: the part that both transports' loops share."""

    def __init__(self, program: Program[T]) -> None:
        self._program = program
        self._outcome: Any = None
        self._failure: Exception | None = None

    def next(self) -> Effect | Finished[T]:
        """Runs the program with the last outcome up to its next effect or its end."""
        outcome, failure = self._outcome, self._failure
        self._outcome = self._failure = None
        try:
            return self._program.throw(failure) if failure else self._program.send(outcome)
        except StopIteration as stop:
            return Finished(stop.value)

    def succeed(self, outcome: Any) -> None:
        """Sets the outcome of the last effect."""
        self._outcome = outcome

    def fail(self, failure: Exception) -> None:
        """Sets the error of the last effect, to be thrown into the program."""
        self._failure = failure

    def close(self) -> None:
        """Abandons the program, so that it cancels the streams it has open."""
        self._program.close()
