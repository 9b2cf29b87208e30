"""`epochd datasets`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated

import typer

from epochd.cli.output import Column, ago
from epochd.cli.session import of
from epochd.values import Dataset

app = typer.Typer(
    no_args_is_help=True,
    help="Datasets: list, upload, import, describe, preview, delete.",
    rich_markup_mode="markdown",
)

_Name = Annotated[str, typer.Argument(metavar="DATASET", help="Its name, or the digest.")]
_SHORT = 12
_DATASETS = (
    Column("DATASET", lambda dataset: dataset.name.removeprefix("datasets/")),
    Column("ROWS", lambda dataset: f"{dataset.rows:,}", right=True),
    Column("COLUMNS", lambda dataset: f"{len(dataset.columns):,}", right=True),
    Column("BYTES", lambda dataset: f"{dataset.size_bytes:,}", right=True),
    Column("UPLOADED", lambda dataset: ago(dataset.create_time)),
)


@app.command("list")
def list_datasets(context: typer.Context) -> None:
    """List datasets, newest first."""
    session = of(context)
    with session.client() as client:
        session.output.rows(_DATASETS, [*client.datasets()], empty="There are no datasets yet.")


@app.command("upload")
def upload(
    context: typer.Context,
    path: Annotated[str, typer.Argument(metavar="FILE", help="A CSV, Parquet or Arrow file.")],
) -> None:
    """Upload a file to train on more than once; what the server has already is not sent again."""
    session = of(context)
    with session.client() as client:
        _show(context, client.upload(path))


@app.command("import")
def import_dataset(
    context: typer.Context,
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file of the server, below a --data-root.")],
) -> None:
    """Have the server read a file of its own."""
    session = of(context)
    with session.client() as client:
        _show(context, client.import_dataset(path))


@app.command("describe")
def describe(context: typer.Context, name: _Name) -> None:
    """Describe the columns of a dataset."""
    session = of(context)
    with session.client() as client:
        found = client.dataset(name).describe()
    if session.output.as_json:
        session.output.json({"rows": found.rows, "columns": list(found.columns)})
    else:
        typer.echo(str(found))


@app.command("preview")
def preview(
    context: typer.Context,
    name: _Name,
    rows: Annotated[int, typer.Option("--rows", "-n", min=1, max=1_000, help="How many.")] = 10,
) -> None:
    """Show the first rows of a dataset."""
    session = of(context)
    with session.client() as client:
        columns = client.dataset(name).preview(rows)
    if session.output.as_json:
        session.output.json({name: [_cell(value) for value in values] for name, values in columns.items()})
        return
    lines = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    shown = [Column(name, partial(_cell_of, name)) for name in columns]
    session.output.rows(shown, lines, empty="The dataset has no rows.")


@app.command("delete")
def delete(context: typer.Context, name: _Name) -> None:
    """Delete a dataset that no unfinished run uses."""
    session = of(context)
    with session.client() as client:
        client.delete_dataset(name)
    session.output.note(f"{name} is deleted")


def _show(context: typer.Context, dataset: Dataset) -> None:
    columns = ", ".join(f"{name} ({kind})" for name, kind in list(dataset.columns.items())[:_SHORT])
    fields = {"dataset": dataset.name, "rows": f"{dataset.rows:,}", "columns": columns}
    of(context).output.record(
        {"name": dataset.name, "rows": dataset.rows, "columns": dataset.columns}, fields
    )


def _cell_of(name: str, line: Mapping[str, object]) -> str:
    return _cell(line[name])


def _cell(value: object) -> str:
    return "" if value is None or value != value else str(value)
