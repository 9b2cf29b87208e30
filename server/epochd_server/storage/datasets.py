"""Uploaded tables: their bytes as Arrow files in the data folder, what is known of them in the database."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, delete, select, tuple_

from epochd_server.domain.datasets import Dataset, DatasetColumn, DatasetFormat, DatasetSummary
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.resources import dataset_name, run_name
from epochd_server.domain.runs import RunState
from epochd_server.storage.database import Database
from epochd_server.storage.durable_files import sync_path
from epochd_server.storage.schema import datasets, from_micros, runs, to_micros
from epochd_server.storage.statements import AnyRow, insert_into
from epochd_server.storage.uploads import PartialFile

Convert = Callable[[Path, DatasetFormat, Path], DatasetSummary]
"""Reads an upload of a format and writes it as an Arrow IPC file.

Raises:
    InvalidInput: The upload is not what its format says.
"""

_CONVERSIONS_AT_ONCE = 2
_UNFINISHED = [state.value for state in RunState if not state.is_terminal]


class DatasetStore:
    """Datasets of one data folder.

    Args:
        database: Holds what is known of them.
        folder: Gets the Arrow files.
        uploads: Gets the bytes of uploads until they are complete.
        convert: Makes Arrow files of uploads.
        most_bytes: The largest upload that is taken.
    """

    def __init__(
        self, database: Database, *, folder: Path, uploads: Path, convert: Convert, most_bytes: int
    ) -> None:
        self._database = database
        self._folder = folder
        self._uploads = uploads
        self._convert = convert
        self._most_bytes = most_bytes
        # A dataset that is deleted while the same bytes are uploaded again keeps both its row and its file, or none.
        self._publishing = asyncio.Lock()
        # Of their own: checking and converting gigabytes must not take the threads that others wait for.
        self._converters = ThreadPoolExecutor(_CONVERSIONS_AT_ONCE, thread_name_prefix="dataset")

    async def begin(self, digest: str, size: int) -> Dataset | int:
        """The dataset if it is here already, or else how many bytes of its upload are.

        Args:
            digest: SHA-256 of the upload in lower-case hex.
            size: Its bytes.

        Raises:
            EpochdError: DATA_TOO_LARGE.
        """
        self._check_size(size)
        found = await self.find(digest)
        if found is not None:
            return found
        return await asyncio.to_thread(PartialFile(self._uploads, digest, size).committed)

    async def upload(
        self, digest: str, size: int, format_: DatasetFormat, offset: int, chunks: AsyncIterable[bytes]
    ) -> Dataset:
        """Takes the bytes of an upload from an offset on, and makes a dataset of it once it is whole.

        What has arrived when ``chunks`` breaks off is kept for the next attempt.

        Raises:
            InvalidInput: The offset leaves a gap, bytes are missing or too many, or they are not of the format.
            EpochdError: DATA_TOO_LARGE, DIGEST_MISMATCH.
        """
        self._check_size(size)
        partial = PartialFile(self._uploads, digest, size)
        if (found := await self.find(digest)) is not None:
            return found
        await asyncio.to_thread(partial.check_offset, offset)
        async for chunk in chunks:
            offset = await asyncio.to_thread(partial.write, offset, chunk)
        return await self._finish(partial, digest, size, format_)

    async def find(self, digest: str) -> Dataset | None:
        """The dataset, or None."""
        one = select(datasets).where(datasets.c.digest == digest)
        row = await self._database.read(lambda connection: connection.execute(one).one_or_none())
        return None if row is None else _to_dataset(row)

    async def get(self, digest: str) -> Dataset:
        """The dataset.

        Raises:
            EpochdError: DATASET_NOT_FOUND.
        """
        found = await self.find(digest)
        if found is None:
            raise _no_dataset(digest)
        return found

    async def page(self, limit: int, before: tuple[datetime, str] | None = None) -> list[Dataset]:
        """Datasets whose (create_time, digest) are less than ``before``, newest first."""
        age = tuple_(datasets.c.create_time, datasets.c.digest)
        page = select(datasets).order_by(datasets.c.create_time.desc(), datasets.c.digest.desc()).limit(limit)
        if before is not None:
            page = page.where(age < (to_micros(before[0]), before[1]))
        rows = await self._database.read(lambda connection: connection.execute(page).all())
        return [_to_dataset(row) for row in rows]

    async def delete(self, digest: str) -> None:
        """Deletes a dataset.

        Raises:
            EpochdError: DATASET_NOT_FOUND; DATASET_IN_USE, naming a run that has not ended.
        """
        using = select(runs.c.run_id).where(runs.c.dataset == digest, runs.c.state.in_(_UNFINISHED)).limit(1)

        def operation(connection: Connection) -> None:
            if not connection.execute(delete(datasets).where(datasets.c.digest == digest)).rowcount:
                raise _no_dataset(digest)
            if (run_id := connection.scalar(using)) is not None:
                metadata = {"name": dataset_name(digest), "run": run_name(run_id)}
                raise EpochdError(Reason.DATASET_IN_USE, metadata=metadata)

        async with self._publishing:
            await self._database.write(operation)
            await asyncio.to_thread(self.path_of(digest).unlink, missing_ok=True)
            await asyncio.to_thread(self._facts_of(digest).unlink, missing_ok=True)

    async def facts(self, digest: str, compute: Callable[[Path], bytes]) -> bytes:
        """What was once computed of a dataset, or is now, and kept beside it.

        Args:
            digest: The dataset, which is there.
            compute: Computes it of the Arrow file, in a thread.

        Raises:
            EpochdError: DATASET_NOT_FOUND where it is deleted meanwhile.
        """

        def read_or_compute() -> bytes:
            kept = self._facts_of(digest)
            if kept.exists():
                return kept.read_bytes()
            found = compute(self.path_of(digest))
            fresh = kept.with_suffix(f".{os.urandom(4).hex()}.tmp")
            fresh.write_bytes(found)
            fresh.rename(kept)
            return found

        return await asyncio.get_running_loop().run_in_executor(self._converters, read_or_compute)

    def _facts_of(self, digest: str) -> Path:
        return self._folder / f"{digest}.facts.json"

    def path_of(self, digest: str) -> Path:
        """Where a dataset's Arrow IPC file is."""
        return self._folder / f"{digest}.arrow"

    def close(self) -> None:
        """Waits for conversions that run, and starts no more."""
        self._converters.shutdown(cancel_futures=True)

    def _check_size(self, size: int) -> None:
        if size > self._most_bytes:
            message = f"The data has {size} bytes; this server takes at most {self._most_bytes}."
            raise EpochdError(Reason.DATA_TOO_LARGE, message, {"limit_bytes": str(self._most_bytes)})

    async def _finish(self, partial: PartialFile, digest: str, size: int, format_: DatasetFormat) -> Dataset:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._converters, partial.verify)
        converted = self._folder / f"{digest}.{os.urandom(4).hex()}.tmp"
        try:
            summary = await loop.run_in_executor(
                self._converters, self._to_arrow, partial, format_, converted
            )
            dataset = Dataset(
                digest=digest,
                format=format_,
                rows=summary.rows,
                columns=summary.columns,
                size_bytes=size,
                create_time=datetime.now(UTC),
            )
            async with self._publishing:
                await asyncio.to_thread(_rename, converted, self.path_of(digest))
                stored = await self._database.write(lambda connection: _insert(connection, dataset))
        finally:
            converted.unlink(missing_ok=True)
        await asyncio.to_thread(partial.discard)
        return stored

    def _to_arrow(self, partial: PartialFile, format_: DatasetFormat, path: Path) -> DatasetSummary:
        try:
            summary = self._convert(partial.path, format_, path)
        except EpochdError:
            partial.discard()  # the digest is right, so that these bytes will never do
            raise
        sync_path(path)
        return summary


