"""Calls that change something, once for each request_id.

A request that comes again, after a broken connection perhaps, is answered as the first was and changes nothing. What
is changed and that it was answered are one commit, so that a crash loses both or none; a request that failed is not
remembered. Of two at once the second waits for the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from google.protobuf.message import Message

from epochd_server.domain.once import AnsweredBefore, AskedOnce, Once
from epochd_server.storage import Answers

T = TypeVar("T")
R = TypeVar("R", bound=Message)

Act = Callable[[Once[T] | None], Awaitable[T]]
"""Makes a change; with an Once, in a transaction that remembers the answer too."""


@dataclass(frozen=True, slots=True)
class Changed(Generic[T, R]):
    """A change whose response is remembered as it was.

    Attributes:
        parse: Makes a response of its bytes.
        response: Makes a response.
    """

    parse: Callable[[bytes], R]
    response: Callable[[T], R]

    def respond(self, result: T) -> R:
        """The response."""
        return self.response(result)

    def pack(self, result: T) -> bytes:
        """The response's bytes."""
        return self.response(result).SerializeToString()

    async def recall(self, packed: bytes) -> R:
        """The first response."""
        return self.parse(packed)


@dataclass(frozen=True, slots=True)
class Made(Generic[T, R]):
    """Something that was made: its name is remembered.

    Attributes:
        name: Its resource name.
        find: Finds it by that name.
        response: Makes a response.
    """

    name: Callable[[T], str]
    find: Callable[[str], Awaitable[T]]
    response: Callable[[T], R]

    def respond(self, result: T) -> R:
        """The response."""
        return self.response(result)

    def pack(self, result: T) -> bytes:
        """The name."""
        return self.name(result).encode()

    async def recall(self, packed: bytes) -> R:
        """The response with what the first request made, as it is now."""
        return self.response(await self.find(packed.decode()))


@dataclass(frozen=True, slots=True)
class Wished(Generic[T, R]):
    """A change that is carried out after the transaction that remembers it.

    Attributes:
        parse: Makes a response of its bytes.
        response: Makes a response.
        heed: Carries out what is still wished of the resource in a response, if anything is.
    """

    parse: Callable[[bytes], R]
    response: Callable[[T], R]
    heed: Callable[[R], Awaitable[None]]

    def respond(self, result: T) -> R:
        """The response."""
        return self.response(result)

    def pack(self, result: T) -> bytes:
        """The response's bytes."""
        return self.response(result).SerializeToString()

    async def recall(self, packed: bytes) -> R:
        """The first response. Whoever was given it, or was not, may have been cut off before the wish was heeded."""
        response = self.parse(packed)
        await self.heed(response)
        return response


Form = Changed[T, R] | Made[T, R] | Wished[T, R]
"""How a change is answered, and how that is remembered: ``pack`` is called within the transaction, and is quick."""


@dataclass(slots=True)
class _Turn:
    """A request that is being answered, and how many with its id are, or wait for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    callers: int = 0


class Mutations:
    """Makes changes once.

    Args:
        answers: What requests were answered.
    """

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._turns: dict[str, _Turn] = {}

    async def once(self, asked: AskedOnce | None, act: Act[T], form: Form[T, R]) -> R:
        """Makes a change; of a repeated request, only says what the first one changed.

        Args:
            asked: The request; None where it has no request_id, and is made as often as it comes.
            act: Makes the change.
            form: How it is answered.

        Raises:
            EpochdError: REQUEST_ID_REUSED; or whatever ``act`` raises.
        """
        if asked is None:
            return form.respond(await act(None))
        async with self._turn(asked.request_id):
            known = await self._answers.find(asked)
            if known is None:
                try:
                    return form.respond(await act(Once(asked, form.pack)))
                except AnsweredBefore as before:
                    known = before.answer
            return await form.recall(known)

    async def wish(self, asked: AskedOnce | None, act: Act[T], form: Wished[T, R]) -> R:
        """As :meth:`once`, for a change that is carried out after it was remembered, whether its client waits or not.

        What it came to is remembered as soon as it is known; until then, what was there when it was wished.
        """

        async def act_and_tell(once: Once[T] | None) -> T:
            result = await act(once)
            if once is not None:
                await self._answers.amend(once.asked, form.pack(result))
            return result

        return await asyncio.shield(asyncio.create_task(self.once(asked, act_and_tell, form)))

    @asynccontextmanager
    async def _turn(self, request_id: str) -> AsyncIterator[None]:
        turn = self._turns.setdefault(request_id, _Turn())
        turn.callers += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.callers -= 1
            if not turn.callers:
                del self._turns[request_id]
