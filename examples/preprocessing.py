"""Preprocessing: a table of texts, timestamps and holes, a model that takes such rows, and what it learned in words.

python examples/preprocessing.py [HOST:PORT]     (or EPOCHD_SERVER; 127.0.0.1:50051 without either)
"""

from __future__ import annotations

import os
import sys

import numpy as np

import epochd
from epochd.preprocessing import Impute, OneHot, Standardize, TimeParts

CITIES = {"Oslo": 4_000.0, "Bergen": 1_500.0, "Tromsø": 0.0}


def flats(rows: int = 500) -> dict[str, np.ndarray]:
    """Made-up flats: a rent that depends on all of the columns, some of which have holes."""
    rng = np.random.default_rng(7)
    area, city, lift = rng.normal(60, 15, rows), rng.choice([*CITIES], rows), rng.random(rows) < 0.5
    listed = np.datetime64("2024-01-01T00") + rng.integers(0, 366 * 24, rows) * np.timedelta64(1, "h")
    month = listed.astype("M8[M]").astype(int) % 12
    summer = 800 * np.cos(2 * np.pi * (month - 7) / 12)
    rent = 150 * area + np.vectorize(CITIES.get)(city) + 500 * lift + summer + rng.normal(0, 200, rows)
    holes = rng.random(rows) < 0.1
    return {
        "area": np.where(holes, np.nan, area),
        "city": np.where(rng.random(rows) < 0.05, None, city.astype(object)),
        "lift": lift,
        "listed": listed,
        "rent": rent,
    }


def main(server: str) -> None:
    table = flats()
    arguments = {
        "target": "rent",
        "model": epochd.Linear(),
        "fit": epochd.LeastSquares(),
        "validation": 0.2,
        "seed": 1,
    }
    with epochd.connect(server) as client:
        automatic = client.train(
            table, preprocess="auto", metrics=["r2"], name="rent-auto", **arguments
        ).result()
        print("With preprocess='auto':")
        for column in automatic.preprocess:
            print(" ", column)
        print("  held out:", automatic.evaluation)

        steps = {
            "area": [Impute("median", indicator=True), Standardize()],
            "city": OneHot(unseen="ignore", drop_first=True),
            "listed": TimeParts("month"),
        }
        chosen = client.train(table, preprocess=steps, metrics=["r2"], name="rent", **arguments).result()
        print("\nWith steps of our own, in the units of the columns:")
        print(chosen.coefficients())
        print("held out:", chosen.evaluation)

        raw = {
            "area": [45.0, None],
            "city": ["Oslo", "Paris"],
            "lift": [True, False],
            "listed": ["2024-08-01", "2024-02-01T12:00:00Z"],
        }
        print("\nTwo new rows, as they are:", np.round(client.predict("rent", raw)))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("EPOCHD_SERVER", "127.0.0.1:50051"))
