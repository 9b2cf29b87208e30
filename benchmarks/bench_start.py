"""From the start of the process to SERVING against ``python -c "import torch"``."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks.harness import Row, server, timed

REPEATS = 5


def _seconds_to_serving() -> float:
    start = time.perf_counter()
    with server(workers=2):
        return time.perf_counter() - start


def measure() -> list[Row]:
    """One row, with two workers warm."""
    _seconds_to_serving()
    pairs = [
        (
            _seconds_to_serving(),
            timed(lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True)),
        )
        for _ in range(REPEATS)
    ]
    ratios = [a / b for a, b in pairs]
    return [
        Row(
            work="server start to SERVING, two workers",
            ours=statistics.median(a for a, _ in pairs),
            against="python -c 'import torch'",
            theirs=statistics.median(b for _, b in pairs),
            aim="—",
            spread=(min(ratios), max(ratios)),
        )
    ]
