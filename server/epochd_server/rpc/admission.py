"""How much memory the requests in work take, in all and of one client.

A message is read off the wire only once there is room for the largest that is allowed; until then gRPC's flow
control holds all but its first 64 KiB back at the client. A request that has come, with what decoding makes of it, is
held until its work is done. Whoever finds no room waits a moment, clients taking turns, and is refused after that.

Trainings have room of their own, so that a storm of them never keeps a prediction waiting. Why requests wait on the
wire and how much they are reckoned at: docs/decisions/0008-room-for-requests.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.rpc.calls import MAX_MESSAGE_BYTES

SMALL_BYTES: Final = 64 * 1024
"""Requests up to this size are not reckoned while they are worked on: many thousands of them fit."""

EXPANSION: Final = 8
"""Bytes that a byte of a request is reckoned at while it is worked on: its message, its arrays, what is stored."""

STREAM_BYTES: Final = 2 * MAX_MESSAGE_BYTES
"""What a stream of requests is reckoned at: the message that is worked on and the one that arrives."""

PATIENCE_SECONDS: Final = 2.0
"""How long a call waits for room before it is refused."""

MOST_WAITING: Final = 4_096
"""Calls that wait for one kind of room; a client's share of these is as large as its share of the room."""

TRAINING: Final = "Train"
"""The method whose requests have room of their own."""

_SHARES = 2
"""One client may have the room divided by this."""

_SOONEST_SECONDS = 1.0
_LATEST_SECONDS = 30.0
_SMOOTHING = 0.1


class Hold:
    """Memory that was taken, until it is released."""

    __slots__ = ("_client", "_nbytes", "_room", "_since")

    def __init__(self, room: Room, client: str, nbytes: int) -> None:
        self._room: Room | None = room
        self._client = client
        self._nbytes = nbytes
        self._since = time.monotonic()

    def release(self) -> None:
        """Gives the memory back; harmless when repeated."""
        room, self._room = self._room, None
        if room is not None:
            room.give_back(self._client, self._nbytes, time.monotonic() - self._since)


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    """A call that waits for so many bytes, and what tells it that it has them."""

    nbytes: int
    granted: asyncio.Future[Hold]


class Room:
    """Memory that calls share. Belongs to one event loop.

    Args:
        nbytes: How much there is. A single call that needs more gets it while nobody else has any.
        patience: Seconds for which a call waits before it is refused.
    """

    def __init__(self, nbytes: int, patience: float = PATIENCE_SECONDS) -> None:
        self._nbytes = nbytes
        self._patience = patience
        self._used = 0
        self._used_by: dict[str, int] = {}
        self._lines: OrderedDict[str, deque[_Waiter]] = OrderedDict()
        """Client → its waiting calls in the order of their coming; whose turn it is comes first."""
        self._waiting = 0
        self._waiting_bytes = 0
        self._mean_hold_seconds = 0.0

    @property
    def used(self) -> int:
        """Bytes that are taken now."""
        return self._used

    @property
    def waiting(self) -> int:
        """Calls that wait now."""
        return self._waiting

    async def take(self, nbytes: int, client: str) -> Hold:
        """Takes memory, when there is enough and it is this client's turn.

        Raises:
            EpochdError: SERVER_BUSY, or CLIENT_BUSY where others would have found room.
        """
        if not self._lines and self._fits(nbytes) and self._is_within_share(client, nbytes):
            return self._grant(client, nbytes)
        if self._waiting >= MOST_WAITING or len(self._lines.get(client, ())) >= MOST_WAITING // _SHARES:
            raise self._refusal(client, nbytes)
        waiter = _Waiter(nbytes, asyncio.get_running_loop().create_future())
        self._lines.setdefault(client, deque()).append(waiter)
        self._waiting += 1
        self._waiting_bytes += nbytes
        self._serve()
        try:
            await asyncio.wait((waiter.granted,), timeout=self._patience)
        except asyncio.CancelledError:
            self._abandon(client, waiter)
            raise
        if waiter.granted.done():
            return waiter.granted.result()
        self._abandon(client, waiter)
        raise self._refusal(client, nbytes)

    def give_back(self, client: str, nbytes: int, seconds: float) -> None:
        """Frees what a client held for so many seconds."""
        self._used -= nbytes
        left = self._used_by[client] - nbytes
        if left:
            self._used_by[client] = left
        else:
            del self._used_by[client]
        self._mean_hold_seconds += _SMOOTHING * (seconds - self._mean_hold_seconds)
        self._serve()

    def _serve(self) -> None:
        """Lets those in who fit: clients by turns, of each the first. Who lacks room in all is not passed by others."""
        while self._serve_round():
            pass

    def _serve_round(self) -> bool:
        """Gives every client that waits its turn; whether there is reason for another round."""
        granted = False
        for client in list(self._lines):
            waiter = self._lines[client][0]
            if not self._is_within_share(client, waiter.nbytes):
                continue
            if not self._fits(waiter.nbytes):
                return False
            self._leave(client, waiter)
            waiter.granted.set_result(self._grant(client, waiter.nbytes))
            granted = True
        return granted

    def _abandon(self, client: str, waiter: _Waiter) -> None:
        """Ends a wait in vain; what was granted at the same moment is given back."""
        if waiter.granted.done():
            waiter.granted.result().release()
        else:
            self._leave(client, waiter)
            self._serve()

    def _leave(self, client: str, waiter: _Waiter) -> None:
        """Takes a waiter out of its client's line; the client's next one comes after those of all others."""
        line = self._lines[client]
        line.remove(waiter)
        self._waiting -= 1
        self._waiting_bytes -= waiter.nbytes
        if line:
            self._lines.move_to_end(client)
        else:
            del self._lines[client]

    def _fits(self, nbytes: int) -> bool:
        return not self._used or self._used + nbytes <= self._nbytes

    def _is_within_share(self, client: str, nbytes: int) -> bool:
        held = self._used_by.get(client, 0)
        return not held or held + nbytes <= self._nbytes // _SHARES

    def _grant(self, client: str, nbytes: int) -> Hold:
        self._used += nbytes
        self._used_by[client] = self._used_by.get(client, 0) + nbytes
        return Hold(self, client, nbytes)

    def _refusal(self, client: str, nbytes: int) -> EpochdError:
        """Busy, and for how long it will be: as long as those that wait take to go through at the present pace."""
        rounds = (self._waiting_bytes + nbytes) / max(self._nbytes, 1)
        seconds = min(max(_SOONEST_SECONDS, rounds * self._mean_hold_seconds), _LATEST_SECONDS)
        mine = self._fits(nbytes) and not self._is_within_share(client, nbytes)
        reason = Reason.CLIENT_BUSY if mine else Reason.SERVER_BUSY
        return EpochdError(reason, retry_after_seconds=seconds)


