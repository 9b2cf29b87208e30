"""A table larger than the memory that its training takes, from the client to the disk."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
from pyarrow import ipc

import epochd

from .conftest import Server, StartServer

ROWS, FEATURES = 4_200_000, 23
TABLE_BYTES = ROWS * (FEATURES + 1) * 4
SLOPE = BEST = 0.5
"""The target's regression on its first feature, which is the target plus as much noise, and how much that explains."""


class Peak:
    """The most memory of their own (anonymous pages) that a server and its workers have at a time."""

    def __init__(self, server: Server) -> None:
        main = psutil.Process(server.process.pid)
        self._pids = [main.pid, *(child.pid for child in main.children(recursive=True))]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.before = self.most = self._now()

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def grown(self) -> int:
        """Bytes beyond what they had at the beginning."""
        return self.most - self.before

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self.most = max(self.most, self._now())

    def _now(self) -> int:
        return sum(_anonymous(pid) for pid in self._pids)


def _anonymous(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) * 1024


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 400 MB, sorted by its target: the worst order to read rows in."""
    random = np.random.default_rng(0)
    target = np.sort(random.standard_normal(ROWS, dtype=np.float32))
    columns = {"y": target, "x0": target + random.standard_normal(ROWS, dtype=np.float32)}
    others = random.random((FEATURES - 1, ROWS), dtype=np.float32) - np.float32(0.5)
    columns |= {f"x{number}": other for number, other in enumerate(others, 1)}
    path = tmp_path_factory.mktemp("table") / "table.arrow"
    whole = pa.table(columns)
    with ipc.new_file(str(path), whole.schema) as writer:
        writer.write_table(whole)
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.timeout(300)
def test_it_is_uploaded_and_trained_in_a_part_of_its_size(start_server: StartServer, table: Path) -> None:
    assert TABLE_BYTES > 256 * 2**20
    server = start_server()
    with epochd.connect(server.address, timeout=120) as client:
        with Peak(server) as uploading:
            dataset = client.upload(table)
        with Peak(server) as training:
            options = {"target": "y", "loss": "mse", "optimizer": epochd.SGD(lr=0.05), "epochs": 1, "seed": 3}
            split = {"batch_size": 4_096, "validation": 0.02, "metrics": ["r2"]}
            run = client.train(dataset, model=epochd.Linear(), **options, **split)
            logs = list(run.logs())
            model = run.result()
        again = client.train(dataset, model=epochd.Linear(), **options, **split).result()
        weights, repeated = (one.parameters()["linear.weight"] for one in (model, again))
    assert uploading.grown < 150 * 2**20
    assert training.grown < 250 * 2**20 < TABLE_BYTES
    assert abs(logs[-1].metrics["r2"] - BEST) < 0.01
    assert (weights == repeated).all()
    assert abs(weights[0, 0] - SLOPE) < 0.05
