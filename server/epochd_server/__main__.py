"""``python -m epochd_server`` and ``epochd serve``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def serve(arguments: Sequence[str]) -> int:
    """Runs a server until it is told to stop.

    Args:
        arguments: The command line after the program's name, such as ``["--listen", "127.0.0.1:0"]``.

    Returns:
        The exit code: 0 after a graceful stop, 1 where the server cannot start, 2 for unusable settings.
    """
    # Its native part would print to standard error beside the structured logs; what matters comes as an exception.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from epochd_server import app, logs, settings
    from epochd_server.rpc.calls import add_request_id

    try:
        chosen = settings.load(arguments)
    except settings.BadSettings as error:
        return _fail(str(error), 2)
    logs.configure(chosen.log_level, chosen.log_format, add_request_id)
    try:
        app.run(chosen)
    except app.StartError as error:
        return _fail(str(error), 1)
    return 0


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"epochd: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:]))
