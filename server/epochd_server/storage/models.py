"""The registry of models: versions, aliases and weights."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import TypeVar

from sqlalchemy import Connection, delete, select, update

from epochd_server.domain.canaries import check_canary
from epochd_server.domain.commands import AliasCommand, PromoteCommand
from epochd_server.domain.fleets import Members
from epochd_server.domain.labels import LabelChange, Labels
from epochd_server.domain.models import AliasMove, Model, ModelVersion, TrainedModel
from epochd_server.domain.once import AnsweredBefore, Once
from epochd_server.domain.promoting import find_trained_member, promoted, require_fleet
from epochd_server.domain.records import NoticeKind
from epochd_server.domain.resources import VersionReference
from epochd_server.domain.runs import Parameters
from epochd_server.storage import aliases as alias_rows
from epochd_server.storage import member_columns, weights
from epochd_server.storage import model_rows as rows
from epochd_server.storage import versions as new_versions
from epochd_server.storage.answers import Answers
from epochd_server.storage.artifacts import Artifacts, discard
from epochd_server.storage.blobs import BlobReader, StoredBlob
from epochd_server.storage.changes import ModelChanges
from epochd_server.storage.database import Database
from epochd_server.storage.schema import aliases, models, versions
from epochd_server.storage.statements import AnyRow, labelled
from epochd_server.storage.writer import Operation

T = TypeVar("T")


class SqlModelStore:
    """Models on SQLite or PostgreSQL, with large weights as artifacts.

    Args:
        database: Holds models, versions and aliases.
        artifacts: Holds weights that are too large for the database.
        changes: Told of every change.
        answers: Remembers what requests were answered.
    """

    def __init__(
        self, database: Database, artifacts: Artifacts, changes: ModelChanges, answers: Answers
    ) -> None:
        self._database = database
        self._answers = answers
        self._artifacts = artifacts
        self._blobs = BlobReader(artifacts)
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
        """The parameters of a version, in PyTorch's order; a fleet's have its members as first dimension.

        Raises:
            EpochdError: MODEL_NOT_FOUND, VERSION_NOT_FOUND; ARTIFACT_CORRUPT where they are damaged.
        """
        return await self._blobs.load(await self._weights(model, version), weights.unpack)

    async def load_members(self, model: str, version: int) -> Members:
        """What became of the members of a fleet.

        Raises:
            EpochdError: MODEL_NOT_FOUND, VERSION_NOT_FOUND; ARTIFACT_CORRUPT where it is damaged, or no fleet.
        """
        blob = await self._database.read(lambda connection: rows.members_blob(connection, model, version))
        return await self._blobs.load(blob, member_columns.unpack)

    async def load_file(self, model: str, version: int) -> memoryview:
        """The parameters of a version as they are stored: the bytes of a safetensors file, checked.

        Raises:
            EpochdError: MODEL_NOT_FOUND, VERSION_NOT_FOUND; ARTIFACT_CORRUPT where they are damaged.
        """
        return await self._blobs.load(await self._weights(model, version), lambda view: view)

    async def read_safetensors(self, model: str, version: int) -> AsyncGenerator[bytes, None]:
        """A version's safetensors file in chunks of at most 1 MiB, checked before the first is given.

        Raises:
            EpochdError: MODEL_NOT_FOUND, VERSION_NOT_FOUND; ARTIFACT_CORRUPT where it is damaged.
        """
        async for chunk in self._blobs.stream(await self._weights(model, version)):
            yield chunk

    async def promote(
        self, command: PromoteCommand, time: datetime, once: Once[ModelVersion] | None = None
    ) -> ModelVersion:
        """Makes a member of a fleet the next version of a model.

        Raises:
            EpochdError: MODEL_NOT_FOUND, VERSION_NOT_FOUND, ALIAS_NOT_FOUND, MEMBER_NOT_FOUND, MEMBER_FAILED,
                REQUEST_ID_REUSED, ARTIFACT_CORRUPT.
            AnsweredBefore: The request was made before.
            InvalidInput: The version is no fleet.
        """
        fleet = await self.get_version(command.reference)
        # the newest version may be what the same request, sent at once to another server, has made since
        if not fleet.card.members and once and (before := await self._answers.find(once.asked)):
            raise AnsweredBefore(before)
        require_fleet(fleet)
        members = await self.load_members(fleet.model, fleet.version)
        member = find_trained_member(fleet, members, command.key)
        parameters = await self.load_parameters(fleet.model, fleet.version)
        identity = new_versions.new_identity(fleet.card.run_id)
        new = new_versions.prepare(identity, time, promoted(fleet, members, member, parameters))
        return await self._add(command.model or fleet.model, new, None, once)

    async def add_import(
        self,
        model: str,
        trained: TrainedModel,
        labels: Labels,
        time: datetime,
        once: Once[ModelVersion] | None = None,
    ) -> ModelVersion:
        """Makes a trained model of another server the next version of a model.

        Raises:
            EpochdError: REQUEST_ID_REUSED.
            AnsweredBefore: The request was made before.
        """
        identity = new_versions.new_identity(trained.card.run_id)
        new = await asyncio.to_thread(new_versions.prepare, identity, time, trained)
        return await self._add(model, new, labels, once)

    async def _add(
        self,
        model: str,
        new: new_versions.NewVersion,
        labels: Labels | None,
        once: Once[ModelVersion] | None,
    ) -> ModelVersion:
        def operation(connection: Connection) -> ModelVersion:
            number = new_versions.add(connection, model, new, labels)
            return rows.to_version(connection.execute(rows.meant(VersionReference(model, number))).one())

        await new_versions.store(self._artifacts, new)
        try:
            return await self._change(model, operation, once)
        except AnsweredBefore:
            await discard(self._artifacts, [name for name, _ in new.artifacts()])
            raise

    async def get_model(self, model: str) -> Model:
        """A model with its aliases.

        Raises:
            EpochdError: MODEL_NOT_FOUND.
        """
        found = await self._database.read(lambda connection: rows.find_models(connection, [model]))
        if not found:
            raise rows.no_model(model)
        return found[0]

    async def list_models(
        self, limit: int, after: str | None = None, labels: Labels | None = None
    ) -> list[Model]:
        """Models that have these labels and whose names come after ``after``, by name."""
        page = rows.page_of_names(limit, after, labels or {})

        def operation(connection: Connection) -> list[Model]:
            return rows.find_models(connection, connection.execute(page).scalars().all())

        return await self._database.read(operation)

    async def list_versions(
        self, model: str, limit: int, before: int | None = None, labels: Labels | None = None
    ) -> list[ModelVersion]:
        """Versions that have these labels and numbers below ``before``, newest first.

        Raises:
            EpochdError: MODEL_NOT_FOUND.
        """
        page = rows.VERSION.where(versions.c.model == model).order_by(versions.c.version.desc()).limit(limit)
        page = page.where(*labelled(versions.c.labels, labels or {}))
        if before is not None:
            page = page.where(versions.c.version < before)

        def operation(connection: Connection) -> Sequence[AnyRow]:
            rows.require_model(connection, model)
            return connection.execute(page).all()

        return [rows.to_version(row) for row in await self._database.read(operation)]

    async def change_labels(
        self, model: str, version: int | None, change: LabelChange, once: Once[Labels] | None = None
    ) -> Labels:
        """Changes the labels of a version, or (None) of the model itself, and returns all that it has then.

        Raises:
            EpochdError: MODEL_NOT_FOUND, VERSION_NOT_FOUND, REQUEST_ID_REUSED.
            AnsweredBefore: The request was made before.
            InvalidInput: They are too many.
        """
        table, one = (models, models.c.model == model)
        if version is not None:
            table, one = versions, (versions.c.model == model) & (versions.c.version == version)

        def operation(connection: Connection) -> Labels:
            rows.require_model(connection, model, lock=True)
            if version is not None:
                rows.lock_version(connection, model, version)
            changed = change.applied_to(connection.scalar(select(table.c.labels).where(one)) or {})
            connection.execute(update(table).where(one).values(labels=changed or None))
            return changed

        return await self._change(model, operation, once)

    async def set_alias(
        self, command: AliasCommand, time: datetime, once: Once[Model] | None = None
    ) -> Model:
        """Points an alias at a version, and returns the model.

        Raises:
            EpochdError: MODEL_NOT_FOUND, VERSION_NOT_FOUND, ETAG_MISMATCH, REQUEST_ID_REUSED.
            AnsweredBefore: The request was made before.
            InvalidInput: Another model's rows would not suit the canary.
        """
        if command.canary is not None:
            main = await self.get_version(VersionReference(command.model, command.version))
            canary = await self.get_version(VersionReference(command.model, command.canary.version))
            check_canary(main.card, canary.card)

        def operation(connection: Connection) -> Model:
            alias_rows.point(connection, command, time)
            return rows.find_models(connection, [command.model])[0]

        return await self._change(command.model, operation, once)

    async def delete_alias(
        self,
        model: str,
        alias: str,
        time: datetime,
        etag: str | None = None,
        once: Once[Model] | None = None,
    ) -> Model:
        """Deletes an alias, and returns the model.

        Raises:
            EpochdError: MODEL_NOT_FOUND, ALIAS_NOT_FOUND, ETAG_MISMATCH, REQUEST_ID_REUSED.
            AnsweredBefore: The request was made before.
        """

        def operation(connection: Connection) -> Model:
            alias_rows.remove(connection, model, alias, etag, time)
            return rows.find_models(connection, [model])[0]

        return await self._change(model, operation, once)

    async def list_alias_moves(
        self, model: str, alias: str, limit: int, before: int | None = None
    ) -> list[AliasMove]:
        """Where an alias pointed, by moves with numbers below ``before``, newest first.

        Raises:
            EpochdError: MODEL_NOT_FOUND; ALIAS_NOT_FOUND where there never was such an alias.
        """
        page = alias_rows.page_of_moves(model, alias, limit, before)

        def operation(connection: Connection) -> Sequence[AnyRow]:
            found = connection.execute(page).all()
            if not found and before is None:
                raise rows.missing(connection, VersionReference(model, alias=alias))
            return found

        return [alias_rows.to_move(row) for row in await self._database.read(operation)]

    async def delete_version(self, model: str, version: int, once: Once[object] | None = None) -> None:
        """Deletes a version and its weights; its number is not given again.

        Raises:
            EpochdError: MODEL_NOT_FOUND, VERSION_NOT_FOUND; ALIAS_IN_USE, naming the alias; REQUEST_ID_REUSED.
            AnsweredBefore: The request was made before.
        """

        def operation(connection: Connection) -> list[str]:
            rows.lock_version(connection, model, version)
            artifacts = rows.artifacts_of(connection, model, version)
            alias_rows.refuse_if_pointed_at(connection, model, version)
            connection.execute(
                delete(versions).where(versions.c.model == model, versions.c.version == version)
            )
            return artifacts

        await discard(self._artifacts, await self._change(model, operation, once))

    async def delete_model(self, model: str, once: Once[object] | None = None) -> None:
        """Deletes a model with its versions and aliases.

        Raises:
            EpochdError: MODEL_NOT_FOUND, REQUEST_ID_REUSED.
            AnsweredBefore: The request was made before.
        """

        def operation(connection: Connection) -> list[str]:
            rows.require_model(connection, model, lock=True)
            artifacts = rows.artifacts_of(connection, model)
            for table in (aliases, versions, models):
                connection.execute(delete(table).where(table.c.model == model))
            return artifacts

        await discard(self._artifacts, await self._change(model, operation, once))

    async def _change(self, model: str, operation: Operation[T], once: Once[T] | None) -> T:
        def told(connection: Connection) -> T:
            result = operation(connection)
            if self._database.notices.has_listeners:
                self._database.notices.tell(connection, NoticeKind.CHANGED, [model])
            return result

        result = await self._answers.write(told, once)
        self._changes.notify(model)
        return result

    async def _weights(self, model: str, version: int) -> StoredBlob:
        return await self._database.read(lambda connection: rows.weights_blob(connection, model, version))
