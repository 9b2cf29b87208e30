"""`epochd models alias`, `history`, `rollback`, `label`, `diff`, `export` and `import`: the registry by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

import epochd
from epochd.cli import keys
from epochd.cli.members import fleet_of
from epochd.cli.output import Column, ago
from epochd.cli.session import of
from epochd.registry import ExportFormat

_Name = Annotated[
    str, typer.Argument(metavar="MODEL", help="house-price, house-price@champion or house-price/versions/3.")
]
_AliasName = Annotated[str, typer.Argument(metavar="MODEL@ALIAS", help="Such as house-price@champion.")]
_MOVES = (
    Column("VERSION", lambda move: move.version.rpartition("/")[2] or "deleted", right=True),
    Column("CANARY", lambda move: canary_text(move.canary)),
    Column("MOVED", lambda move: ago(move.time)),
)


def aliases_text(model: epochd.RegisteredModel) -> str:
    """The aliases of a model, such as ``@champion=3 (10 % to 4)``."""
    shown = []
    for alias, version in sorted(model.aliases.items()):
        canary = canary_text(model.canaries.get(alias))
        shown.append(f"@{alias}={version.rpartition('/')[2]}" + (f" ({canary})" if canary else ""))
    return " ".join(shown)


def canary_text(canary: epochd.Canary | None) -> str:
    """A canary, such as ``10 % to 4``; empty for none."""
    return "" if canary is None else f"{canary.percent:g} % to {canary.version.rpartition('/')[2]}"


def set_alias(
    context: typer.Context,
    name: _Name,
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="Such as champion.")],
    delete: Annotated[bool, typer.Option("--delete", help="Delete the alias instead.")] = False,
    canary: Annotated[
        str, typer.Option(metavar="MODEL", help="A second version, which predicts for a share of the keys.")
    ] = "",
    percent: Annotated[float, typer.Option(metavar="PERCENT", help="The canary's share.")] = 10.0,
    etag: Annotated[
        str, typer.Option(metavar="ETAG", help="Only if the alias still has this etag, or is absent.")
    ] = "",
) -> None:
    """Point an alias at a version; without a version, at the newest.

    ```
    epochd models alias house-price/versions/3 champion
    epochd models alias house-price/versions/3 champion --canary house-price/versions/4 --percent 10
    epochd predict house-price@champion data.csv
    ```
    """
    session = of(context)
    with session.client() as client:
        model = client.model(name)
        if delete:
            registered = model.delete_alias(alias, etag=etag or None)
        else:
            second = client.model(canary).resource_name if canary else ""
            share = epochd.Canary(version=second, percent=percent) if second else None
            registered = model.set_alias(alias, etag=etag or None, canary=share)
    session.output.record(
        registered, {"model": registered.name, "aliases": aliases_text(registered) or "none"}
    )


def history(context: typer.Context, name: _AliasName) -> None:
    """List where an alias has pointed, newest first."""
    session = of(context)
    with session.client() as client:
        moves = client.alias_moves(name)
    session.output.rows(_MOVES, moves, empty=f"{name} was never set")


def roll_back(context: typer.Context, name: _AliasName) -> None:
    """Point an alias where it pointed before."""
    session = of(context)
    with session.client() as client:
        registered = client.rollback(name)
    session.output.record(registered, {"model": registered.name, "aliases": aliases_text(registered)})


def label(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model, a version, or a run: runs/ID.")],
    labels: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE…", help="To set; KEY- removes one.")
    ] = None,
) -> None:
    """Set and remove labels.

    ```
    epochd models label house-price/versions/3 stage=live reviewed-
    ```
    """
    session = of(context)
    texts = labels or []
    removed = [text[:-1] for text in texts if "=" not in text and text.endswith("-")]
    kept = labels_of([text for text in texts if not ("=" not in text and text.endswith("-"))])
    with session.client() as client:
        found = client.label(name, kept, remove=removed)
    session.output.record(found, found or {"labels": "none"})


def labels_of(texts: Sequence[str]) -> dict[str, str]:
    """Reads ``team=blue`` and the like.

    Raises:
        typer.BadParameter: One has no ``=``.
    """
    for text in texts:
        if "=" not in text:
            raise typer.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="LABEL")
    return {key: value for key, _, value in (text.partition("=") for text in texts)}


def diff(
    context: typer.Context,
    base: _Name,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="The version to compare with.")],
) -> None:
    """Compare two versions side by side: results first, then all that differs."""
    session = of(context)
    with session.client() as client:
        comparison = client.diff(base, other)
    if session.output.as_json:
        session.output.json(comparison)
    else:
        session.output.line(str(comparison))


def export(
    context: typer.Context,
    name: _Name,
    path: Annotated[Path, typer.Argument(help="The file: .safetensors, .json (the card), .onnx or .pt2.")],
    form: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="safetensors, card, onnx or pt2.")
    ] = "",
    member: Annotated[
        str, typer.Option(metavar="KEY", help="Fleets: one member; several key columns by commas.")
    ] = "",
) -> None:
    """Write a version to a file that other programs read.

    ```
    epochd models export house-price@champion house-price.onnx
    epochd models export house-price house-price.safetensors
    ```
    """
    if form and form not in get_args(ExportFormat):
        known = ", ".join(get_args(ExportFormat))
        raise typer.BadParameter(f"{form!r} is none of {known}", param_hint="--format")
    chosen = cast("ExportFormat", form) if form else None
    session = of(context)
    with session.client() as client:
        if member:
            fleet = fleet_of(client, name)
            fleet.member(keys.of_fleet(member, fleet)).export(path, format=chosen)
        else:
            client.model(name).export(path, format=chosen)
    session.output.record(
        {"path": str(path), "size_bytes": path.stat().st_size},
        {"written": f"{path}, {path.stat().st_size:,} bytes"},
    )


def import_model(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="A .safetensors file that export wrote.", exists=True)],
    name: Annotated[
        str, typer.Option(metavar="MODEL", help="Model that gets a version. Default: as it was called.")
    ] = "",
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="KEY=VALUE", help="Label of the version; repeatable."),
    ] = None,
) -> None:
    """Make a version of a file that was exported, here or by another server.

    ```
    epochd models import house-price.safetensors --name house-price
    ```
    """
    session = of(context)
    with session.client() as client:
        model = client.import_model(path, name or None, labels=labels_of(labels or []))
    session.output.record({"model_version": model.resource_name}, {"model version": model.resource_name})
