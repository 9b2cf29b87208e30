"""`epochd serve`: hands over to the server, where it is installed."""

from __future__ import annotations

from importlib import metadata

import typer

_GROUP = "epochd.commands"
_MISSING = "error: the server is not installed here; install it with: pip install 'epochd[server]'"


def serve(context: typer.Context) -> None:
    """Start a server. `epochd serve --help` lists its settings."""
    try:
        (entry,) = metadata.entry_points(group=_GROUP, name="serve")
        start = entry.load()
    except (ValueError, ModuleNotFoundError):
        typer.echo(_MISSING, err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(start(context.args) or 0)
