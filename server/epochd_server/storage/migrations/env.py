"""Alembic's entry: migrates over the connection that it is given, inside its transaction."""

from __future__ import annotations

from alembic import context

from epochd_server.storage.schema import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True
)
context.run_migrations()
