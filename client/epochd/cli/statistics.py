"""`epochd models statistics`."""

from __future__ import annotations

from typing import Annotated

import typer

import epochd
from epochd.cli import keys
from epochd.cli.members import fleet_of
from epochd.cli.session import of

_Name = Annotated[
    str, typer.Argument(metavar="MODEL", help="house-price, house-price@champion or house-price/versions/3.")
]


def show(
    context: typer.Context,
    name: _Name,
    member: Annotated[
        str, typer.Option(metavar="KEY", help="Of this member of a fleet; several values by commas.")
    ] = "",
) -> None:
    """Show standard errors, p values, R² and the like of a linear model that was fitted exactly.

    ```
    epochd models statistics house-price
    epochd models statistics sales --member store-17
    ```
    """
    session = of(context)
    with session.client() as client:
        found = _found(client, name, member)
    if session.output.as_json:
        session.output.json(found.to_table())
    else:
        session.output.line(str(found))


def _found(client: epochd.Client, name: str, member: str) -> epochd.Statistics | epochd.FleetStatistics:
    if not member:
        return client.model(name).statistics()
    fleet = fleet_of(client, name)
    return fleet.member(keys.of_fleet(member, fleet)).statistics()
