"""What epochd does, in a few seconds: `make demo`.

Starts a server of its own on a free port, trains on three points and on real data with live progress, predicts,
shows a few activations, and stops.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text
from with_server import server

import epochd
from epochd.cli.tables import read
from epochd.cli.views import LiveView

WINE = Path(__file__).parent / "data" / "wine.csv"
FEATURES = ["total_phenols", "proanthocyanins", "hue", "od280_od315"]
THREE_POINTS = """\
client.train([[1.0], [2.0], [3.0]], [[2.0], [4.0], [6.0]],
             model=epochd.Linear(init="zeros"), optimizer=epochd.SGD(lr=0.01),
             epochs=2000, log_every=100, name="three-points")"""
REAL_DATA = """\
client.train(wine, target="flavanoids", features=FEATURES,
             model=epochd.Linear(), optimizer=epochd.SGD(lr=0.05),
             epochs=2000, seed=1, name="wine")"""

_PATIENCE_SECONDS = 8.0
_FIRST_START = "starting a server … the very first start compiles its kernels, which takes about a minute"

console = Console(highlight=False)


def heading(number: int, text: str) -> None:
    console.print()
    console.print(Rule(Text.assemble((f"{number} ", "bold cyan"), (text, "bold")), align="left", style="dim"))


def code(text: str) -> None:
    console.print(
        Padding(Syntax(text, "python", theme="ansi_dark", background_color="default"), (0, 0, 1, 2))
    )


def show(renderable: RenderableType) -> None:
    console.print(Padding(renderable, (0, 0, 0, 2)))


def watched(run: epochd.Run) -> epochd.Model:
    """Shows a run to its end."""
    with LiveView(console) as view:
        for event in run.events():
            view.show(event)
    return run.result()


def three_points(client: epochd.Client) -> None:
    heading(1, "Three points on y = 2x, from W = b = 0")
    code(THREE_POINTS)
    model = watched(
        client.train(
            [[1.0], [2.0], [3.0]],
            [[2.0], [4.0], [6.0]],
            model=epochd.Linear(init="zeros"),
            optimizer=epochd.SGD(lr=0.01),
            epochs=2000,
            log_every=100,
            name="three-points",
        )
    )
    w, b = (model.parameters()[name].item() for name in ("linear.weight", "linear.bias"))
    show(f"W = {w:.3f}, b = {b:.3f}; for 4 it predicts {model.predict([[4.0]]).item():.3f}")


def real_data(client: epochd.Client) -> None:
    heading(2, "Real data: flavanoids of 178 wines from four measurements")
    code(REAL_DATA)
    wine = read(str(WINE))
    model = watched(
        client.train(
            wine,
            target="flavanoids",
            features=FEATURES,
            model=epochd.Linear(),
            optimizer=epochd.SGD(lr=0.05),
            epochs=2000,
            seed=1,
            name="wine",
        )
    )
    show(predictions(model, wine))


def predictions(model: epochd.Model, wine: dict[str, Any]) -> Table:
    """Some wines, what was measured and what is predicted."""
    rows = [0, 40, 80, 120, 160]
    sample = {name: np.asarray(wine[name])[rows] for name in FEATURES}
    table = Table("wine", *FEATURES, "measured", "predicted", box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for row, predicted in zip(rows, model.predict(sample), strict=True):
        measured = [f"{wine[name][row]:.2f}" for name in [*FEATURES, "flavanoids"]]
        table.add_row(f"{row + 1}", *measured, f"[bold green]{predicted:.2f}")
    return table


def activations(client: epochd.Client) -> None:
    heading(3, "Activations, also where float64 autograd gives 0")
    table = Table("", "value", box=None, show_header=False)
    for name, x, op in (
        ("sigmoid", 0.3, "forward"),
        ("sigmoid", 37.0, "derivative"),
        ("tanh", 20.0, "derivative"),
        ("sigmoid", 0.9, "inverse"),
    ):
        value = client.activation(name, np.float64(x), op=op)
        table.add_row(f"{name}({x:g})" + ("" if op == "forward" else f"  [dim]{op}"), f"[bold]{value}")
    show(table)


def what_next() -> None:
    heading(4, "What next")
    commands = {
        "make serve": "a server that stays, on 127.0.0.1:50051",
        ".venv/bin/epochd train --help": "how to train on a CSV file of your own",
        ".venv/bin/epochd --help": "everything else that the shell can do",
        ".venv/bin/python examples/tutorial_three_points.py": "the same from Python, twenty lines",
        "make node-example": "from Node, by the protos alone",
    }
    for command, text in commands.items():
        show(Text.assemble((f"{command}\n", "cyan"), (f"    {text}", "dim")))


def main() -> None:
    began = time.monotonic()
    console.print("[bold]epochd[/bold] trains, watches and serves small PyTorch models over gRPC.")
    with ExitStack() as stack:
        with console.status("starting a server …") as status:
            patience = threading.Timer(_PATIENCE_SECONDS, status.update, [_FIRST_START])
            patience.start()
            address = stack.enter_context(server())
            patience.cancel()
        console.print(
            f"[dim]A server for this demo listens on {address}, {time.monotonic() - began:.1f} s after its start."
        )
        with epochd.connect(address) as client:
            three_points(client)
            real_data(client)
            activations(client)
        what_next()
    console.print(f"\n[dim]The server has stopped. {time.monotonic() - began:.1f} s in all.")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
