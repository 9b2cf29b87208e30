"""Memory that a table larger than memory takes, uploaded and trained in mini-batches: beyond that of the idle server.

``python -m benchmarks.bench_large --gigabytes 5`` tells more, and of a table of any size. Memory is that of the server
and its worker together, sampled five times a second: what is private to them (smaps_rollup: Private_Clean and
Private_Dirty), and the whole resident set, with pages of mapped files that the kernel may drop at any time.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path

import psutil

import epochd
from benchmarks.bench_upload import write_table
from benchmarks.harness import Row, server

COLUMNS, BATCH, EPOCHS = 20, 4_096, 2


class Peak:
    """The most memory that the server's processes have at a time, in bytes, by kind."""

    def __init__(self) -> None:
        self._pids = [child.pid for child in psutil.Process().children(recursive=True)]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.idle = self._now()
        self.most = dict(self.idle)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def told(self) -> str:
        """What was used beyond what the idle server uses."""
        grown = {kind: (self.most[kind] - self.idle[kind]) / 1e6 for kind in self.idle}
        return ", ".join(f"{kind} + {value:,.0f} MB" for kind, value in grown.items())

    def _watch(self) -> None:
        while not self._done.wait(0.2):
            for kind, value in self._now().items():
                self.most[kind] = max(self.most[kind], value)

    def _now(self) -> dict[str, int]:
        found = [_memory(pid) for pid in self._pids]
        return {kind: sum(one[kind] for one in found) for kind in ("private", "resident")}


def _memory(pid: int) -> dict[str, int]:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    fields = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in text.splitlines()[1:]}
    private = fields["Private_Clean"] + fields["Private_Dirty"]
    return {"private": private, "resident": fields["Rss"]}


def measure(gigabytes: float = 1.0, *, verbose: bool = False) -> list[Row]:
    """One row: megabytes, over all of upload, planning and training."""
    rows = int(gigabytes * 1e9 / COLUMNS / 4)
    with tempfile.TemporaryDirectory() as folder, server() as address:
        path = Path(folder) / "table.arrow"
        write_table(path, rows, COLUMNS, seed=0)
        with epochd.connect(address, timeout=3_600) as client, Peak() as peak:
            before = time.perf_counter()
            dataset = client.upload(path)
            uploaded, upload_peak = time.perf_counter(), peak.told()
            path.unlink()
            run = client.train(
                dataset,
                target="y",
                model=epochd.Linear(),
                loss="mse",
                optimizer=epochd.SGD(lr=0.1),
                epochs=EPOCHS,
                batch_size=BATCH,
                validation=0.005,
                metrics=["r2"],
                seed=1,
                log_every=1,
            )
            planned = time.perf_counter()
            logs = [(log, time.perf_counter()) for log in run.logs()]
            run.result()
    if verbose:
        print(f"upload    {uploaded - before:6.1f} s   {upload_peak}")
        print(f"plan      {planned - uploaded:6.1f} s")
        for log, at in logs:
            print(
                f"epoch {log.epoch}   {at - planned:6.1f} s   loss {log.loss:.4f}  r2 {log.metrics['r2']:.4f}"
            )
        print(f"all       {logs[-1][1] - before:6.1f} s   {peak.told()}")
    return [
        Row(
            work=f"peak private memory, {gigabytes:g} GB table: upload, {EPOCHS} epochs, batch {BATCH:,}",
            ours=peak.most["private"] / 1e6,
            against="the idle server",
            theirs=peak.idle["private"] / 1e6,
            aim="≤ idle + 500 MB",
            unit="MB",
        )
    ]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--gigabytes", type=float, default=5.0, help="size of the table's features and target"
    )
    for row in measure(parser.parse_args().gigabytes, verbose=True):
        print(f"{row.work}: {row.ours:,.0f} MB; {row.against}: {row.theirs:,.0f} MB; aim: {row.aim}")


if __name__ == "__main__":
    main()