class _Pool:
    """Room for the requests of some methods.

    Attributes:
        arriving: For messages that are read off the wire.
        working: For requests that are worked on, and what is made of them.
    """

    def __init__(self, nbytes: int) -> None:
        self.arriving = Room(nbytes // 3)
        self.working = Room(nbytes - nbytes // 3)


class Admission:
    """The memory of all requests: three eighths for trainings, three for everything else, two for streams.

    Args:
        nbytes: How much there is in all.
        stall_seconds: How long a call may stand still, waiting for its client to send or to take something.
    """

    def __init__(self, nbytes: int = 2**30, stall_seconds: float = 60.0) -> None:
        self.stall_seconds = stall_seconds
        self._trainings, self._others = _Pool(3 * nbytes // 8), _Pool(3 * nbytes // 8)
        self._streams = Room(nbytes // 4)

    def lease(self, method: str, client: str) -> Lease:
        """What a call of a method by a client needs; takes nothing yet."""
        pool = self._trainings if method == TRAINING else self._others
        return Lease(pool, self._streams, client, self.stall_seconds)


class Untaken(EpochdError):
    """CALL_STALLED, while a message is still on its way to the client.

    gRPC takes no status for a call before the message that it writes is taken, and can take none back: whoever
    sends the status waits for that, and meanwhile keeps nothing else of the call.

    Args:
        writing: Ends when the client has taken the message, or is gone.
    """

    def __init__(self, writing: asyncio.Future[None]) -> None:
        super().__init__(Reason.CALL_STALLED)
        self._writing = writing

    async def taken(self) -> None:
        """Waits for the message to be taken, or never to be."""
        try:
            await asyncio.wait((self._writing,))
        finally:
            self._writing.cancel()
        self._writing.exception()  # a client that is gone is nobody's error


class Lease:
    """The memory of one call; ``with`` gives it back at the end."""

    __slots__ = ("_client", "_hold", "_pool", "_stall_seconds", "_streams")

    def __init__(self, pool: _Pool, streams: Room, client: str, stall_seconds: float) -> None:
        self._pool = pool
        self._streams = streams
        self._client = client
        self._stall_seconds = stall_seconds
        self._hold: Hold | None = None

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Gives the memory back, also before the call ends; harmless when repeated."""
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.release()

    async def message(self, read: Callable[[], Awaitable[Any]]) -> Any:
        """Reads a call's only message, once there is room for it.

        Args:
            read: Gives the message's bytes, or gRPC's mark for the end.

        Raises:
            EpochdError: SERVER_BUSY or CLIENT_BUSY; CALL_STALLED where it does not come.
        """
        arriving = await self._pool.arriving.take(MAX_MESSAGE_BYTES, self._client)
        try:
            data = await self.next(read)
            if isinstance(data, bytes) and len(data) > SMALL_BYTES:
                self._hold = await self._pool.working.take(EXPANSION * len(data), self._client)
            return data
        finally:
            arriving.release()

    async def stream(self) -> None:
        """Takes what a stream of messages needs, for as long as the call goes on.

        Raises:
            EpochdError: SERVER_BUSY or CLIENT_BUSY.
        """
        self._hold = await self._streams.take(STREAM_BYTES, self._client)

    async def next(self, read: Callable[[], Awaitable[Any]]) -> Any:
        """Waits for the client to send a message.

        Args:
            read: Gives the message's bytes, or gRPC's mark for the end.

        Raises:
            EpochdError: CALL_STALLED where the client keeps it waiting for too long.
        """
        with contextlib.suppress(
            TimeoutError
        ):  # raised below, so that the error keeps no frame, and no message, alive
            async with asyncio.timeout(self._stall_seconds):
                return await read()
        raise EpochdError(Reason.CALL_STALLED)

    async def taken(self, write: Coroutine[Any, Any, None]) -> None:
        """Waits for the client to take a message.

        Args:
            write: Ends when it has taken it.

        Raises:
            Untaken: Where the client keeps it waiting for too long.
        """
        writing = asyncio.ensure_future(write)
        try:
            await asyncio.wait((writing,), timeout=self._stall_seconds)
        except asyncio.CancelledError:
            writing.cancel()
            raise
        if not writing.done():
            raise Untaken(writing)
        await writing
