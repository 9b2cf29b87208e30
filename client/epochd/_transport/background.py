"""Waiting that Ctrl-C may interrupt at any moment.

A KeyboardInterrupt inside of gRPC can leave one of its locks held, and then the whole channel hangs. So a thread,
which signals never interrupt, does the waiting, and the caller waits for the thread in a way that is safe.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_LOOK_UP_SECONDS = 0.2


class Background(Generic[T]):
    """A function that runs in a thread of its own from now on.

    Example:
        >>> Background(lambda: 6 * 7).result()
        42
    """

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._values: list[T] = []
        self._errors: list[Exception] = []
        self._ended: queue.SimpleQueue[None] = (
            queue.SimpleQueue()
        )  # its get() is C code, and so never half done
        threading.Thread(target=self._work, daemon=True).start()

    def result(self) -> T:
        """Waits for the function and returns its value, or raises its error; may be called again when interrupted."""
        while not (self._values or self._errors):
            # The system may give a signal to another thread, so this one has to look up from time to time.
            with contextlib.suppress(queue.Empty):
                self._ended.get(timeout=_LOOK_UP_SECONDS)
        if self._errors:
            raise self._errors[0]
        return self._values[0]

    def _work(self) -> None:
        try:
            self._values.append(self._function())
        except Exception as error:  # noqa: BLE001, RUF100 - handed on as it is
            self._errors.append(error)
        self._ended.put(None)
