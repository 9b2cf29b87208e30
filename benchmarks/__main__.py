"""``python -m benchmarks [NAME …]``: runs the benchmarks and prints one table."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys

import benchmarks
from benchmarks.harness import ONE_THREAD, render


def main(names: list[str]) -> None:
    """Runs the named benchmarks, or all of them."""
    os.environ.update(ONE_THREAD)
    found = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name.startswith("bench_"))
    chosen = [f"bench_{name.removeprefix('bench_')}" for name in names] or found
    rows = []
    for name in chosen:
        print(f"… {name.removeprefix('bench_')}", file=sys.stderr, flush=True)
        rows += importlib.import_module(f"benchmarks.{name}").measure()
    print(render(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
