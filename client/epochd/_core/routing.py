"""How the rows of a prediction find the members of a fleet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from epochd._wire.columns import make_column
from epochd._wire.keys import encode_key
from epochd._wire.tables import Table, as_table, is_table
from epochd.errors import invalid
from epochd.keys import KeyLike
from epochd.v1 import spec_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The members that predict; without anything, those that the key columns of the rows' table name."""

    keys: Table | None = None
    """Key columns that were given beside the rows."""

    member: spec_pb2.MemberKey | None = None
    """The member that predicts every row."""

    unknown_as_nan: bool = False
    """Whether rows of unknown keys get NaN."""

    fallback: spec_pb2.MemberKey | None = None
    """The member that predicts the rows of unknown keys."""

    @classmethod
    def of(
        cls,
        columns: Sequence[str],
        keys: Any = None,
        member: KeyLike | None = None,
        unknown: KeyLike = "error",
    ) -> Route:
        """The route of ``predict``'s arguments; see ``Fleet.predict``.

        Args:
            columns: The fleet's key columns, or nothing where they are not known.
            keys: The keys, one a row.
            member: The key of the member that predicts every row.
            unknown: ``"error"``, ``"nan"`` or a key.
        """
        named = unknown not in ("error", "nan") if isinstance(unknown, str) else True
        return cls(
            keys=None if keys is None else _key_table(keys, columns),
            member=None if member is None else encode_key(member, columns, "member"),
            unknown_as_nan=isinstance(unknown, str) and unknown == "nan",
            fallback=encode_key(unknown, columns, "fallback_member") if named else None,
        )

    def fields(self) -> dict[str, Any]:
        """What every request has of it."""
        choice = {"unknown_as_nan": True} if self.unknown_as_nan else {"fallback_member": self.fallback}
        return {"member": self.member, **choice}

    def key_rows(self, start: int, stop: int | None) -> dict[str, Any]:
        """The keys of some rows, for a request with a tensor."""
        return {} if self.keys is None else {"keys": self.keys.encode(start, stop)}


def _key_table(keys: Any, columns: Sequence[str]) -> Table:
    """Keys as a table: by their names, as values of the only key column, or as tuples with one value a column."""
    if is_table(keys):
        return as_table(keys)
    if len(columns) == 1:
        return Table((make_column(columns[0], keys),))
    if not columns:
        raise invalid("keys", "give keys by the names of the key columns: keys={'store': […]}")
    rows = list(keys)
    if not all(isinstance(row, tuple | list) and len(row) == len(columns) for row in rows):
        raise invalid("keys", f"must have a tuple ({', '.join(columns)}) a row, or be a dict of columns")
    return Table(tuple(make_column(name, [row[place] for row in rows]) for place, name in enumerate(columns)))
