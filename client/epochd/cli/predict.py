"""`epochd predict`."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import epochd
from epochd.cli import keys, tables
from epochd.cli.output import Column, Output, shortest
from epochd.cli.session import of

_SHOWN = 20
_FLEETS = "Fleets"


def predict(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="house-price, house-price@champion or house-price/versions/3."),
    ],
    data: Annotated[
        str, typer.Argument(metavar="DATA.csv", help="CSV with the model's features; - for standard input.")
    ],
    out: Annotated[str, typer.Option(metavar="FILE", help="Write all predictions there, as CSV.")] = "",
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="The classes' probabilities, too; classifiers only.")
    ] = False,
    member: Annotated[
        str,
        typer.Option(metavar="KEY", help="Predict every row with this member.", rich_help_panel=_FLEETS),
    ] = "",
    unknown: Annotated[
        str,
        typer.Option(
            metavar="HOW",
            help="Rows of unknown keys: error, nan, or the key of the member to predict with.",
            rich_help_panel=_FLEETS,
        ),
    ] = "error",
) -> None:
    """Predict for the rows of a CSV file.

    Columns that the model does not use are left out. In a pipe, or with --out, the result is CSV. A fleet predicts
    each row with the member that its key columns name.

    ```
    epochd predict wine new.csv
    epochd predict wine@champion new.csv --out predictions.csv
    head -n 100 all.csv | epochd predict wine -
    epochd predict sales new.csv --unknown nan
    ```
    """
    session = of(context)
    table = tables.read(data)
    with session.client() as client:
        found = client.model(model)
        route = _route(found, member, unknown)
        used = tables.select(table, (*found.key_columns, *found.inputs), data)
        named = tables.select(table, () if member else found.key_columns, data)
        predicted = _columns(found, used or table, probabilities, route)
    columns = {name: list(values) for name, values in named.items()} | predicted
    if out:
        _save(out, columns)
    elif session.output.is_terminal:
        _show(session.output, columns)
    elif session.output.as_json:
        session.output.json({"model_version": found.resource_name, **columns})
    else:
        tables.write(sys.stdout, columns)
    if out:
        session.output.note(f"{_count(columns):,} predictions of {found.resource_name} are in {out}")


def _route(model: epochd.Model, member: str, unknown: str) -> dict[str, Any]:
    """How rows find the members of a fleet."""
    if not isinstance(model, epochd.Fleet):
        if member or unknown != keys.UNKNOWN[0]:
            raise typer.BadParameter(f"{model.resource_name} is a single model, no fleet", param_hint="MODEL")
        return {}
    chosen = unknown if unknown in keys.UNKNOWN else keys.of_fleet(unknown, model)
    return {"member": keys.of_fleet(member, model) if member else None, "unknown": chosen}


def _columns(
    model: epochd.Model, rows: tables.Table, probabilities: bool, route: dict[str, Any]
) -> dict[str, list[Any]]:
    """The predictions as columns, and those of probabilities."""
    if not probabilities:
        return _named(model.targets, model.predict(rows, **route))
    prediction = model.predict(rows, probabilities=True, **route)
    shares = shortest(model.predict_proba(rows, **route))
    classes = [] if model.classes is None else model.classes.tolist()
    named = {f"probability_{label}": shares[:, index].tolist() for index, label in enumerate(classes)}
    return {**_named(model.targets, prediction.values), **named}


def _named(targets: tuple[str, ...], values: Any) -> dict[str, list[Any]]:
    array = shortest(np.asarray(values))
    if array.ndim == 1:
        return {targets[0]: array.tolist()}
    return {name: array[:, index].tolist() for index, name in enumerate(targets)}


def _count(columns: dict[str, list[Any]]) -> int:
    return len(next(iter(columns.values())))


def _save(path: str, columns: dict[str, list[Any]]) -> None:
    try:
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            tables.write(file, columns)
    except (OSError, csv.Error) as error:
        raise typer.BadParameter(f"cannot write {path}: {error}", param_hint="--out") from None


def _show(output: Output, columns: dict[str, list[Any]]) -> None:
    count = _count(columns)
    shown = [Column("ROW", lambda row: f"{row + 1:,}", style="dim", right=True)]
    shown += [Column(name, _cells(values), right=True) for name, values in columns.items()]
    output.rows(shown, range(min(count, _SHOWN)), empty="")
    if count > _SHOWN:
        output.note(f"… and {count - _SHOWN:,} more; --out FILE writes them all")


def _cells(values: Sequence[Any]) -> Callable[[int], str]:
    def cell(row: int) -> str:
        return f"{values[row]:.6g}" if isinstance(values[row], float) else str(values[row])

    return cell
