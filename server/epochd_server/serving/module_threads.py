"""Threads for the code of registered modules: whatever it does there, the server goes on.

Nobody can end a thread, so a call that never returns keeps its own for ever. The threads are daemons, which no exit
waits for; a module gets a few at most; and those that are lost do not count among the ones that all modules share.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from epochd_server.domain.errors import EpochdError, Reason

T = TypeVar("T")

PATIENCE_SECONDS: Final = 30.0
"""A call that takes longer is taken for one that hangs, until it returns."""

_AT_ONCE: Final = 4
_OF_ONE_MODULE: Final = 2
_NAME: Final = "registered-module"

_logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Call:
    """Work that waits or runs, and who waits for it."""

    module: str
    work: Callable[[], Any]
    future: asyncio.Future[Any]
    began: float = 0.0
    is_hung: bool = False
    alarm: asyncio.TimerHandle | None = None


class ModuleThreads:
    """Runs calls of registered modules, each in a thread of its own; used within one loop.

    Args:
        at_once: How many run at once, besides those that hang.
        of_one: How many of one module run or hang at once.
        patience_s: When a call is taken for one that hangs.
    """

    def __init__(
        self,
        *,
        at_once: int = _AT_ONCE,
        of_one: int = _OF_ONE_MODULE,
        patience_s: float = PATIENCE_SECONDS,
    ) -> None:
        self._at_once = at_once
        self._of_one = of_one
        self._patience_s = patience_s
        self._running: list[_Call] = []
        self._waiting: dict[str, dict[_Call, None]] = {}

    async def run(self, module: str, work: Callable[[], T]) -> T:
        """The result of ``work``, which calls the registered module ``module``; waits for a place.

        One who stops waiting leaves the queue. Work that has begun goes on, with nobody to hear of its end.

        Raises:
            EpochdError: MODULE_FAILED where all places of the module are taken by calls that hang; SERVER_BUSY where
                the machine has no thread left.
        """
        if self._is_lost(module):
            raise self._refusal(module)
        context = contextvars.copy_context()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        call = _Call(module, partial(context.run, work), future)
        self._waiting.setdefault(module, {})[call] = None
        self._admit()
        try:
            return await future
        finally:
            self._forget(call)

    async def patiently(self, module: str, work: Callable[[], T]) -> T:
        """As :meth:`run`, of work that never takes long: it is given up where it does.

        Raises:
            EpochdError: As :meth:`run`; MODULE_FAILED where it does not end.
        """
        try:
            async with asyncio.timeout(self._patience_s):
                return await self.run(module, work)
        except TimeoutError:
            message = f"The registered module {module!r} was not ready within {self._patience_s:.0f} s."
            raise EpochdError(Reason.MODULE_FAILED, message) from None

    def _forget(self, call: _Call) -> None:
        """Takes a call out of the queue, if it is there still."""
        queue = self._waiting.get(call.module, {})
        queue.pop(call, None)
        if not queue:
            self._waiting.pop(call.module, None)

    def _admit(self) -> None:
        """Starts what waits as far as there is room: the modules take turns, each in the order of its calls."""
        while module := next(filter(self._has_room, self._waiting), None):
            queue = self._waiting.pop(module)
            call = next(iter(queue))
            del queue[call]
            if queue:
                self._waiting[module] = queue  # behind the others
            if not call.future.done():
                self._start(call)

    def _has_room(self, module: str) -> bool:
        busy = sum(not call.is_hung for call in self._running)
        return busy < self._at_once and len(self._calls_of(module)) < self._of_one

    def _calls_of(self, module: str) -> list[_Call]:
        return [call for call in self._running if call.module == module]

    def _is_lost(self, module: str) -> bool:
        return sum(call.is_hung for call in self._calls_of(module)) >= self._of_one

    def _start(self, call: _Call) -> None:
        loop = asyncio.get_running_loop()
        try:
            threading.Thread(target=self._work, args=(call, loop), name=_NAME, daemon=True).start()
        except RuntimeError:
            call.future.set_exception(EpochdError(Reason.SERVER_BUSY))
            return
        call.began = loop.time()
        call.alarm = loop.call_later(self._patience_s, self._take_for_hung, call)
        self._running.append(call)

    def _work(self, call: _Call, loop: asyncio.AbstractEventLoop) -> None:
        """What a thread does."""
        result, error = None, None
        try:
            result = call.work()
        except Exception as raised:
            error = raised
        except BaseException:  # the module's own; in a task it would end the process
            _logger.exception("a registered module tried to end the process")
            error = EpochdError(Reason.MODULE_FAILED)
        with suppress(RuntimeError):  # the loop has closed: nobody waits any more
            loop.call_soon_threadsafe(self._end, call, result, error)

    def _end(self, call: _Call, result: Any, error: Exception | None) -> None:
        if call.alarm is not None:
            call.alarm.cancel()
        self._running.remove(call)
        if not call.future.done():
            if error is None:
                call.future.set_result(result)
            else:
                call.future.set_exception(error)
        self._admit()

    def _take_for_hung(self, call: _Call) -> None:
        """Gives its place among all to others; who waits for a module that has no place left is refused."""
        call.is_hung = True
        _logger.warning(
            "a call of the registered module %r has not returned for %.0f s", call.module, self._patience_s
        )
        if self._is_lost(call.module):
            for waiting in self._waiting.pop(call.module, {}):
                if not waiting.future.done():
                    waiting.future.set_exception(self._refusal(call.module))
        self._admit()

    def _refusal(self, module: str) -> EpochdError:
        now = asyncio.get_running_loop().time()
        seconds = now - max(call.began for call in self._calls_of(module))
        message = (
            f"The registered module {module!r} predicts nothing for now: "
            f"{self._of_one} calls of it have not returned for {seconds:.0f} s."
        )
        return EpochdError(Reason.MODULE_FAILED, message)


def any_thread_is_left() -> bool:
    """Whether code of a registered module runs in a thread of this process."""
    return any(thread.name == _NAME for thread in threading.enumerate())
