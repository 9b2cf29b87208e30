"""How much memory a process has, looked up again and again: once it is dead nobody can say."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

SECONDS = 0.25
"""Between two looks."""
_MEBIBYTE = 2**20


class MemoryWatch:
    """Remembers the resident memory of a process.

    Args:
        pid: The process.
    """

    def __init__(self, pid: int) -> None:
        self._file = Path(f"/proc/{pid}/statm")
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._seen: tuple[int, float] | None = None

    async def watch(self) -> None:
        """Looks every :data:`SECONDS`, until it is cancelled; where there is no /proc, it ends at once."""
        while (resident := self._resident()) is not None:
            if resident:  # 0 once it is dead
                self._seen = resident, time.monotonic()
            await asyncio.sleep(SECONDS)

    def describe(self) -> str:
        """What was seen last, such as ``, with 512 MiB of memory 0.2 s before``; empty where nothing was."""
        if self._seen is None:
            return ""
        resident, when = self._seen
        return f", with {resident / _MEBIBYTE:,.0f} MiB of memory {time.monotonic() - when:.1f} s before"

    def _resident(self) -> int | None:
        try:
            return int(self._file.read_text(encoding="ascii").split()[1]) * self._page
        except (OSError, IndexError, ValueError):
            return None
