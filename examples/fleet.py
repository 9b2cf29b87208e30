"""A fleet: one model of investment for each of eleven firms, trained together from one table.

python examples/fleet.py [HOST:PORT]     (or EPOCHD_SERVER; 127.0.0.1:50051 without either)
"""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

import numpy as np

import epochd

DATA = Path(__file__).with_name("data") / "grunfeld.csv"


def panel() -> dict[str, np.ndarray]:
    """The table; amounts are in units of the firm's own mean, so that one learning rate suits all firms."""
    with DATA.open(newline="") as file:
        rows = list(csv.DictReader(file))
    firm = np.array([row["firm"] for row in rows])
    table = {"firm": firm}
    for name in ("invest", "value", "capital"):
        amounts = np.array([float(row[name]) for row in rows])
        table[name] = amounts / np.array([amounts[firm == key].mean() for key in firm])
    return table


def main(server: str) -> None:
    table = panel()
    with epochd.connect(server) as client:
        run = client.train(
            table,
            target="invest",
            group_by="firm",  # one member for each firm
            model=epochd.Linear(),
            optimizer=epochd.SGD(lr=0.3, momentum=0.9),
            epochs=2000,
            dtype="float64",
            seed=1,
            name="investment",
        )
        fleet = run.result()
        print(fleet)

        print("\nThe smallest loss first:")
        print(fleet.ranking())

        print("\nOne firm:")
        ibm = fleet.member("IBM")
        weights = dict(zip(fleet.features, ibm.parameters()["linear.weight"][0], strict=True))
        print(ibm)
        print(", ".join(f"{name} {weight:.3f}" for name, weight in weights.items()))

        print("\nEach row is predicted by the member that its firm names:")
        new = {"firm": ["US Steel", "IBM", "Chrysler"], "value": [1.2, 1.2, 1.2], "capital": [1.0, 1.0, 1.0]}
        for firm, invest in zip(new["firm"], fleet.predict(new), strict=True):
            print(f"{firm:<9} {invest:.3f}")

        print("\nA firm that the fleet does not know:")
        unknown = {"firm": ["Acme"], "value": [1.2], "capital": [1.0]}
        try:
            fleet.predict(unknown)
        except epochd.InvalidArgument as error:
            print(error)
        print("or, on request,", fleet.predict(unknown, unknown="nan"))

        print("\nA member as a model of its own, which needs no key:")
        model = fleet.promote("IBM", name="investment-ibm")
        print(model.name, model.predict([[1.2, 1.0]]))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("EPOCHD_SERVER", "127.0.0.1:50051"))
