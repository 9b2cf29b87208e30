"""Write wine.csv from the copy that scikit-learn's wheel bundles: `python examples/data/extract_wine.py`."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TextIO

from sklearn.datasets import load_wine

RENAMED = {"od280/od315_of_diluted_wines": "od280_od315", "nonflavanoid_phenols": "nonflavanoids"}


def write(file: TextIO) -> None:
    """Writes all 178 rows, 13 measurements each, and the cultivar, 1 to 3 as at the source."""
    wine = load_wine()
    table = csv.writer(file, lineterminator="\n")
    table.writerow([*(RENAMED.get(name, name) for name in wine.feature_names), "cultivar"])
    for measurements, cultivar in zip(wine.data, wine.target, strict=True):
        table.writerow([*(f"{value:.12g}" for value in measurements), cultivar + 1])


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("wine.csv")
    with target.open("w", newline="") as file:
        write(file)
