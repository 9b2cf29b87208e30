"""Keys of members, and sweeps, from short texts: ``store-17``, ``north,3``, ``lr=0.1,0.01``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np
import typer

import epochd
from epochd.cli import specs, tables
from epochd.keys import Key, KeyPart, key_parts

UNKNOWN = ("error", "nan")
"""What may be done with rows of unknown keys, beside predicting with a member."""


def of_table(text: str, columns: Sequence[str], table: tables.Table) -> Key:
    """Reads a key whose parts are of the types that the key columns of a table have."""
    kinds = [int if isinstance(table.get(name), np.ndarray) else str for name in columns]
    return _key(text, columns, kinds, "--log-member")


def of_sweep(text: str, sweep: epochd.Sweep) -> Key:
    """Reads a key of a sweep: a value for each swept name, in their order."""
    return _key(
        text,
        sweep.names,
        [int if name in ("seed", "fold") else float for name in sweep.names],
        "--log-member",
    )


def of_fleet(text: str, fleet: epochd.Fleet) -> Key:
    """Reads a key whose parts are of the types that the keys of a fleet have."""
    (some,) = islice(fleet.members(), 1)
    return _key(text, fleet.key_columns, [type(part) for part in key_parts(some.key)], "KEY")


def sweep(texts: Sequence[str]) -> epochd.Sweep | None:
    """Reads ``lr=0.1,0.01`` and the like; None where there are none."""
    return epochd.sweeps.resolve(dict(_swept(text) for text in texts)) if texts else None


def _swept(text: str) -> tuple[str, list[specs.Argument]]:
    name, equals, values = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE,VALUE…", param_hint="--sweep")
    numbers = [specs.literal(value.strip()) for value in values.split(",")]
    wrong = [number for number in numbers if isinstance(number, bool | str)]
    if wrong or (name == "seed" and not all(isinstance(number, int) for number in numbers)):
        kind = "integers" if name == "seed" else "numbers"
        raise typer.BadParameter(f"{name} must list {kind}, is {values!r}", param_hint="--sweep")
    return name.strip(), numbers


def _key(text: str, columns: Sequence[str], kinds: Sequence[type[KeyPart]], hint: str) -> Key:
    parts = [text] if len(columns) == 1 else [part.strip() for part in text.split(",")]
    if len(parts) != len(columns):
        raise typer.BadParameter(
            f"{text!r} must have a value for each of {', '.join(columns)}", param_hint=hint
        )
    key = tuple(_part(part, kind, name, hint) for part, kind, name in zip(parts, kinds, columns, strict=True))
    return key[0] if len(key) == 1 else key


def _part(text: str, kind: type[KeyPart], column: str, hint: str) -> KeyPart:
    try:
        return kind(text)
    except ValueError:
        wanted: Mapping[type[KeyPart], str] = {int: "an integer", float: "a number"}
        raise typer.BadParameter(f"{column} must be {wanted[kind]}, is {text!r}", param_hint=hint) from None
