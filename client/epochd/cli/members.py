"""`epochd models members` and `epochd models promote`: what is in a fleet."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Annotated, Any

import typer

import epochd
from epochd._core.members import Order
from epochd.cli import keys
from epochd.cli.output import Column
from epochd.cli.session import of

_Fleet = Annotated[str, typer.Argument(metavar="FLEET", help="sales, sales@champion or sales/versions/3.")]


def list_members(
    context: typer.Context,
    name: _Fleet,
    by_loss: Annotated[
        bool, typer.Option("--by-loss", help="The smallest loss first; on held-out rows, if any.")
    ] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that were not trained.")] = False,
    limit: Annotated[int, typer.Option(metavar="N", help="At most so many.", min=1)] = 100,
) -> None:
    """List the members of a fleet or sweep, by key or by loss.

    ```
    epochd models members sales --failed
    epochd models members tuning --by-loss --limit 5
    ```
    """
    session = of(context)
    with session.client() as client:
        fleet = fleet_of(client, name)
        held_out = fleet.evaluation is not None
        smallest: Order = "validation_loss" if held_out else "loss"
        members = fleet.members(order=smallest if by_loss else "key", state="FAILED" if failed else None)
        shown = [_record(member) for member in islice(members, limit)]
    total = fleet.failed_members if failed else len(fleet)
    session.output.rows(
        _columns(fleet.key_columns, held_out=held_out),
        shown,
        empty=f"No member of {fleet.resource_name} has failed",
    )
    if total > len(shown):
        session.output.note(f"… and {total - len(shown):,} more; --limit {total} lists them all")


def promote(
    context: typer.Context,
    name: _Fleet,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The member; several key columns by commas.")],
    to: Annotated[
        str,
        typer.Option("--to", metavar="MODEL", help="Model that gets a version. Default: the fleet's own."),
    ] = "",
) -> None:
    """Make a member of a fleet or sweep a model version of its own."""
    session = of(context)
    with session.client() as client:
        fleet = fleet_of(client, name)
        model = fleet.promote(keys.of_fleet(key, fleet), to or None)
    session.output.record({"model_version": model.resource_name}, {"model version": model.resource_name})


def fleet_of(client: epochd.Client, name: str) -> epochd.Fleet:
    """A fleet by name.

    Raises:
        typer.BadParameter: It is a single model.
    """
    found = client.model(name)
    if not isinstance(found, epochd.Fleet):
        raise typer.BadParameter(f"{found.resource_name} is a single model, no fleet", param_hint="FLEET")
    return found


def _columns(key_columns: Sequence[str], *, held_out: bool) -> list[Column]:
    validation = Column("VALIDATION", lambda member: _loss(member["evaluation"]), right=True)
    return [
        *(Column(name.upper(), _key_cell(name), right=True, whole=True) for name in key_columns),
        Column("ROWS", lambda member: f"{member['rows']:,}", right=True),
        Column("EPOCHS", lambda member: f"{member['epochs']:,}", right=True),
        Column("LOSS", lambda member: f"{member['final_loss']:.6g}", right=True),
        *([validation] if held_out else []),
        Column("FAILURE", lambda member: _failure(member["failure"]), style="red"),
    ]


def _key_cell(name: str) -> Any:
    return lambda member: epochd.keys.key_text(member["key"][name])


def _loss(evaluation: epochd.Evaluation | None) -> str:
    return "" if evaluation is None else f"{evaluation.loss:.6g}"


def _failure(failure: epochd.Failure | None) -> str:
    return "" if failure is None else str(failure)


def _record(member: epochd.Member) -> dict[str, Any]:
    """A member's facts, for tables and JSON."""
    return {
        "key": member.keys_by_column,
        "state": member.state,
        "rows": member.rows,
        "epochs": member.epochs,
        "final_loss": member.final_loss,
        "evaluation": member.evaluation,
        "failure": member.failure,
    }
