"""How a run's events are shown as they come: a live view on a terminal, lines in a pipe, JSON lines on request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from epochd import events
from epochd._words import counted
from epochd.cli.curve import Trace, is_log, plot, sparkline
from epochd.cli.output import Output, duration, plain
from epochd.events import short_number

_FRAMES_PER_SECOND = 12
_SPARK_WIDTH = 24
_CURVE_HEIGHT = 8
_CURVE_WIDTH = 76
_MIN_CURVE_WIDTH = 30
_QUIET_SECONDS = 5.0
_MARKS: dict[type[events.Event], tuple[str, str]] = {
    events.Cancelled: ("■", "yellow"),
    events.Paused: ("‖", "blue"),
    events.Resumed: ("▸", "blue"),
}


class View(Protocol):
    """Shows events, one by one; used as a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, event: events.Event) -> None:
        """Shows the run's next event."""

    def note(self, text: str) -> None:
        """Says something that is no part of the run."""


def view(output: Output) -> View:
    """The view that fits where the output goes."""
    if output.as_json:
        return JsonView(output)
    return LiveView(output.console) if output.is_terminal else LineView(output)


class _View:
    def __init__(self, output: Output) -> None:
        self._output = output

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def note(self, text: str) -> None:
        """Writes it to standard error."""
        self._output.note(text)


class LineView(_View):
    """One line an event."""

    def show(self, event: events.Event) -> None:
        """Writes the event's line, at once."""
        self._output.line(str(event))


class JsonView(_View):
    """One JSON object an event; ``event`` says of which kind."""

    def show(self, event: events.Event) -> None:
        """Writes the event's object, at once."""
        self._output.json(event_record(event))


