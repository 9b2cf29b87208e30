"""Datasets: the uploaded tables."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import Final

from epochd.v1 import datasets_pb2 as pb
from epochd.v1 import datasets_pb2_grpc
from epochd.v1.tensor_pb2 import Table
from epochd_server.codec.asked import decode_asked
from epochd_server.codec.datasets import check_digest, decode_format, encode_dataset
from epochd_server.codec.descriptions import (
    encode_description,
    encode_table,
    pack_descriptions,
    unpack_descriptions,
)
from epochd_server.data.roots import DataRoots
from epochd_server.domain.datasets import Dataset, DatasetFormat
from epochd_server.domain.errors import EpochdError, FieldViolation, InvalidInput, Reason, Violations
from epochd_server.domain.once import Once
from epochd_server.domain.resources import dataset_name
from epochd_server.rpc.calls import Context
from epochd_server.rpc.mutations import Changed, Made, Mutations
from epochd_server.rpc.requests import PageRequest, dataset_digest, page_token, required
from epochd_server.storage.datasets import DatasetStore

MESSAGE_BYTES: Final = 2 * 1024 * 1024
"""Largest piece of data in a message."""

PREVIEW_ROWS: Final = 10
MOST_PREVIEW_ROWS: Final = 1_000
_PREVIEW_BYTES: Final = 3 * 1024 * 1024

_DELETED: Changed[object, pb.DeleteDatasetResponse] = Changed(
    pb.DeleteDatasetResponse.FromString, lambda _: pb.DeleteDatasetResponse()
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class DatasetsServicer(datasets_pb2_grpc.DatasetsServicer):
    """The service ``epochd.v1.Datasets``."""

    def __init__(self, store: DatasetStore, roots: DataRoots, mutations: Mutations) -> None:
        self._store = store
        self._roots = roots
        self._mutations = mutations
        self._imported: Made[Dataset, pb.ImportDatasetResponse] = Made(
            name=lambda dataset: dataset_name(dataset.digest),
            find=lambda name: store.get(dataset_digest(name)),
            response=lambda dataset: pb.ImportDatasetResponse(dataset=encode_dataset(dataset)),
        )

    async def BeginUpload(self, request: pb.BeginUploadRequest, context: Context) -> pb.BeginUploadResponse:
        """Says whether a dataset is here already, and else where to go on."""
        violations = Violations()
        required(_announcement(request, violations), violations)
        found = await self._store.begin(request.sha256, request.size_bytes)
        if isinstance(found, Dataset):
            return pb.BeginUploadResponse(dataset=encode_dataset(found))
        return pb.BeginUploadResponse(committed_bytes=found)

    async def UploadDataset(
        self, request_iterator: AsyncIterator[pb.UploadDatasetRequest], context: Context
    ) -> pb.UploadDatasetResponse:
        """Takes the bytes of a dataset from an offset on."""
        message = await anext(request_iterator, None)
        if message is None or message.WhichOneof("part") != "header":
            raise InvalidInput([FieldViolation("header", "must be the first message of the stream")])
        header = message.header
        violations = Violations()
        with violations.within("header"):
            form = _announcement(header, violations)
            if not 0 <= header.offset <= max(header.size_bytes, 0):
                violations.add("offset", f"must be from 0 to size_bytes, is {header.offset}")
        dataset = await self._store.upload(
            header.sha256,
            header.size_bytes,
            required(form, violations),
            header.offset,
            _chunks(request_iterator),
        )
        return pb.UploadDatasetResponse(dataset=encode_dataset(dataset))

    async def GetDataset(self, request: pb.GetDatasetRequest, context: Context) -> pb.GetDatasetResponse:
        """Returns a dataset."""
        dataset = await self._store.get(dataset_digest(request.name))
        return pb.GetDatasetResponse(dataset=encode_dataset(dataset))

    async def ListDatasets(
        self, request: pb.ListDatasetsRequest, context: Context
    ) -> pb.ListDatasetsResponse:
        """Lists datasets, newest first."""
        violations = Violations()
        page = PageRequest(request.page_size, request.page_token, violations)
        before = page.after_as(_parse_position, violations)
        violations.raise_if_any()
        datasets, more = page.split(await self._store.page(page.fetch, before))
        token = page_token(_position(datasets[-1])) if more else ""
        return pb.ListDatasetsResponse(datasets=map(encode_dataset, datasets), next_page_token=token)

    async def DescribeDataset(
        self, request: pb.DescribeDatasetRequest, context: Context
    ) -> pb.DescribeDatasetResponse:
        """Describes the columns of a dataset."""
        dataset = await self._store.get(dataset_digest(request.name))
        facts = await self._store.facts(dataset.digest, _describe)
        columns = map(encode_description, unpack_descriptions(facts))
        return pb.DescribeDatasetResponse(dataset=encode_dataset(dataset), columns=columns)

    async def PreviewDataset(
        self, request: pb.PreviewDatasetRequest, context: Context
    ) -> pb.PreviewDatasetResponse:
        """Returns the first rows of a dataset."""
        violations = Violations()
        rows = request.rows or PREVIEW_ROWS
        if not 1 <= rows <= MOST_PREVIEW_ROWS:
            violations.add("rows", f"must be 1 to {MOST_PREVIEW_ROWS:,}, is {rows}")
        violations.raise_if_any()
        dataset = await self._store.get(dataset_digest(request.name))
        path = await self._store.path_of(dataset.digest)
        table = await asyncio.to_thread(_preview, path, rows)
        return pb.PreviewDatasetResponse(table=table)

    async def ImportDataset(
        self, request: pb.ImportDatasetRequest, context: Context
    ) -> pb.ImportDatasetResponse:
        """Makes a dataset of a file on the server."""
        violations = Violations()
        asked = decode_asked(request, violations)
        form = required(decode_format(request.format, violations), violations)
        return await self._mutations.once(
            asked, lambda once: self._import(request.path, form, once), self._imported
        )

    async def _import(self, path: str, form: DatasetFormat, once: Once[Dataset] | None) -> Dataset:
        file = await asyncio.to_thread(self._roots.open, path)
        with file:
            hashed = await asyncio.to_thread(hashlib.file_digest, file, "sha256")
            digest, size = hashed.hexdigest(), file.tell()
            if not size:
                raise InvalidInput([FieldViolation("path", "the file is empty")])
            return await self._store.upload(digest, size, form, 0, _pieces(file), once)

    async def DeleteDataset(
        self, request: pb.DeleteDatasetRequest, context: Context
    ) -> pb.DeleteDatasetResponse:
        """Deletes a dataset that no unfinished run uses."""
        violations = Violations()
        asked = decode_asked(request, violations)
        digest = dataset_digest(request.name, violations=violations)
        return await self._mutations.once(asked, lambda once: self._store.delete(digest, once), _DELETED)


def _describe(path: Path) -> bytes:
    # Imported here: most servers start without ever needing pyarrow.
    from epochd_server.data.describing import describe

    return pack_descriptions(describe(path))


def _preview(path: Path, rows: int) -> Table:
    """The first rows that fit a message."""
    from epochd_server.data.describing import first_rows

    while True:
        table = encode_table(first_rows(path, rows))
        if table.ByteSize() <= _PREVIEW_BYTES:
            return table
        if rows == 1:
            raise EpochdError(Reason.MESSAGE_TOO_LARGE, "The first row is larger than one message.")
        rows //= 2


async def _pieces(file: BufferedReader | BufferedRandom) -> AsyncIterator[bytes]:
    """A file's bytes from its beginning on."""
    file.seek(0)
    while piece := await asyncio.to_thread(file.read, MESSAGE_BYTES):
        yield piece


