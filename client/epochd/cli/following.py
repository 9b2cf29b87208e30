"""Following a run to its end, and what Ctrl-C does meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

import typer

import epochd
from epochd import events
from epochd._transport.background import Background
from epochd.cli.output import Output
from epochd.cli.session import Exit
from epochd.cli.views import View, view


@dataclass(slots=True)
class _Progress:
    """How far a run has been shown."""

    sequence: int
    last: events.Event | None = None


def follow(run: epochd.Run, output: Output, *, after: int = 0, cancels: bool) -> None:
    """Shows a run's events to the end.

    Args:
        run: The run.
        output: Where to.
        after: Events up to this sequence number are passed over.
        cancels: Whether Ctrl-C asks the run to cancel, rather than to stop looking.

    Raises:
        typer.Exit: The run failed or was cancelled, or Ctrl-C was pressed.
    """
    progress = _Progress(after)
    interrupted = False
    with view(output) as shown:
        showing = Background(lambda: _show(run, shown, progress))
        try:
            showing.result()
        except KeyboardInterrupt:
            if not cancels:
                shown.note(f"{run.name} goes on; see it again with: epochd runs watch {run.name}")
                raise
            interrupted = True
            shown.note("Ctrl-C: the run is asked to cancel; once more to leave it alone")
            Background(run.cancel).result()
            showing.result()
    if isinstance(progress.last, events.Failed | events.Cancelled):
        raise typer.Exit(Exit.INTERRUPTED if interrupted else Exit.FAILED)


def _show(run: epochd.Run, shown: View, progress: _Progress) -> None:
    for event in run.events():
        progress.last = event
        if event.sequence > progress.sequence:
            progress.sequence = event.sequence
            shown.show(event)
