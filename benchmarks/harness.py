"""What the benchmarks share: paired measuring, the table's rows, a real server."""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the table.

    Attributes:
        work: What was done.
        ours: Seconds (or another unit, see ``unit``) that epochd took, the median.
        against: What it is compared with.
        theirs: The same figure for the alternative.
        aim: What was aimed at, such as ``≤ 0.5``.
        better: ``less`` where ours/theirs is the ratio that should be small, ``more`` where theirs/ours is a speed-up.
        spread: Smallest and largest ratio of the pairs.
    """

    work: str
    ours: float
    against: str
    theirs: float
    aim: str
    better: str = "less"
    unit: str = "s"
    spread: tuple[float, float] | None = None

    @property
    def ratio(self) -> float:
        """ours/theirs, or the speed-up theirs/ours."""
        return self.ours / self.theirs if self.better == "less" else self.theirs / self.ours


def timed(action: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def paired(
    ours: Callable[[], object], theirs: Callable[[], object], repeats: int = 7
) -> tuple[float, float, tuple[float, float]]:
    """Medians of both and the spread of their ratio, measured in turn (A B A B …) after one warm-up each."""
    ours(), theirs()
    pairs = [(timed(ours), timed(theirs)) for _ in range(repeats)]
    ratios = [a / b for a, b in pairs]
    return (
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        (min(ratios), max(ratios)),
    )


@contextlib.contextmanager
def server(*flags: str, workers: int = 1) -> Iterator[str]:
    """A warm epochd server in a process of its own; gives its address."""
    with tempfile.TemporaryDirectory() as folder:
        fixed = [
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            folder,
            "--workers",
            str(workers),
            "--log-level",
            "warning",
        ]
        with listening("epochd_server", *fixed, *flags) as address:
            yield address


@contextlib.contextmanager
def listening(module: str, *flags: str) -> Iterator[str]:
    """``python -m module flags`` until the end of the block; gives the address it says it is listening on."""
    command = [sys.executable, "-m", module, *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | ONE_THREAD)
    try:
        yield _address(process)
    finally:
        process.terminate()
        process.wait(timeout=60)
        if process.stdout:
            process.stdout.close()


def _address(process: subprocess.Popen[str]) -> str:
    if process.stdout is None:
        raise RuntimeError("the server's output is not piped")
    for line in process.stdout:
        if match := re.search(r"listening on (\S+)", line):
            return match[1]
    raise RuntimeError(f"the server ended with {process.wait()} before it listened")


def render(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| work | epochd | against | its figure | ratio | spread | aim |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        sign = "" if row.better == "less" else " ×"
        spread = f"{row.spread[0]:.2f} … {row.spread[1]:.2f}" if row.spread else ""
        lines.append(
            f"| {row.work} | {_figure(row.ours, row.unit)} | {row.against} | {_figure(row.theirs, row.unit)} "
            f"| {row.ratio:.3g}{sign} | {spread} | {row.aim} |"
        )
    return "\n".join(lines)


def _figure(value: float, unit: str) -> str:
    if unit != "s":
        return f"{value:,.0f} {unit}"
    for scale, name in ((1.0, "s"), (1e-3, "ms")):
        if value >= scale:
            return f"{value / scale:.3g} {name}"
    return f"{value * 1e6:.3g} µs"
