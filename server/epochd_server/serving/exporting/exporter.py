"""Versions, or members of fleets, as files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Protocol

from epochd_server.domain.commands import ExportCommand, ExportFormat
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.fleets import Members
from epochd_server.domain.models import ModelVersion, TrainedModel
from epochd_server.domain.promoting import find_trained_member, promoted, require_fleet
from epochd_server.domain.resources import VersionReference, version_name
from epochd_server.domain.runs import Parameters
from epochd_server.serving.exporting.cards import card_of, keys_of
from epochd_server.serving.exporting.files import read_file
from epochd_server.serving.exporting.pt2 import Pt2Maker
from epochd_server.storage import weights

_CHUNK_BYTES = 1 << 20
_NO_ONNX = "This server lacks the package onnx; its operator can install it (pip install 'epochd[server]')."


class ExportSource(Protocol):
    """The registry, as far as exports read it."""

    async def get_version(self, reference: VersionReference) -> ModelVersion:
        """The version that is meant."""

    async def load_parameters(self, model: str, version: int) -> Parameters:
        """The parameters of a version."""

    async def load_members(self, model: str, version: int) -> Members:
        """The members of a fleet."""

    async def load_file(self, model: str, version: int) -> memoryview:
        """A version's parameters as they are stored: a safetensors file."""


class Exporter:
    """Writes versions as files.

    Args:
        source: Where they come from.
        modules: Where registered modules come from, as for ``--modules``.
    """

    def __init__(self, source: ExportSource, modules: Sequence[str] = ()) -> None:
        self._source = source
        self._pt2 = Pt2Maker(modules)

    async def export(self, command: ExportCommand) -> AsyncGenerator[bytes]:
        """The file in chunks of at most 1 MiB.

        Raises:
            EpochdError: MODEL_NOT_FOUND, VERSION_NOT_FOUND, ALIAS_NOT_FOUND, MEMBER_NOT_FOUND, MEMBER_FAILED;
                EXPORT_NOT_POSSIBLE; ARTIFACT_CORRUPT.
            InvalidInput: A member of a single model is asked for.
        """
        version = await self._source.get_version(command.reference)
        async for piece in self._pieces(command, version):
            view = memoryview(piece)
            for start in range(0, len(view), _CHUNK_BYTES):
                yield bytes(view[start : start + _CHUNK_BYTES])

    async def _pieces(
        self, command: ExportCommand, version: ModelVersion
    ) -> AsyncIterator[bytes | memoryview]:
        members = await self._members(version)
        parameters: Parameters | None = None
        if command.member is not None:
            require_fleet(version)
            if members is None:
                raise EpochdError(Reason.ARTIFACT_CORRUPT)
            one = await self._member(version, members, command)
            version, members, parameters = _as_version(version, one), None, one.parameters
        match command.format:
            case ExportFormat.SAFETENSORS:
                for piece in await self._safetensors(version, members, parameters):
                    yield piece
            case ExportFormat.CARD:
                yield (await asyncio.to_thread(card_of, version, members, "")).encode()
            case ExportFormat.ONNX:
                yield await self._onnx(version, members, parameters)
            case ExportFormat.PT2:
                if members is not None:
                    message = (
                        "A whole fleet has no PT2 form; export a member of it, or export the fleet as ONNX."
                    )
                    raise EpochdError(Reason.EXPORT_NOT_POSSIBLE, message)
                yield await self._pt2.make(version.card, parameters or await self._parameters(version))

    async def _safetensors(
        self, version: ModelVersion, members: Members | None, parameters: Parameters | None
    ) -> tuple[bytes, memoryview]:
        if parameters is None:
            data = await self._source.load_file(version.model, version.version)
        else:
            data = memoryview(weights.pack(parameters))
        return await asyncio.to_thread(_with_card, data, version, members)

    async def _onnx(
        self, version: ModelVersion, members: Members | None, parameters: Parameters | None
    ) -> bytes:
        try:
            from epochd_server.serving.exporting.onnx_file import onnx_file
        except ModuleNotFoundError as error:
            raise EpochdError(Reason.EXPORT_NOT_POSSIBLE, _NO_ONNX) from error
        parameters = parameters or await self._parameters(version)
        keys = [] if members is None else keys_of(members)
        name = version_name(version.model, version.version)
        learned = None if members is None else members.learned
        return await asyncio.to_thread(onnx_file, name, version.card, parameters, keys, learned)

    async def _parameters(self, version: ModelVersion) -> Parameters:
        return await self._source.load_parameters(version.model, version.version)

    async def _members(self, version: ModelVersion) -> Members | None:
        if not version.card.members:
            return None
        return await self._source.load_members(version.model, version.version)

    async def _member(self, version: ModelVersion, members: Members, command: ExportCommand) -> TrainedModel:
        member = find_trained_member(version, members, command.member or ())
        return promoted(version, members, member, await self._parameters(version))


def _as_version(fleet: ModelVersion, one: TrainedModel) -> ModelVersion:
    return ModelVersion(
        model=fleet.model,
        version=fleet.version,
        create_time=fleet.create_time,
        card=one.card,
        labels=fleet.labels,
    )


def _with_card(data: memoryview, version: ModelVersion, members: Members | None) -> tuple[bytes, memoryview]:
    """What comes before the tensors' bytes in the exported file, and those bytes."""
    file = read_file(data)
    return file.head_with(card_of(version, members, file.digest)), file.tensors
