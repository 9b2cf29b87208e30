"""A sweep: learning rates, weight decays and seeds, every combination of them trained at once on the same rows.

python examples/sweep.py [HOST:PORT]     (or EPOCHD_SERVER; 127.0.0.1:50051 without either)
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

import epochd

DATA = Path(__file__).with_name("data") / "wine.csv"


def wine() -> tuple[np.ndarray, np.ndarray]:
    """Thirteen measurements, standardised, and the cultivar."""
    table = np.loadtxt(DATA, delimiter=",", skiprows=1)
    measurements = table[:, :-1]
    return (measurements - measurements.mean(axis=0)) / measurements.std(axis=0), table[:, -1].astype(int)


def main(server: str) -> None:
    measurements, cultivar = wine()
    with epochd.connect(server) as client:
        run = client.train(
            measurements,
            cultivar,
            model=epochd.Sequential(epochd.Linear(16), "tanh", epochd.Linear()),
            loss="cross_entropy",
            optimizer=epochd.AdamW(),
            sweep={"lr": [0.3, 0.03, 0.003, 0.0003], "weight_decay": [0.0, 0.1], "seed": [1, 2, 3]},
            epochs=100,
            batch_size=32,
            name="cultivar",
        )
        sweep = run.result()
        print(sweep)

        print("\nThe best five of", len(sweep), "by training loss:")
        print(sweep.ranking(limit=5))

        best = sweep.best
        model = best.promote(name="cultivar-best")
        print("\nThe best one as a model of its own:")
        print(model)
        print(f"It is right about {np.mean(model.predict(measurements) == cultivar):.1%} of the rows.")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("EPOCHD_SERVER", "127.0.0.1:50051"))
