"""Versions that leave as files, and files that become versions."""

from __future__ import annotations

import asyncio
import hashlib
import mmap
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from epochd.v1 import models_pb2 as pb
from epochd_server.codec.asked import decode_asked
from epochd_server.codec.models import encode_version
from epochd_server.codec.transfers import decode_export, decode_import
from epochd_server.domain.commands import ImportCommand
from epochd_server.domain.errors import EpochdError, FieldViolation, InvalidInput, Reason, Violations
from epochd_server.domain.labels import LabelChange
from epochd_server.domain.models import ModelVersion
from epochd_server.domain.once import Once
from epochd_server.domain.resources import version_name
from epochd_server.engine.modules import ModuleRegistry
from epochd_server.planning.limits import PlanLimits
from epochd_server.rpc.interceptors import MAX_MESSAGE_BYTES
from epochd_server.rpc.mutations import Made, Mutations
from epochd_server.rpc.requests import required, version_reference
from epochd_server.serving.exporting.exporter import Exporter
from epochd_server.storage.durable_files import local_io
from epochd_server.storage.models import SqlModelStore

_ITEM_BYTES = 8
_HEADER_BYTES = 100_000_000
"""The largest header of a safetensors file."""


class TransferCalls:
    """What the service ``epochd.v1.Models`` does with files.

    Args:
        store: The registry.
        exporter: Writes files.
        modules: The registered modules, which an imported version may need.
        limits: How large an imported version may be.
        folder: Where files are kept while they arrive.
        mutations: Makes changes once.
    """

    def __init__(
        self,
        store: SqlModelStore,
        exporter: Exporter,
        modules: ModuleRegistry,
        limits: PlanLimits,
        folder: Path,
        mutations: Mutations,
    ) -> None:
        self._store = store
        self._exporter = exporter
        self._modules = modules
        self._limits = limits
        self._folder = folder
        self._one_at_a_time = asyncio.Lock()
        self._mutations = mutations
        self._imported: Made[ModelVersion, pb.ImportVersionResponse] = Made(
            name=lambda version: version_name(version.model, version.version),
            find=lambda name: store.get_version(version_reference(name)),
            response=lambda version: pb.ImportVersionResponse(version=encode_version(version)),
        )

    async def export(self, request: pb.ExportVersionRequest) -> AsyncGenerator[pb.ExportVersionResponse]:
        """A version as a file."""
        violations = Violations()
        command = required(decode_export(request, violations), violations)
        async with aclosing(self._exporter.export(command)) as chunks:
            async for chunk in chunks:
                yield pb.ExportVersionResponse(data=chunk)

    async def import_(self, requests: AsyncIterator[pb.ImportVersionRequest]) -> pb.ImportVersionResponse:
        """Makes a version of a file; once begun, that is completed even when the client leaves meanwhile."""
        message = await anext(requests, None)
        if message is None or message.WhichOneof("part") != "header":
            raise InvalidInput([FieldViolation("header", "must be the first message of the stream")])
        violations = Violations()
        most = self._limits.max_fleet_parameters * _ITEM_BYTES + _HEADER_BYTES
        with violations.within("header"):
            asked = decode_asked(message.header, violations)
            command = decode_import(message.header, most, violations)
        violations.raise_if_any()

        async def receive_and_add(once: Once[ModelVersion] | None) -> ModelVersion:
            with local_io(), tempfile.TemporaryFile(dir=self._folder) as file:
                await _receive(command, requests, file)
                data = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
            return await asyncio.shield(asyncio.create_task(self._add(command, data, once)))

        return await self._mutations.once(asked, receive_and_add, self._imported)

    async def _add(
        self, command: ImportCommand, data: memoryview, once: Once[ModelVersion] | None
    ) -> ModelVersion:
        # imported here: it brings in pyarrow
        from epochd_server.serving.importing import read_import

        async with self._one_at_a_time:  # its parameters are in memory until they are stored
            imported = await asyncio.to_thread(
                read_import, data, self._modules, max_parameters=self._limits.max_parameters
            )
            labels = LabelChange(labels=command.labels).applied_to(imported.labels)
            model = command.model or imported.model
            now = datetime.now(UTC)
            return await self._store.add_import(model, imported.trained, labels, now, once)


async def _receive(
    command: ImportCommand, requests: AsyncIterator[pb.ImportVersionRequest], file: IO[bytes]
) -> None:
    """Writes the bytes of a stream to a file; they have the size and the digest that were announced."""
    size, digest = 0, hashlib.sha256()
    async for message in requests:
        data = message.data
        if message.WhichOneof("part") != "data" or not 1 <= len(data) <= MAX_MESSAGE_BYTES:
            rule = f"must be data of 1 to {MAX_MESSAGE_BYTES:,} bytes in every message after the first"
            raise InvalidInput([FieldViolation("part", rule)])
        size += len(data)
        if size > command.size_bytes:
            rule = f"has more than the {command.size_bytes:,} bytes announced"
            raise InvalidInput([FieldViolation("data", rule)])
        await asyncio.to_thread(file.write, data)
        digest.update(data)
    if size < command.size_bytes or digest.hexdigest() != command.sha256:
        raise EpochdError(Reason.DIGEST_MISMATCH)
    await asyncio.to_thread(file.flush)
