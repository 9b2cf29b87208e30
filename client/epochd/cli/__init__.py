"""The command line `epochd`. Needs typer and rich (`pip install 'epochd[cli]'`), which nothing else imports."""

from __future__ import annotations

import sys

_NEEDED = ("typer", "rich")
_HINT = "epochd: the command line needs typer and rich; install them with: pip install 'epochd[cli]'"


def main() -> None:
    """Runs the command line with the arguments of the process, and exits with its code.

    Exit codes: 0 done; 1 the server refused, the run failed, or nothing answers; 2 wrong usage; 130 Ctrl-C.
    """
    try:
        from epochd.cli.app import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _NEEDED:
            raise
        sys.exit(_HINT)
    sys.exit(run(sys.argv[1:]))


__all__ = ["main"]
