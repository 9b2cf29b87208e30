"""What SQLite and PostgreSQL spell alike but SQLAlchemy keeps apart, and short names for its types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Row, Select, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningDelete

AnyRow = Row[*tuple[Any, ...]]
AnySelect = Select[*tuple[Any, ...]]
Returning = ReturningDelete[*tuple[Any, ...]]
Insert = sqlite.Insert | postgresql.Insert


def insert_into(connection: Connection, table: Table) -> Insert:
    """An INSERT with ``on_conflict_do_nothing`` and ``on_conflict_do_update``."""
    return postgresql.insert(table) if is_postgresql(connection) else sqlite.insert(table)


def is_postgresql(connection: Connection) -> bool:
    """Whether the connection is to PostgreSQL; otherwise it is to SQLite."""
    return connection.dialect.name == "postgresql"


def labelled(column: Column[Any], labels: Mapping[str, str]) -> list[ColumnElement[bool]]:
    """Conditions: a JSON column of labels has all of these."""
    return [column[key].as_string() == value for key, value in labels.items()]


def is_inserted(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Inserts a row; False where a unique key of it is taken."""
    statement = insert_into(connection, table).on_conflict_do_nothing()
    counted = connection.execute(statement, row, execution_options={"preserve_rowcount": True})
    return counted.rowcount == 1
