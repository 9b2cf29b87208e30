"""Seconds that the upload of 1 GB takes, from the client's call to the stored dataset, against cp and sha256sum."""

from __future__ import annotations

import subprocess
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import ipc

import epochd
from benchmarks.harness import Row, server, timed

ROWS, COLUMNS, REPEATS = 12_500_000, 20, 3


def measure() -> list[Row]:
    """One row; every upload is of other bytes, as the server knows those that it has."""
    with tempfile.TemporaryDirectory() as folder, server() as address:
        path = Path(folder) / "table.arrow"
        ours, theirs = [], []
        for repeat in range(REPEATS):
            write_table(path, ROWS, COLUMNS, seed=repeat)
            theirs.append(timed(lambda: copy_and_hash(path)))
            with epochd.connect(address, timeout=600) as client:
                ours.append(timed(partial(client.upload, path)))
                for dataset in client.datasets():
                    client.delete_dataset(dataset)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return [
        Row(
            work=f"upload of {ROWS * COLUMNS * 4 / 1e9:.0f} GB (Arrow)",
            ours=sorted(ours)[REPEATS // 2],
            against="cp and sha256sum of the same file",
            theirs=sorted(theirs)[REPEATS // 2],
            aim="≤ 2",
            spread=(min(ratios), max(ratios)),
        )
    ]


def write_table(path: Path, rows: int, columns: int, *, seed: int) -> None:
    """Writes float32 columns ``x0`` … and ``y``, a noisy sum of the first five, a piece at a time."""
    random = np.random.default_rng(seed)
    schema = pa.schema(
        [*((f"x{number}", pa.float32()) for number in range(columns - 1)), ("y", pa.float32())]
    )
    with ipc.new_file(str(path), schema) as writer:
        for first in range(0, rows, 65_536):
            count = min(65_536, rows - first)
            x = random.random((columns - 1, count), dtype=np.float32) - np.float32(0.5)
            y = x[:5].sum(0) + random.random(count, dtype=np.float32) - np.float32(0.5)
            writer.write_batch(pa.record_batch([*map(pa.array, x), pa.array(y)], schema=schema))


def copy_and_hash(path: Path) -> None:
    """What one would do by hand."""
    copy = path.with_suffix(".copy")
    subprocess.run(["cp", str(path), str(copy)], check=True)
    subprocess.run(["sha256sum", str(copy)], check=True, stdout=subprocess.DEVNULL)
    copy.unlink()
