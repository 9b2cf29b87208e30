"""Many rows in one statement.

A statement a row would take longer in Python than in the database, and SQLite lets go of the interpreter's lock at
each: a writer that runs a thousand of them waits a thousand times for a busy event loop.

What is spelled here, SQLite (3.33) and PostgreSQL read alike. Table and column names are the schema's own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Column, Connection, CursorResult, Dialect, LargeBinary, Table

_MOST_PARAMETERS = 16_000
"""In one statement: SQLite takes 32,766, PostgreSQL 65,535."""
_OPTIONS = {"preserve_rowcount": True}

Rows = Sequence[Mapping[str, Any]]
"""Rows with the same columns."""


def insert_rows(connection: Connection, table: Table, rows: Rows) -> None:
    """Inserts rows."""
    for _ in _insert(connection, table, rows, ""):
        pass


def insert_new_rows(connection: Connection, table: Table, rows: Rows) -> int:
    """Inserts the rows of which no unique key is taken; says how many."""
    return sum(result.rowcount for result in _insert(connection, table, rows, "ON CONFLICT DO NOTHING"))


def upsert_rows(connection: Connection, table: Table, rows: Rows, then: str) -> list[Any]:
    """Inserts rows or, ``then``, does something else where they are there; gives what is returned.

    Args:
        connection: In a transaction.
        table: Gets the rows.
        rows: The rows.
        then: From ``ON CONFLICT`` to the end of the statement, with a RETURNING.
    """
    return [row for result in _insert(connection, table, rows, then) for row in result]


def update_rows(
    connection: Connection,
    table: Table,
    rows: Rows,
    columns: Mapping[str, Column[Any]],
    *,
    assign: str,
    where: str,
) -> int:
    """Updates a row of the table for each given row; says how many were updated.

    Args:
        connection: In a transaction.
        table: Has the rows that are updated.
        rows: What is assigned or compared.
        columns: By the names in ``rows``, the columns of the table whose types they have.
        assign: The assignments; ``{name}`` stands for a given row's value.
        where: The condition, in the same way.
    """
    count = 0
    given = {name: f"v.column{number}" for number, name in enumerate(columns, 1)}
    for chunk in _chunks(rows, len(columns)):
        values = _values(tuple(columns.values()), len(chunk), connection.dialect)
        statement = (
            f"UPDATE {table.name} SET {assign.format(**given)} FROM ({values}) AS v "  # noqa: S608
            f"WHERE {where.format(**given)}"
        )
        count += _execute(connection, statement, chunk, columns).rowcount
    return count


def _insert(connection: Connection, table: Table, rows: Rows, then: str) -> Iterator[CursorResult[Any]]:
    if not rows:
        return
    columns = {name: table.c[name] for name in rows[0]}
    into = f"{table.name} ({', '.join(map(_quoted, columns))})"
    for chunk in _chunks(rows, len(columns)):
        values = _values(tuple(columns.values()), len(chunk), connection.dialect)
        yield _execute(connection, f"INSERT INTO {into} {values} {then}", chunk, columns)


def _execute(
    connection: Connection, statement: str, rows: Rows, columns: Mapping[str, Column[Any]]
) -> CursorResult[Any]:
    given = [[row[name] for row in rows] for name in columns]
    for values, column in zip(given, columns.values(), strict=True):
        if (process := _processor(column, connection.dialect)) is not None:
            values[:] = map(process, values)
    parameters = tuple(itertools.chain.from_iterable(zip(*given, strict=True)))
    return connection.exec_driver_sql(statement, parameters, execution_options=_OPTIONS)


def _chunks(rows: Rows, columns: int) -> Iterator[Rows]:
    step = max(1, _MOST_PARAMETERS // columns)
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _quoted(name: str) -> str:
    return f'"{name}"'


@lru_cache(maxsize=256)
def _processor(column: Column[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    """What makes of a value what the driver takes, such as text of JSON; None where it is that already."""
    if isinstance(column.type, LargeBinary):
        return None
    process: Callable[[Any], Any] | None = column.type.dialect_impl(dialect).bind_processor(dialect)
    return process


@lru_cache(maxsize=256)
def _values(columns: tuple[Column[Any], ...], count: int, dialect: Dialect) -> str:
    """VALUES with so many rows of placeholders; PostgreSQL learns their types from the first."""
    if dialect.name == "sqlite":
        return "VALUES " + ", ".join(["(" + ", ".join("?" * len(columns)) + ")"] * count)
    types = [column.type.compile(dialect).partition(" COLLATE")[0] for column in columns]
    first = ", ".join(f"CAST(%s AS {type_})" for type_ in types)
    others = "(" + ", ".join(["%s"] * len(columns)) + ")"
    return "VALUES " + ", ".join([f"({first})", *[others] * (count - 1)])
