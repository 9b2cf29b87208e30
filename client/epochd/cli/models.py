"""`epochd models`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import epochd
from epochd.cli import members, registry, statistics
from epochd.cli.output import Column, ago, shortest
from epochd.cli.session import of

app = typer.Typer(
    no_args_is_help=True,
    help="Models: list, show, compare, alias, label, export, import, members of fleets, delete.",
    rich_markup_mode="markdown",
)

_FEW = 16
_Name = Annotated[
    str, typer.Argument(metavar="MODEL", help="house-price, house-price@champion or house-price/versions/3.")
]
_Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="KEY=VALUE", help="Only those with this label; repeatable."),
]


def _number(version: str) -> str:
    return version.rpartition("/")[2]


_MODELS = (
    Column("MODEL", lambda model: model.name.removeprefix("models/")),
    Column("LATEST", lambda model: _number(model.latest_version), right=True),
    Column("ALIASES", registry.aliases_text, style="cyan"),
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
def list_models(context: typer.Context, labels: _Labels = None) -> None:
    """List models by name."""
    session = of(context)
    with session.client() as client:
        models = list(client.models(labels=registry.labels_of(labels or [])))
    session.output.rows(_MODELS, models, empty="There are no models yet. Train one with: epochd train")


@app.command("versions")
def list_versions(context: typer.Context, name: _Name, labels: _Labels = None) -> None:
    """List the versions of a model, newest first."""
    session = of(context)
    wanted = registry.labels_of(labels or [])
    with session.client() as client:
        versions = [_version(version) for version in client.versions(name, labels=wanted)]
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


app.command("statistics")(statistics.show)
app.command("members")(members.list_members)
app.command("promote")(members.promote)


app.command("alias")(registry.set_alias)
app.command("history")(registry.history)
app.command("rollback")(registry.roll_back)
app.command("label")(registry.label)
app.command("diff")(registry.diff)
app.command("export")(registry.export)
app.command("import")(registry.import_model)


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
        "evaluation": model.evaluation,
        "run": model.run,
        "labels": model.labels,
        "lineage": model.lineage,
        "weights_digest": model.weights_digest,
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
