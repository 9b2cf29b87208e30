"""`epochd models`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import epochd
from epochd.cli import members
from epochd.cli.output import Column, ago, shortest
from epochd.cli.session import of

app = typer.Typer(
    no_args_is_help=True,
    help="Models: list, show, members of fleets, alias, delete.",
    rich_markup_mode="markdown",
)

_FEW = 16
_Name = Annotated[
    str, typer.Argument(metavar="MODEL", help="house-price, house-price@champion or house-price/versions/3.")
]


def _aliases(model: epochd.RegisteredModel) -> str:
    return " ".join(f"@{alias}={_number(version)}" for alias, version in sorted(model.aliases.items()))


def _number(version: str) -> str:
    return version.rpartition("/")[2]


_MODELS = (
    Column("MODEL", lambda model: model.name.removeprefix("models/")),
    Column("LATEST", lambda model: _number(model.latest_version), right=True),
    Column("ALIASES", _aliases, style="cyan"),
    Column("UPDATED", lambda model: ago(model.update_time)),
)
_VERSIONS = (
    Column("VERSION", lambda version: str(version["version"]), right=True),
    Column("LOSS", lambda version: f"{version['final_loss']:.6g}", right=True),
    Column("MODEL", lambda version: version["model"]),
    Column("ROWS", lambda version: f"{version['rows']:,}", right=True),
    Column("EPOCHS", lambda version: f"{version['epochs']:,}", right=True),
    Column("CREATED", lambda version: ago(version["create_time"])),
)


@app.command("list")
def list_models(context: typer.Context) -> None:
    """List models by name."""
    session = of(context)
    with session.client() as client:
        models = list(client.models())
    session.output.rows(_MODELS, models, empty="There are no models yet. Train one with: epochd train")


@app.command("versions")
def list_versions(context: typer.Context, name: _Name) -> None:
    """List the versions of a model, newest first."""
    session = of(context)
    with session.client() as client:
        versions = [_version(version) for version in client.versions(name)]
    session.output.rows(_VERSIONS, versions, empty=f"{name} has no versions")


@app.command("show")
def show_model(
    context: typer.Context,
    name: _Name,
    parameters: Annotated[
        bool, typer.Option("--parameters", help="Show all parameters, however many.")
    ] = False,
) -> None:
    """Show a version of a model: what it is, how it was trained, and its parameters if they are few."""
    session = of(context)
    with session.client() as client:
        model = client.model(name)
        few = not isinstance(model, epochd.Fleet) and model.parameter_count <= _FEW
        values = model.parameters() if parameters or few else {}
    if session.output.as_json:
        session.output.json({**_version(model), **({"parameters": values} if values else {})})
        return
    session.output.line(str(model))
    width = max(map(len, values), default=0)
    for key, value in values.items():
        session.output.line(f"  {key:<{width}}  {shortest(value).tolist()}")
    if not values:
        session.output.note("  --parameters shows the parameters, too")


app.command("members")(members.list_members)
app.command("promote")(members.promote)


@app.command("alias")
def set_alias(
    context: typer.Context,
    name: _Name,
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="Such as champion.")],
    delete: Annotated[bool, typer.Option("--delete", help="Delete the alias instead.")] = False,
) -> None:
    """Point an alias at a version; without a version, at the newest.

    ```
    epochd models alias house-price/versions/3 champion
    epochd predict house-price@champion data.csv
    ```
    """
    session = of(context)
    with session.client() as client:
        model = client.model(name)
        registered = model.delete_alias(alias) if delete else model.set_alias(alias)
    session.output.record(registered, {"model": registered.name, "aliases": _aliases(registered) or "none"})


@app.command("delete")
def delete_model(context: typer.Context, name: _Name) -> None:
    """Delete a model with all its versions, or one version of it."""
    session = of(context)
    with session.client() as client:
        if "/versions/" in name:
            client.model(name).delete()
        else:
            client.delete_model(name)
    session.output.record({"deleted": name}, {"deleted": name})


def _version(model: epochd.Model) -> dict[str, Any]:
    """A version's facts, for tables and JSON."""
    return {
        "name": model.resource_name,
        "version": model.version,
        "model": str(model.spec or "of a newer kind"),
        "loss": model.loss,
        "final_loss": model.final_loss,
        "features": model.features,
        "targets": model.targets,
        "classes": model.classes,
        "dtype": model.dtype,
        "parameter_count": model.parameter_count,
        "rows": model.rows,
        "epochs": model.epochs,
        "seed": model.seed,
        "run": model.run,
        **_fleet(model),
        "create_time": model.create_time,
    }


def _fleet(model: epochd.Model) -> dict[str, Any]:
    """What more there is to say of a fleet."""
    if not isinstance(model, epochd.Fleet):
        return {}
    return {
        "members": len(model),
        "failed_members": model.failed_members,
        "key_columns": model.key_columns,
        "sweep": model.sweep,
    }
