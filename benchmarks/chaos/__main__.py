"""``python -m benchmarks.chaos``: makes trouble and prints the counts; exit code 1 where anything is wrong."""

from __future__ import annotations

import argparse
import sys

from benchmarks.chaos.running import Options, run


def main(arguments: list[str]) -> int:
    """One chaos run; the exit code."""
    defaults = Options()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    for name, said in (
        ("seed", "decides what is done and killed, and when"),
        ("seconds", "how long there is trouble"),
        ("kills", "how much of it"),
        ("clients", "how many work meanwhile"),
        ("workers", "worker processes of the server"),
        ("checkpoint-interval", "seconds between two checkpoints of a run"),
    ):
        default = getattr(defaults, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{said} (%(default)s)")
    parser.add_argument("--database-url", help="a PostgreSQL database; unset: SQLite in a folder of its own")
    given = vars(parser.parse_args(arguments))
    url = given.pop("database_url")
    report = run(Options(**given, flags=("--database-url", url) if url else ()))
    print(report)
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
