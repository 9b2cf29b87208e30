"""``python -m benchmarks.load [NAME …]``: runs the measurements under load and prints one table."""

from __future__ import annotations

import importlib
import os
import sys

from benchmarks.harness import ONE_THREAD, render

NAMES = ("predict", "persisting", "watchers", "storm", "growth", "checkpoints", "recovery")


def main(names: list[str]) -> None:
    """Runs the named measurements, or all of them."""
    os.environ.update(ONE_THREAD)
    rows = []
    for name in names or NAMES:
        print(f"… {name}", file=sys.stderr, flush=True)
        rows += importlib.import_module(f"benchmarks.load.{name}").measure()
    print(render(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
