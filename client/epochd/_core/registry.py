"""The programs of the registry: labels, aliases and their history, comparisons, files in and out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from epochd._core.calling import call, change, new_request_id, retrying
from epochd._core.effects import Program, compute, invoke, open_stream, receive
from epochd._core.methods import (
    DIFF_VERSIONS,
    EXPORT_VERSION,
    GET_MODEL,
    IMPORT_VERSION,
    LIST_ALIAS_MOVES,
    SET_ALIAS,
    UPDATE_LABELS,
    UPDATE_RUN_LABELS,
)
from epochd._core.resources import model_name, version_name
from epochd._wire.registry import decode_comparison, decode_move
from epochd._wire.values import decode_registered
from epochd.errors import FailedPrecondition, invalid
from epochd.policy import Policy
from epochd.registry import AliasMove, Canary, Comparison, ExportFormat
from epochd.v1 import models_pb2, runs_pb2, spec_pb2
from epochd.values import RegisteredModel

CHUNK_BYTES = 1 << 20
_MOVES = 100
_SUFFIXES: Mapping[str, ExportFormat] = MappingProxyType(
    {".safetensors": "safetensors", ".json": "card", ".onnx": "onnx", ".pt2": "pt2"}
)


def format_of(path: str | Path, given: ExportFormat | None) -> ExportFormat:
    """The format to export as: the one given, or that of the file's suffix.

    Raises:
        InvalidArgument: There is neither.
    """
    found = given or _SUFFIXES.get(Path(path).suffix.lower())
    if found is None:
        raise invalid("path", f"must end in one of {', '.join(_SUFFIXES)}, or give format")
    return found


def export(
    name: str, form: ExportFormat, policy: Policy, member: spec_pb2.MemberKey | None = None
) -> Program[bytearray]:
    """A version as the bytes of a file."""
    number = models_pb2.ExportFormat.Value(f"EXPORT_FORMAT_{form.upper()}")
    request = models_pb2.ExportVersionRequest(name=name, format=number, member=member)

    def attempt(left: float) -> Program[bytearray]:
        stream = yield from open_stream(EXPORT_VERSION, request, left)
        file = bytearray()
        try:
            while (message := (yield from receive(EXPORT_VERSION, stream))) is not None:
                file += message.data
        finally:
            stream.cancel()
        return file

    return (yield from retrying(attempt, policy, policy.timeout.transfer))


def import_file(
    path: Path, name: str | None, labels: Mapping[str, str], policy: Policy
) -> Program[models_pb2.ModelVersion]:
    """Makes a version of an exported file."""
    header = yield from compute(lambda: _header(path, name, labels))

    def attempt(left: float) -> Program[models_pb2.ModelVersion]:
        return (yield from invoke(IMPORT_VERSION, _messages(header, path), left)).version

    return (yield from retrying(attempt, policy, policy.timeout.transfer))


def diff(base: str, other: str, policy: Policy) -> Program[Comparison]:
    """Compares two versions."""
    request = models_pb2.DiffVersionsRequest(base=version_name(base), other=version_name(other))
    return decode_comparison((yield from call(DIFF_VERSIONS, request, policy)))


def label(
    name: str, labels: Mapping[str, str], remove: Sequence[str], policy: Policy
) -> Program[dict[str, str]]:
    """Changes the labels of a model, a version or a run."""
    if name.startswith("runs/"):
        run = runs_pb2.UpdateRunLabelsRequest(name=name, labels=labels, removed=remove)
        return dict((yield from change(UPDATE_RUN_LABELS, run, policy)).run.labels)
    request = models_pb2.UpdateLabelsRequest(name=version_name(name), labels=labels, removed=remove)
    return dict((yield from change(UPDATE_LABELS, request, policy)).labels)


def set_alias(
    version: str, alias: str, etag: str | None, canary: Canary | None, policy: Policy
) -> Program[RegisteredModel]:
    """Points an alias at a version."""
    share = None
    if canary is not None:
        share = models_pb2.Canary(version=version_name(canary.version), percent=canary.percent)
    request = models_pb2.SetAliasRequest(
        model=model_name(version), alias=alias, version=version, etag=etag or "", canary=share
    )
    return decode_registered((yield from change(SET_ALIAS, request, policy)).model)


def alias_moves(name: str, policy: Policy) -> Program[list[AliasMove]]:
    """Where an alias has pointed, newest first."""
    model, alias = _parts(name)
    request = models_pb2.ListAliasMovesRequest(model=model, alias=alias, page_size=_MOVES)
    moves: list[AliasMove] = []
    while True:
        page = yield from call(LIST_ALIAS_MOVES, request, policy)
        moves += map(decode_move, page.moves)
        request.page_token = page.next_page_token
        if not request.page_token:
            return moves


def roll_back(name: str, policy: Policy) -> Program[RegisteredModel]:
    """Points an alias, as it is now, where it pointed before; nothing happens if somebody moves it meanwhile."""
    model, alias = _parts(name)
    registered = (yield from call(GET_MODEL, models_pb2.GetModelRequest(name=model), policy)).model
    current = next((entry for entry in registered.aliases if entry.alias == alias), None)
    moves = yield from alias_moves(name, policy)
    here = "" if current is None else current.version
    before = next((move for move in moves[1:] if move.version not in ("", here)), None)
    if before is None:
        raise FailedPrecondition(f"{version_name(name)} has pointed nowhere else.", reason="NO_MOVE_BEFORE")
    etag = "absent" if current is None else current.etag
    return (yield from set_alias(before.version, alias, etag, before.canary, policy))


def _parts(name: str) -> tuple[str, str]:
    model, _, alias = version_name(name).partition("@")
    if not alias:
        raise invalid("name", f"must be an alias such as house-price@champion, is {name!r}")
    return model, alias


def _header(path: Path, name: str | None, labels: Mapping[str, str]) -> models_pb2.ImportHeader:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            digest.update(piece)
        size = file.tell()
    return models_pb2.ImportHeader(
        model_name=name or "",
        sha256=digest.hexdigest(),
        size_bytes=size,
        request_id=new_request_id(),
        labels=labels,
    )


def _messages(header: models_pb2.ImportHeader, path: Path) -> Iterator[models_pb2.ImportVersionRequest]:
    yield models_pb2.ImportVersionRequest(header=header)
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            yield models_pb2.ImportVersionRequest(data=piece)
