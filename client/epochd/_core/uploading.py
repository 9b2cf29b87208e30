"""Uploads of datasets: the digest first, then only the bytes that the server lacks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Protocol

from epochd._core.calling import call, retrying
from epochd._core.effects import Program, compute, invoke
from epochd._core.methods import BEGIN_UPLOAD, UPLOAD
from epochd._wire.tables import Table
from epochd.errors import invalid
from epochd.policy import Policy
from epochd.v1 import datasets_pb2

CHUNK_BYTES = 1 << 21
_BATCH_BYTES = 1 << 19
_KEPT_BYTES = 64 << 20
"""So many encoded bytes are kept from the digest to the sending; those of a larger source are encoded twice."""
_FORMATS = {
    ".csv": datasets_pb2.DATASET_FORMAT_CSV,
    ".parquet": datasets_pb2.DATASET_FORMAT_PARQUET,
    ".arrow": datasets_pb2.DATASET_FORMAT_ARROW,
    ".arrows": datasets_pb2.DATASET_FORMAT_ARROW,
    ".feather": datasets_pb2.DATASET_FORMAT_ARROW,
}


class Source(Protocol):
    """Bytes that can be read more than once: to digest them, to send them, to go on after a broken stream."""

    @property
    def format(self) -> datasets_pb2.DatasetFormat.ValueType:
        """How the bytes hold a table."""

    def pieces(self) -> Iterator[bytes]:
        """The bytes from the beginning, the same ones every time."""


@dataclass(frozen=True, slots=True)
class TableSource:
    """A table as length-delimited messages of row batches; only one batch is in memory as bytes at a time."""

    table: Table
    format: datasets_pb2.DatasetFormat.ValueType = datasets_pb2.DATASET_FORMAT_TABLES

    def pieces(self) -> Iterator[bytes]:
        """One length and one message after the other."""
        for start, stop in self.table.batches(_BATCH_BYTES):
            message = self.table.encode(start, stop).SerializeToString(deterministic=True)
            yield _varint(len(message)) + message


@dataclass(frozen=True, slots=True)
class FileSource:
    """A CSV, Parquet or Arrow file, sent as it is."""

    path: Path

    @property
    def format(self) -> datasets_pb2.DatasetFormat.ValueType:
        """By the file's suffix."""
        return format_of(self.path)

    def pieces(self) -> Iterator[bytes]:
        """The file in chunks."""
        with self.path.open("rb") as file:
            while piece := file.read(CHUNK_BYTES):
                yield piece


def format_of(path: PurePath) -> datasets_pb2.DatasetFormat.ValueType:
    """How a file holds a table, by its suffix.

    Raises:
        InvalidArgument: When the suffix is none of those.
    """
    try:
        return _FORMATS[path.suffix.lower()]
    except KeyError:
        raise invalid("data", f"{path.name} must end in one of {', '.join(_FORMATS)}") from None


class Upload:
    """A source with its digest and size."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._kept: list[bytes] = []
        self.format = source.format

    @cached_property
    def _measured(self) -> tuple[str, int]:
        digest, size, kept = hashlib.sha256(), 0, []
        for piece in self._source.pieces():
            digest.update(piece)
            size += len(piece)
            if size <= _KEPT_BYTES:
                kept.append(piece)
        self._kept = kept if size <= _KEPT_BYTES else []
        return digest.hexdigest(), size

    @property
    def sha256(self) -> str:
        """Digest of all bytes, in lower-case hex."""
        return self._measured[0]

    @property
    def size_bytes(self) -> int:
        """Number of bytes."""
        return self._measured[1]

    def begin(self) -> datasets_pb2.BeginUploadRequest:
        """The request that asks what the server has of it."""
        return datasets_pb2.BeginUploadRequest(
            sha256=self.sha256, size_bytes=self.size_bytes, format=self.format
        )

    def requests(self, offset: int) -> Iterator[datasets_pb2.UploadDatasetRequest]:
        """The messages that send the bytes from ``offset`` on."""
        yield datasets_pb2.UploadDatasetRequest(
            header=datasets_pb2.UploadHeader(
                sha256=self.sha256, size_bytes=self.size_bytes, format=self.format, offset=offset
            )
        )
        position = 0
        for piece in self._kept or self._source.pieces():
            skipped = min(len(piece), max(0, offset - position))
            position += len(piece)
            for start in range(skipped, len(piece), CHUNK_BYTES):
                yield datasets_pb2.UploadDatasetRequest(data=piece[start : start + CHUNK_BYTES])


def upload(data: Upload, policy: Policy) -> Program[datasets_pb2.Dataset]:
    """Makes sure that the server has the dataset and returns it; goes on where a broken stream ended."""

    def attempt(left: float) -> Program[datasets_pb2.Dataset]:
        begun = yield from call(BEGIN_UPLOAD, (yield from compute(data.begin)), policy)
        if begun.HasField("dataset"):
            return begun.dataset
        response = yield from invoke(UPLOAD, data.requests(begun.committed_bytes), left)
        return response.dataset

    return (yield from retrying(attempt, policy, policy.timeout.transfer))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
