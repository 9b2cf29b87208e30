"""`epochd runs`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Annotated

import typer
from rich.text import Text

from epochd.cli.following import follow
from epochd.cli.output import Column, ago, duration
from epochd.cli.records import RunDetails
from epochd.cli.session import of
from epochd.events import State
from epochd.run import Run

app = typer.Typer(
    no_args_is_help=True,
    help="Runs: list, show, watch, pause, resume, cancel, delete.",
    rich_markup_mode="markdown",
)

_COLORS = {
    State.QUEUED: "yellow",
    State.RUNNING: "cyan",
    State.SUCCEEDED: "green",
    State.FAILED: "red",
    State.CANCELLED: "magenta",
    State.PAUSED: "blue",
}
_Name = Annotated[str, typer.Argument(metavar="RUN", help="runs/ID, or the ID alone.")]


def _state(run: RunDetails) -> Text:
    return Text(run.state, _COLORS[run.state])


def _epoch(run: RunDetails) -> str:
    return f"{0 if run.latest_epoch is None else run.latest_epoch + 1:,}/{run.epochs:,}"


def _loss(run: RunDetails) -> str:
    return "" if run.latest_loss is None else f"{run.latest_loss:.6g}"


def _took(run: RunDetails) -> str:
    return "" if run.seconds is None else duration(run.seconds)


_COLUMNS = (
    Column("RUN", lambda run: run.name.removeprefix("runs/"), whole=True),
    Column("STATE", _state),
    Column("MODEL", lambda run: run.model.removeprefix("models/")),
    Column("EPOCHS", _epoch, right=True),
    Column("LOSS", _loss, right=True),
    Column("CREATED", lambda run: ago(run.create_time)),
    Column("TOOK", _took, right=True),
)


@app.command("list")
def list_runs(
    context: typer.Context,
    state: Annotated[
        list[State] | None,
        typer.Option(case_sensitive=False, help="Only runs in this state; may be repeated."),
    ] = None,
    model: Annotated[str, typer.Option(metavar="NAME", help="Only runs of this model.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many.")] = 20,
) -> None:
    """List runs, newest first."""
    session = of(context)
    with session.runs() as runs:
        found = list(islice(runs.list(model=model or None, states=state or ()), limit + 1))
    session.output.rows(_COLUMNS, found[:limit], empty="There are no runs yet. Start one with: epochd train")
    if len(found) > limit and not session.output.as_json:
        session.output.note(f"There are more; see them with --limit {10 * limit}")


@app.command("show")
def show_run(context: typer.Context, name: _Name) -> None:
    """Show what a run trains and how far it is."""
    session = of(context)
    with session.runs() as runs:
        run = runs.get(name)
    fields = {
        "run": run.name,
        "state": str(run.state),
        "model": run.model_version or run.model,
        "trains": f"{run.spec}, {run.dtype}, seed {run.seed}",
        "fit": f"{run.loss} by {run.optimizer}",
        "epochs": _epoch(run),
        "loss": _loss(run),
        "created": f"{run.create_time:%Y-%m-%d %H:%M:%S} UTC, {ago(run.create_time)}",
        "took": _took(run),
        "failure": run.failure or "",
    }
    session.output.record(run, {name: text for name, text in fields.items() if text})


@app.command("watch")
def watch_run(
    context: typer.Context,
    name: _Name,
    after: Annotated[int, typer.Option(metavar="SEQUENCE", help="Pass over events up to this number.")] = 0,
) -> None:
    """Follow a run to its end, from its first event on. Ctrl-C only stops looking."""
    session = of(context)
    with session.client() as client:
        follow(client.run(name), session.output, after=after, cancels=False)


@app.command("cancel")
def cancel_run(
    context: typer.Context,
    name: _Name,
    keep_weights: Annotated[
        bool, typer.Option("--keep-weights", help="Make a version of what the run has reached.")
    ] = False,
) -> None:
    """Ask a run to end at its next epoch; one that has ended is left as it is."""
    _ask(context, name, lambda run: run.cancel(keep_weights=keep_weights))


@app.command("pause")
def pause_run(context: typer.Context, name: _Name) -> None:
    """Ask a run to stop at its next epoch and keep its place."""
    _ask(context, name, lambda run: run.pause())


@app.command("resume")
def resume_run(context: typer.Context, name: _Name) -> None:
    """Let a paused run go on."""
    _ask(context, name, lambda run: run.resume())


def _ask(context: typer.Context, name: str, ask: Callable[[Run], State]) -> None:
    """Asks something of a run, and shows the state that it has then."""
    session = of(context)
    with session.client() as client:
        run = client.run(name)
        state = ask(run)
    session.output.record({"run": run.name, "state": state}, {"run": run.name, "state": str(state)})


@app.command("delete")
def delete_run(context: typer.Context, name: _Name) -> None:
    """Delete a run that has ended, and its log. Its model version stays."""
    session = of(context)
    with session.client() as client:
        run = client.run(name)
        run.delete()
    session.output.record({"deleted": run.name}, {"deleted": run.name})
