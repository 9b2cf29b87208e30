"""Write grunfeld.csv from the copy that statsmodels' wheel bundles: `python examples/data/extract_grunfeld.py`."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TextIO

from statsmodels.datasets import grunfeld

COLUMNS = ("firm", "year", "invest", "value", "capital")


def write(file: TextIO) -> None:
    """Writes all 220 rows: eleven firms, twenty years each."""
    table = csv.writer(file, lineterminator="\n")
    table.writerow(COLUMNS)
    panel = grunfeld.load_pandas().data
    for firm, year, *amounts in zip(*(panel[name] for name in COLUMNS), strict=True):
        table.writerow([firm, f"{year:.0f}", *(f"{amount:.12g}" for amount in amounts)])


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("grunfeld.csv")
    with target.open("w", newline="") as file:
        write(file)
