"""Run a command against a server of its own: a free port, a temporary folder, both gone afterwards.

    python examples/with_server.py node examples/node/train.js

The command finds the server's address in EPOCHD_SERVER.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

EXAMPLES = Path(__file__).resolve().parent
_ANNOUNCEMENT = "epochd listening on "
_STOP_SECONDS = 30


@contextmanager
def server(*options: str) -> Iterator[str]:
    """A running server; gives its address, HOST:PORT.

    Args:
        *options: Further options of `epochd serve`.
    """
    with tempfile.TemporaryDirectory(prefix="epochd-") as folder, (Path(folder) / "log").open("w+") as log:
        command = [
            sys.executable,
            "-m",
            "epochd_server",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            f"{folder}/data",
        ]
        # A session of its own: Ctrl-C in the terminal is for this program, which then stops the server.
        with subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        ) as process:
            try:
                yield _address(process, log)
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(_STOP_SECONDS)


def _address(process: subprocess.Popen[str], log: IO[str]) -> str:
    for line in process.stdout or ():
        if line.startswith(_ANNOUNCEMENT):
            return line.removeprefix(_ANNOUNCEMENT).strip()
    log.seek(0)
    sys.exit(f"The server did not start:\n{log.read().strip()}")


if __name__ == "__main__":
    with server("--modules", str(EXAMPLES / "linear_regression_model.py")) as address:
        sys.exit(subprocess.run(sys.argv[1:], env={**os.environ, "EPOCHD_SERVER": address}).returncode)
