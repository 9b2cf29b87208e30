"""A live line for a run: a bar with epoch, loss, speed and time left; sparse lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self, TextIO

from epochd.events import EpochLog, Event, FleetProgress, MemberLog, Queued, Started, short_number

_WIDTH = 24
_REDRAW_SECONDS = 0.1
_LINE_SECONDS = 5.0


class ProgressBar:
    """Shows the events of one run.

    Args:
        label: Stands before the bar, such as the model's name.
        file: Where to write; None: standard error.
        live: Whether to redraw one line; None: on a terminal and in a notebook.

    Example:
        >>> with ProgressBar("house-price", file=sys.stdout, live=False) as bar:
        ...     pass                                   # for event in run.events(): bar.show(event)
    """

    def __init__(self, label: str, *, file: TextIO | None = None, live: bool | None = None) -> None:
        self._label = label
        self._file = file or sys.stderr
        self._live = _is_live(self._file) if live is None else live
        self._began = time.monotonic()
        self._first_epoch: int | None = None
        self._shown_at = float("-inf")
        self._drawn = 0
        self._pending: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._settle()

    def show(self, event: Event) -> None:
        """Takes the run's next event."""
        if isinstance(event, Started):
            self._began = time.monotonic()
        elif isinstance(event, EpochLog | FleetProgress):
            self._log(event)
            return
        self._settle()
        if not self._live or not isinstance(event, Queued):
            self._print(f"{self._label}: {event}")

    def _log(self, log: EpochLog | FleetProgress) -> None:
        if isinstance(log, MemberLog) and self._live:
            return  # the line is the fleet's
        if self._live:
            self._pending = self._fleet_line(log) if isinstance(log, FleetProgress) else self._line(log)
        else:
            self._pending = f"{self._label}: {log}"
        now = time.monotonic()
        if now - self._shown_at < (_REDRAW_SECONDS if self._live else _LINE_SECONDS):
            return
        self._shown_at = now
        self._flush_pending()

    def _fleet_line(self, progress: FleetProgress) -> str:
        bar = _bar(progress.members_done, progress.members_total)
        return f"{self._label} {bar} {progress}"

    def _line(self, log: EpochLog) -> str:
        if self._first_epoch is None:
            self._first_epoch = log.epoch
        done, epochs = log.epoch + 1, max(log.epochs, log.epoch + 1)
        bar = _bar(done, epochs)
        parts = [f"{self._label} {bar} {done:>{len(str(epochs))}}/{epochs}", f"loss {log.loss:.6g}"]
        if log.validation_loss is not None:
            parts.append(f"validation {log.validation_loss:.6g}")
        if log.rows_per_second:
            parts.append(f"{short_number(log.rows_per_second)} rows/s")
        left = self._seconds_left(done, epochs)
        if left is not None:
            parts.append(f"ETA {clock(left)}")
        return "  ".join(parts)

    def _seconds_left(self, done: int, epochs: int) -> float | None:
        seen = done - 1 - (self._first_epoch or 0)
        return (time.monotonic() - self._began) / seen * (epochs - done) if seen > 0 else None

    def _flush_pending(self) -> None:
        if self._pending is None:
            return
        if self._live:
            self._file.write("\r" + self._pending.ljust(self._drawn))
            self._file.flush()
            self._drawn = len(self._pending)
        else:
            self._print(self._pending)
        self._pending = None

    def _settle(self) -> None:
        """Shows what is held back and leaves the live line."""
        self._flush_pending()
        if self._drawn:
            self._print("")
            self._drawn = 0

    def _print(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()


def _bar(done: int, total: int) -> str:
    filled = _WIDTH * done // max(1, total)
    return "━" * filled + "─" * (_WIDTH - filled)


def clock(seconds: float) -> str:
    """A duration as on a clock.

    Example:
        >>> clock(75), clock(3661)
        ('1:15', '1:01:01')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _is_live(file: TextIO) -> bool:
    """Whether one line can be redrawn there: a terminal, or a notebook, which heeds carriage returns, too."""
    return file.isatty() or "ipykernel" in sys.modules