def _announcement(
    message: pb.BeginUploadRequest | pb.UploadHeader, violations: Violations
) -> DatasetFormat | None:
    """The format of an announced upload, all of which is checked."""
    check_digest(message.sha256, violations)
    if message.size_bytes < 1:
        violations.add("size_bytes", f"must be >= 1, is {message.size_bytes}")
    return decode_format(message.format, violations)


async def _chunks(requests: AsyncIterator[pb.UploadDatasetRequest]) -> AsyncIterator[bytes]:
    async for message in requests:
        if message.WhichOneof("part") != "data":
            raise InvalidInput([FieldViolation("part", "must be data in every message after the first")])
        data = message.data
        if not 1 <= len(data) <= MESSAGE_BYTES:
            rule = f"must be 1 to {MESSAGE_BYTES:,} bytes a message, is {len(data):,}"
            raise InvalidInput([FieldViolation("data", rule)])
        yield data


def _position(dataset: Dataset) -> str:
    return f"{(dataset.create_time - _EPOCH) // _MICROSECOND}/{dataset.digest}"


def _parse_position(text: str) -> tuple[datetime, str] | None:
    micros, slash, digest = text.partition("/")
    if not (slash and micros.isascii() and micros.isdecimal() and len(micros) < 18):
        return None
    return _EPOCH + int(micros) * _MICROSECOND, digest
