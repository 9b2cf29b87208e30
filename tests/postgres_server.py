"""A real PostgreSQL server, ruled from a process of its own: prints its URL, then obeys a command a line.

Commands: ``database NAME``, ``stop``, ``kill`` and ``start``; each is answered by a line. It ends, and the server with
it, when there are no more. A process of its own, because the server's commands are started under another user, which
needs a fork, and a fork of a process in which gRPC runs can crash.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import psutil

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # pgserver's dependency complains about XDG_RUNTIME_DIR
    import pgserver


class PostgresServer:
    """The server.

    Args:
        folder: Gets its data.
    """

    def __init__(self, folder: Path) -> None:
        self._server = pgserver.get_server(folder / "data", cleanup_mode="delete")
        self._server.psql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf();")
        self.url = self._server.get_uri()

    def database(self, name: str) -> str:
        """Makes another, empty database; gives its URL."""
        self._server.psql(f"CREATE DATABASE {name};")
        return self._server.get_uri(database=name)

    def stop(self) -> str:
        """Ends the server as a crash would."""
        self._control("-m", "immediate", "stop")
        return "stopped"

    def kill(self) -> str:
        """Ends it by SIGKILL; returns when its own processes have noticed."""
        first_line = (Path(self._server.pgdata) / "postmaster.pid").read_text().splitlines()[0]
        process = psutil.Process(int(first_line))
        everyone = [process, *process.children()]
        process.kill()
        psutil.wait_procs(everyone, timeout=10)
        return "killed"

    def start(self) -> str:
        """Starts it again at the same address."""
        socket = self.url.split("host=")[1]
        self._control("-w", "-o", "-h ''", "-o", f"-k {socket}", "-l", str(self._server.log), "start")
        return "started"

    def close(self) -> None:
        """Ends it and deletes its data."""
        self.stop()  # pgserver itself would not find one that was started again
        self._server.cleanup()

    def _control(self, *arguments: str) -> None:
        commands = pgserver._commands
        commands.pg_ctl(list(arguments), pgdata=self._server.pgdata, user=self._server.system_user)


def main() -> None:
    """Serves until standard input ends."""
    server = PostgresServer(Path(sys.argv[1]))
    print(server.url, flush=True)
    try:
        for line in sys.stdin:
            command, *arguments = line.split()
            print(getattr(server, command)(*arguments), flush=True)
    finally:
        server.close()


if __name__ == "__main__":
    main()
