"""`epochd serve` and `epochd admin`: hand over to the server, where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata

import typer

from epochd.cli.session import of

_GROUP = "epochd.commands"
_MISSING = "error: the server is not installed here; install it with: pip install 'epochd[server]'"


def serve(context: typer.Context) -> None:
    """Start a server. `epochd serve --help` lists its settings."""
    raise typer.Exit(_command("serve")(context.args) or 0)


def admin(context: typer.Context) -> None:
    """Check, clean, back up and restore what a server on this machine has stored."""
    asked = ["--json"] if of(context).output.as_json and context.args else []
    raise typer.Exit(_command("admin")([*context.args, *asked]) or 0)


def _command(name: str) -> Callable[[Sequence[str]], int]:
    """What the server's part of the distribution does for a command."""
    try:
        (entry,) = metadata.entry_points(group=_GROUP, name=name)
        command: Callable[[Sequence[str]], int] = entry.load()
    except (ValueError, ModuleNotFoundError):
        typer.echo(_MISSING, err=True)
        raise typer.Exit(1) from None
    return command