def _rename(source: Path, destination: Path) -> None:
    source.rename(destination)
    sync_path(destination.parent)


def _insert(connection: Connection, dataset: Dataset) -> Dataset:
    """Stores the dataset, or finds the one that a simultaneous upload of the same bytes made."""
    row = {
        "digest": dataset.digest,
        "format": dataset.format.value,
        "rows": dataset.rows,
        "columns": json.dumps([[column.name, column.dtype] for column in dataset.columns]),
        "size_bytes": dataset.size_bytes,
        "create_time": to_micros(dataset.create_time),
    }
    connection.execute(insert_into(connection, datasets).on_conflict_do_nothing(), row)
    one = select(datasets).where(datasets.c.digest == dataset.digest)
    return _to_dataset(connection.execute(one).one())


def _to_dataset(row: AnyRow) -> Dataset:
    return Dataset(
        digest=row.digest,
        format=DatasetFormat(row.format),
        rows=row.rows,
        columns=tuple(DatasetColumn(name, dtype) for name, dtype in json.loads(row.columns)),
        size_bytes=row.size_bytes,
        create_time=from_micros(row.create_time),
    )


def _no_dataset(digest: str) -> EpochdError:
    return EpochdError(Reason.DATASET_NOT_FOUND, metadata={"name": dataset_name(digest)})