class LiveView:
    """Progress, loss and time left while a run trains; its loss curve at the end.

    Args:
        console: A terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._trace = Trace()
        self._held_out = Trace()
        self._title = Text("waiting for the server …", "dim")
        self._heard = time.monotonic()
        self._numbers = Text("")
        self._progress = Progress(
            BarColumn(bar_width=None),
            TextColumn("[green]{task.completed:,}/{task.total:,}[/] {task.description}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console,
            expand=True,
        )
        self._task: TaskID | None = None
        self._live = Live(
            console=console,
            refresh_per_second=_FRAMES_PER_SECOND,
            transient=True,
            get_renderable=self._render,
        )

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, event: events.Event) -> None:
        """Brings the view up to date."""
        self._heard = time.monotonic()
        match event:
            case events.Queued():
                self._say(f"{event.run} → {event.model}", "dim")
                self._title = Text("waiting for a free worker …", "dim")
            case events.Started():
                self._start(event)
            case events.MemberLog():
                self._say(str(event), "dim")
            case events.EpochLog():
                self._log(event)
            case events.FleetProgress():
                self._fleet(event)
            case events.Warning():
                self._say(f"! {event.message}", "yellow")
            case events.Succeeded():
                self._console.print(Group(*self._summary(event)))
            case events.Failed():
                self._say(f"✗ {_failure(event)}", "red")
            case _ if type(event) in _MARKS:
                mark, color = _MARKS[type(event)]
                self._say(f"{mark} {event}", color)

    def note(self, text: str) -> None:
        """Says something above the live part."""
        self._say(text, "yellow")

    def _start(self, event: events.Started) -> None:
        self._say(_started(event), "dim")
        self._task = self._progress.add_task(
            "members" if event.members else "epochs", total=event.members or event.epochs
        )

    def _say(self, text: str, style: str) -> None:
        """Prints above the live part; in a pipe lines are as long as they are."""
        self._console.print(Text(text, style), soft_wrap=not self._console.is_terminal)

    def _log(self, log: events.EpochLog) -> None:
        self._trace.add(log.epoch, log.loss)
        if self._task is not None:
            self._progress.update(self._task, completed=log.epoch + 1)
        if log.validation_loss is not None:
            self._held_out.add(log.epoch, log.validation_loss)
        speed = f"  {short_number(log.rows_per_second)} rows/s" if log.rows_per_second else ""
        self._numbers = Text.assemble(
            "loss ",
            (f"{log.loss:.6g}", "bold"),
            (f"  lr {log.lr:g}{speed}  ", "dim"),
            (_spark(self._trace), "cyan"),
            *_held_out(log, self._held_out),
        )

    def _fleet(self, progress: events.FleetProgress) -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=progress.members_done)
        _, _, rest = str(progress).partition(", ")
        self._numbers = Text(rest)

    def _render(self) -> RenderableType:
        quiet = time.monotonic() - self._heard
        news = Text(f"last news {quiet:.0f} s ago", "yellow") if quiet > _QUIET_SECONDS else Text("")
        return Group(self._title if self._task is None else Group(self._progress, self._numbers), news)

    def _summary(self, event: events.Succeeded) -> list[RenderableType]:
        if event.members:
            return [_fleet_summary(event), *_evaluation(event)]
        points = self._trace.points
        first = f"{points[0][1]:.4g} → " if points else ""
        line = Text.assemble(
            ("✓ ", "green"),
            (event.model_version, "bold"),
            f"  {counted(event.epochs, 'epoch')} in {duration(event.training_seconds)}",
            f", loss {first}{event.final_loss:.4g}",
        )
        curves = [loss_curve(points, self._console.width)] if len(points) > 1 else []
        held_out = self._held_out.points
        if len(held_out) > 1:
            curves.append(loss_curve(held_out, self._console.width, "validation loss", "yellow"))
        return [*curves, line, *_evaluation(event)]


def _spark(trace: Trace) -> str:
    return sparkline([loss for _, loss in trace.points], _SPARK_WIDTH)


def _held_out(log: events.EpochLog, trace: Trace) -> Iterator[str | tuple[str, str]]:
    """What is said of the held-out rows while a run trains."""
    if log.validation_loss is None:
        return
    yield "\nvalidation "
    yield (f"{log.validation_loss:.6g}", "bold")
    yield ("".join(f"  {name} {value:.4g}" for name, value in log.measured.items()) + "  ", "dim")
    yield (_spark(trace), "yellow")


def _evaluation(event: events.Succeeded) -> list[RenderableType]:
    return [] if event.evaluation is None else [Text(f"  held out: {event.evaluation}")]


def _fleet_summary(event: events.Succeeded) -> Text:
    failed = (f", {event.failed_members:,} failed", "yellow") if event.failed_members else ""
    return Text.assemble(
        ("✓ ", "green"),
        (event.model_version, "bold"),
        f"  {event.members:,} members in {duration(event.training_seconds)}",
        failed,
        f", median loss {event.final_loss:.4g}",
    )


def loss_curve(
    points: list[tuple[float, float]], width: int, what: str = "loss", style: str = "cyan"
) -> RenderableType:
    """The panel of a loss curve, for a terminal of that width."""
    inner = max(_MIN_CURVE_WIDTH, min(_CURVE_WIDTH, width) - 4)
    title = f"{what} by epoch" + (", logarithmic" if is_log([loss for _, loss in points]) else "")
    curve = Text("\n".join(plot(points, inner, _CURVE_HEIGHT)), style)
    return Panel(curve, title=title, title_align="left", expand=False, border_style="dim")


def event_record(event: events.Event) -> dict[str, Any]:
    """An event as a JSON object."""
    return {"event": type(event).__name__.lower(), **plain(event)}


def _started(event: events.Started) -> str:
    names = ", ".join(event.features[:6]) + (" …" if len(event.features) > 6 else "")
    fleet = f"{event.members:,} members by {', '.join(event.key_columns)} · " if event.members else ""
    return (
        f"{fleet}{', '.join(event.targets)} from {names} · {event.dtype} on {event.device}, seed {event.seed}"
    )


def _failure(event: events.Failed) -> str:
    return event.message + (f"\n  {event.hint}" if event.hint else "")
