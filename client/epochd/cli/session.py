"""What every command shares: the server, the output, and how errors end the program."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum

import typer

import epochd
from epochd.cli.output import Output
from epochd.cli.records import RunReader

DEFAULT_SERVER = "127.0.0.1:50051"


class Exit(IntEnum):
    """Exit codes."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Session:
    """The global options."""

    server: str
    """Where the server is, HOST:PORT."""

    output: Output
    """Where results go."""

    @contextmanager
    def client(self) -> Iterator[epochd.Client]:
        """A client of the server."""
        with epochd.connect(self.server) as client:
            yield client

    @contextmanager
    def runs(self) -> Iterator[RunReader]:
        """A reader of the server's runs."""
        reader = RunReader(self.server)
        try:
            yield reader
        finally:
            reader.close()


def of(context: typer.Context) -> Session:
    """The session of a command."""
    session = context.find_object(Session)
    assert session is not None, "the root command makes it"  # noqa: S101 - a bug, never input
    return session


@contextmanager
def reported_errors() -> Iterator[None]:
    """Ends the program with a readable message and an honest code, whatever goes wrong as it may."""
    try:
        yield
    except epochd.EpochdError as error:
        report(error)
        raise typer.Exit(Exit.FAILED) from None
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
    except BrokenPipeError:  # the reader, such as head, has seen enough
        sys.stdout = None  # else the interpreter flushes it again, and complains
        raise typer.Exit(Exit.FAILED) from None


def report(error: epochd.EpochdError) -> None:
    """Writes an error to standard error: what is wrong, every field of it, and how to find it in the server's log."""
    lines = [f"error: {error}"]
    lines += [
        f"  {key}: {fact}"
        for key, fact in error.metadata.items()
        if key != "request_id" and fact not in lines[0]
    ]
    if error.retry_after is not None:
        lines.append(f"  Trying again may help in {error.retry_after:g} s.")
    if error.code == "INTERNAL" and error.request_id:
        lines.append(f"  The server's log says more under request id {error.request_id}.")
    Output(as_json=False).errors.print("\n".join(lines), markup=False, soft_wrap=True, style="red")
