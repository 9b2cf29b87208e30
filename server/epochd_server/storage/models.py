"""The registry of models: versions, aliases and weights."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence
from typing import TypeVar

from sqlalchemy import Connection, delete, select

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.models import Model, ModelVersion
from epochd_server.domain.resources import VersionReference, version_name
from epochd_server.domain.runs import Parameters
from epochd_server.storage import model_rows as rows
from epochd_server.storage import weights
from epochd_server.storage.artifacts import CHUNK_BYTES, Artifacts
from epochd_server.storage.changes import ModelChanges
from epochd_server.storage.database import Database
from epochd_server.storage.schema import aliases, models, versions
from epochd_server.storage.statements import AnyRow, insert_into
from epochd_server.storage.writer import Operation

T = TypeVar("T")


class SqlModelStore:
    """Models on SQLite or PostgreSQL, with large weights as artifacts.

    Args:
        database: Holds models, versions and aliases.
        artifacts: Holds weights that are too large for the database.
        changes: Told of every change.
    """

    def __init__(self, database: Database, artifacts: Artifacts, changes: ModelChanges) -> None:
        self._database = database
        self._artifacts = artifacts
        self._changes = changes

    @property
    def changes(self) -> ModelChanges:
        """News of the changes that this server makes."""
        return self._changes

    @property
    def is_shared(self) -> bool:
        """Whether other servers may change models too, of which ``changes`` tells nothing."""
        return self._database.is_shared

    async def get_version(self, reference: VersionReference) -> ModelVersion:
        """The version that is meant.

        Raises:
            EpochdError: MODEL_NOT_FOUND, VERSION_NOT_FOUND or ALIAS_NOT_FOUND, naming it.
        """
        statement = rows.meant(reference)

        def operation(connection: Connection) -> AnyRow:
            row = connection.execute(statement).one_or_none()
            if row is None:
                raise rows.missing(connection, reference)
            return row

        return rows.to_version(await self._database.read(operation))

    async def load_parameters(self, model: str, version: int) -> Parameters:
        """The parameters of a version, in PyTorch's order.

        Raises:
            EpochdError: MODEL_NOT_FOUND, VERSION_NOT_FOUND; ARTIFACT_CORRUPT where they are damaged.
        """
        row = await self._weights_row(model, version)
        if row.data is not None:
            data = bytes(row.data)
        else:
            data = await self._read_artifact(row.weights_artifact, model, version)
        if len(data) <= weights.INLINE_BYTES:
            return _verified(data, row.weights_digest, model, version)
        return await asyncio.to_thread(_verified, data, row.weights_digest, model, version)

    async def read_safetensors(self, model: str, version: int) -> AsyncGenerator[bytes, None]:
        """A version's safetensors file in chunks of at most 1 MiB, checked before the first is given.

        Raises:
            EpochdError: MODEL_NOT_FOUND, VERSION_NOT_FOUND; ARTIFACT_CORRUPT where it is damaged.
        """
        row = await self._weights_row(model, version)
        if row.data is None:
            await self._verify_artifact(row.weights_artifact, row.weights_digest, model, version)
            async for chunk in self._artifacts.stream(row.weights_artifact):
                yield chunk
            return
        data = bytes(row.data)
        if weights.digest_of(data) != row.weights_digest:
            raise weights.damaged(model, version)
        for start in range(0, len(data), CHUNK_BYTES):
            yield data[start : start + CHUNK_BYTES]

    async def get_model(self, model: str) -> Model:
        """A model with its aliases.

        Raises:
            EpochdError: MODEL_NOT_FOUND.
        """
        found = await self._database.read(lambda connection: rows.find_models(connection, [model]))
        if not found:
            raise rows.no_model(model)
        return found[0]

    async def list_models(self, limit: int, after: str | None = None) -> list[Model]:
        """Models whose names come after ``after``, by name."""
        page = rows.page_of_names(limit, after)

        def operation(connection: Connection) -> list[Model]:
            return rows.find_models(connection, connection.execute(page).scalars().all())

        return await self._database.read(operation)

    async def list_versions(self, model: str, limit: int, before: int | None = None) -> list[ModelVersion]:
        """Versions with numbers below ``before``, newest first.

        Raises:
            EpochdError: MODEL_NOT_FOUND.
        """
        page = rows.VERSION.where(versions.c.model == model).order_by(versions.c.version.desc()).limit(limit)
        if before is not None:
            page = page.where(versions.c.version < before)

        def operation(connection: Connection) -> Sequence[AnyRow]:
            rows.require_model(connection, model)
            return connection.execute(page).all()

        return [rows.to_version(row) for row in await self._database.read(operation)]

    async def set_alias(self, model: str, alias: str, version: int) -> Model:
        """Points an alias at a version, and returns the model.

        Raises:
            EpochdError: MODEL_NOT_FOUND, VERSION_NOT_FOUND.
        """

        def operation(connection: Connection) -> Model:
            rows.lock_version(connection, model, version)
            row = insert_into(connection, aliases).values(model=model, alias=alias, version=version)
            connection.execute(
                row.on_conflict_do_update(
                    index_elements=[aliases.c.model, aliases.c.alias], set_={"version": version}
                )
            )
            return rows.find_models(connection, [model])[0]

        return await self._change(model, operation)

    async def delete_alias(self, model: str, alias: str) -> None:
        """Deletes an alias.

        Raises:
            EpochdError: MODEL_NOT_FOUND, ALIAS_NOT_FOUND.
        """
        row = delete(aliases).where(aliases.c.model == model, aliases.c.alias == alias)

        def operation(connection: Connection) -> None:
            if not connection.execute(row).rowcount:
                raise rows.missing(connection, VersionReference(model, alias=alias))

        await self._change(model, operation)

    async def delete_version(self, model: str, version: int) -> None:
        """Deletes a version and its weights; its number is not given again.

        Raises:
            EpochdError: MODEL_NOT_FOUND, VERSION_NOT_FOUND; ALIAS_IN_USE, naming the alias.
        """

        def operation(connection: Connection) -> str | None:
            artifact: str | None = rows.lock_version(connection, model, version).weights_artifact
            pointing = select(aliases.c.alias).where(aliases.c.model == model, aliases.c.version == version)
            if (alias := connection.scalar(pointing.limit(1))) is not None:
                metadata = {"name": version_name(model, version), "alias": alias}
                raise EpochdError(Reason.ALIAS_IN_USE, metadata=metadata)
            connection.execute(
                delete(versions).where(versions.c.model == model, versions.c.version == version)
            )
            return artifact

        artifact = await self._change(model, operation)
        if artifact is not None:
            await self._artifacts.delete(artifact)

    async def delete_model(self, model: str) -> None:
        """Deletes a model with its versions and aliases.

        Raises:
            EpochdError: MODEL_NOT_FOUND.
        """
        large = select(versions.c.weights_artifact).where(
            versions.c.model == model, versions.c.weights_artifact.is_not(None)
        )

        def operation(connection: Connection) -> Sequence[str]:
            rows.require_model(connection, model, lock=True)
            artifacts = connection.execute(large).scalars().all()
            for table in (aliases, versions, models):
                connection.execute(delete(table).where(table.c.model == model))
            return [name for name in artifacts if name is not None]

        for artifact in await self._change(model, operation):
            await self._artifacts.delete(artifact)

    async def _change(self, model: str, operation: Operation[T]) -> T:
        result = await self._database.write(operation)
        self._changes.notify(model)
        return result

    async def _weights_row(self, model: str, version: int) -> AnyRow:
        return await self._database.read(lambda connection: rows.weights_row(connection, model, version))

    async def _read_artifact(self, name: str, model: str, version: int) -> bytes:
        try:
            return await self._artifacts.get(name)
        except FileNotFoundError as error:
            raise weights.damaged(model, version) from error

    async def _verify_artifact(self, name: str, digest: str, model: str, version: int) -> None:
        """Reads the artifact once, in bounded memory, before any of it is given out."""
        hashing = hashlib.sha256()
        try:
            async for chunk in self._artifacts.stream(name):
                hashing.update(chunk)
        except FileNotFoundError as error:
            raise weights.damaged(model, version) from error
        if hashing.hexdigest() != digest:
            raise weights.damaged(model, version)


def _verified(data: bytes, digest: str, model: str, version: int) -> Parameters:
    if weights.digest_of(data) != digest:
        raise weights.damaged(model, version)
    return weights.unpack(data)
