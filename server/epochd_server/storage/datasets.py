"""Uploaded tables: their rows as Arrow files among the artifacts, what is known of them in the database."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from weakref import WeakValueDictionary

from sqlalchemy import Connection, delete, select, tuple_

from epochd_server.domain.datasets import Dataset, DatasetFormat, DatasetSummary
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.once import AnsweredBefore, Once
from epochd_server.domain.resources import dataset_name, run_name
from epochd_server.storage.answers import Answers
from epochd_server.storage.artifacts import ArtifactDamagedError, Artifacts, discard
from epochd_server.storage.database import Database
from epochd_server.storage.dataset_rows import DatasetFile, file_of, insert, is_used, no_dataset, to_dataset
from epochd_server.storage.durable_files import digest_of_file, local_io
from epochd_server.storage.schema import datasets, runs, to_micros
from epochd_server.storage.uploads import ClaimedUpload, PartialFile

Convert = Callable[[Path, DatasetFormat, Path], DatasetSummary]
"""Reads an upload of a format and writes it as an Arrow IPC file, or links it there where it is one already.

Raises:
    InvalidInput: The upload is not what its format says.
"""

_CONVERSIONS_AT_ONCE = 4
"""Two uploads, of which each is converted and digested at the same time."""
_FETCHES_AT_ONCE = 4


class DatasetStore:
    """The datasets.

    Args:
        database: Holds what is known of them.
        artifacts: Gets the Arrow files.
        uploads: Gets the bytes of uploads until they are complete.
        convert: Makes Arrow files of uploads.
        most_bytes: The largest upload that is taken.
        answers: Remembers what requests were answered.
    """

    def __init__(
        self,
        database: Database,
        artifacts: Artifacts,
        *,
        uploads: Path,
        convert: Convert,
        most_bytes: int,
        answers: Answers,
    ) -> None:
        self._database = database
        self._artifacts = artifacts
        self._uploads = uploads
        self._convert = convert
        self._most_bytes = most_bytes
        self._answers = answers
        # Of their own: checking and converting gigabytes must not take the threads that others wait for.
        self._converters = ThreadPoolExecutor(_CONVERSIONS_AT_ONCE, thread_name_prefix="dataset")
        self._finishing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._fetchers = ThreadPoolExecutor(_FETCHES_AT_ONCE, thread_name_prefix="dataset-fetch")

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
        self,
        digest: str,
        size: int,
        format_: DatasetFormat,
        offset: int,
        chunks: AsyncIterable[bytes],
        once: Once[Dataset] | None = None,
    ) -> Dataset:
        """Takes the bytes of an upload from an offset on, and makes a dataset of it once it is whole.

        What has arrived when ``chunks`` breaks off is kept for the next attempt.

        Raises:
            InvalidInput: The offset leaves a gap, bytes are missing or too many, or they are not of the format.
            EpochdError: DATA_TOO_LARGE, DIGEST_MISMATCH, REQUEST_ID_REUSED.
            AnsweredBefore: The request was made before.
        """
        self._check_size(size)
        partial = PartialFile(self._uploads, digest, size)
        if (found := await self.find(digest)) is not None:
            return await self._remember(found, once)
        await asyncio.to_thread(partial.check_offset, offset)
        await _write(partial, offset, chunks)
        async with self._finishing.setdefault(digest, asyncio.Lock()):
            # whoever sent the same bytes at the same time may have been faster
            if (found := await self.find(digest)) is not None:
                return await self._remember(found, once)
            return await self._finish(partial, digest, size, format_, once)

    async def find(self, digest: str) -> Dataset | None:
        """The dataset, or None."""
        one = select(datasets).where(datasets.c.digest == digest)
        row = await self._database.read(lambda connection: connection.execute(one).one_or_none())
        return None if row is None else to_dataset(row)

    async def get(self, digest: str) -> Dataset:
        """The dataset.

        Raises:
            EpochdError: DATASET_NOT_FOUND.
        """
        found = await self.find(digest)
        if found is None:
            raise no_dataset(digest)
        return found

    async def page(self, limit: int, before: tuple[datetime, str] | None = None) -> list[Dataset]:
        """Datasets whose (create_time, digest) are less than ``before``, newest first."""
        age = tuple_(datasets.c.create_time, datasets.c.digest)
        page = select(datasets).order_by(datasets.c.create_time.desc(), datasets.c.digest.desc()).limit(limit)
        if before is not None:
            page = page.where(age < (to_micros(before[0]), before[1]))
        rows = await self._database.read(lambda connection: connection.execute(page).all())
        return [to_dataset(row) for row in rows]

    async def delete(self, digest: str, once: Once[object] | None = None) -> None:
        """Deletes a dataset.

        Raises:
            EpochdError: DATASET_NOT_FOUND; DATASET_IN_USE, naming a run that has not ended; REQUEST_ID_REUSED.
            AnsweredBefore: The request was made before.
        """
        using = select(runs.c.run_id).where(is_used(digest)).limit(1)

        def operation(connection: Connection) -> DatasetFile:
            file = file_of(connection, digest)
            connection.execute(delete(datasets).where(datasets.c.digest == digest))
            if (run_id := connection.scalar(using)) is not None:
                metadata = {"name": dataset_name(digest), "run": run_name(run_id)}
                raise EpochdError(Reason.DATASET_IN_USE, metadata=metadata)
            return file

        file: DatasetFile = await self._answers.write(operation, once)
        await discard(self._artifacts, (file.artifact, file.facts))

    async def facts(self, digest: str, compute: Callable[[Path], bytes]) -> bytes:
        """What was once computed of a dataset, or is now, and kept beside it.

        Args:
            digest: The dataset.
            compute: Computes it of the Arrow file, in a thread.

        Raises:
            EpochdError: DATASET_NOT_FOUND, ARTIFACT_CORRUPT, STORAGE_UNAVAILABLE.
        """
        file = await self._database.read(lambda connection: file_of(connection, digest))
        try:
            return bytes(await asyncio.to_thread(self._artifacts.map, file.facts))
        except FileNotFoundError:
            path = await self.path_of(digest)
        found = await asyncio.get_running_loop().run_in_executor(self._converters, compute, path)
        with suppress(EpochdError):  # where there is no room for them they are computed again
            await self._artifacts.put(file.facts, found)
        return found

    async def path_of(self, digest: str) -> Path:
        """A local Arrow IPC file with a dataset's rows, to be opened soon.

        Raises:
            EpochdError: DATASET_NOT_FOUND; ARTIFACT_CORRUPT where it is missing or damaged; STORAGE_UNAVAILABLE.
        """
        file = await self._database.read(lambda connection: file_of(connection, digest))
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(
                self._fetchers, self._artifacts.fetch, file.artifact, file.digest
            )
        except (FileNotFoundError, ArtifactDamagedError) as error:
            # Deleted just now, or damaged: whoever deletes a dataset deletes its row first.
            await self.get(digest)
            raise _damaged(digest) from error

    def close(self) -> None:
        """Waits for conversions that run, and starts no more."""
        self._converters.shutdown(cancel_futures=True)
        self._fetchers.shutdown(cancel_futures=True)

    def _check_size(self, size: int) -> None:
        if size > self._most_bytes:
            message = f"The data has {size} bytes; this server takes at most {self._most_bytes}."
            raise EpochdError(Reason.DATA_TOO_LARGE, message, {"limit_bytes": str(self._most_bytes)})

    async def _remember(self, found: Dataset, once: Once[Dataset] | None) -> Dataset:
        """A dataset that was there before, as the answer to a request."""
        return found if once is None else await self._answers.write(lambda _: found, once)

    async def _finish(
        self,
        partial: PartialFile,
        digest: str,
        size: int,
        format_: DatasetFormat,
        once: Once[Dataset] | None,
    ) -> Dataset:
        upload = await asyncio.to_thread(partial.claim)
        converted = upload.path.with_suffix(".tmp")
        try:
            summary, file_digest = await self._converted(upload, format_, converted)
            dataset = Dataset(
                digest=digest,
                format=format_,
                rows=summary.rows,
                columns=summary.columns,
                size_bytes=size,
                create_time=datetime.now(UTC),
            )
            # No two uploads share an artifact, so deleting one never harms another that is made meanwhile.
            file = DatasetFile(f"datasets/{digest}.{os.urandom(8).hex()}.arrow", file_digest)
            await self._artifacts.put_file(file.artifact, converted)
        except BaseException as error:
            wrong = isinstance(error, EpochdError) and error.reason is not Reason.STORAGE_UNAVAILABLE
            await asyncio.to_thread(upload.discard if wrong else upload.give_back)
            raise
        finally:
            converted.unlink(missing_ok=True)
        await asyncio.to_thread(upload.discard)
        return await self._store(dataset, file, once)

    async def _store(self, dataset: Dataset, file: DatasetFile, once: Once[Dataset] | None) -> Dataset:
        """Stores a dataset, or finds the one that the same bytes or the same request made meanwhile."""
        kept: Once[tuple[Dataset, DatasetFile]] | None
        kept = None if once is None else Once(once.asked, lambda made: once.answer(made[0]))
        try:
            made = await self._answers.write(lambda connection: insert(connection, dataset, file), kept)
        except AnsweredBefore:
            await discard(self._artifacts, [file.artifact])
            raise
        if made[1] != file:
            await discard(self._artifacts, [file.artifact])
        return made[0]

    async def _converted(
        self, upload: ClaimedUpload, format_: DatasetFormat, path: Path
    ) -> tuple[DatasetSummary, str]:
        """What is in an upload, whose digest is checked meanwhile, and the digest of the Arrow file made of it."""
        loop = asyncio.get_running_loop()
        verifying = loop.run_in_executor(self._converters, upload.verify)
        converting = loop.run_in_executor(self._converters, self._to_arrow, upload, format_, path)
        await asyncio.gather(verifying, converting, return_exceptions=True)
        verifying.result()  # comes first: of other bytes than were announced nothing else is told
        return converting.result()

    def _to_arrow(
        self, upload: ClaimedUpload, format_: DatasetFormat, path: Path
    ) -> tuple[DatasetSummary, str]:
        with local_io():
            summary = self._convert(upload.path, format_, path)
            same = path.samefile(upload.path)
            return summary, upload.digest if same else digest_of_file(path)


async def _write(partial: PartialFile, offset: int, chunks: AsyncIterable[bytes]) -> None:
    """Writes chunks one after the other, each while the next one arrives."""
    writing: asyncio.Future[int] | None = None
    try:
        async for chunk in chunks:
            if writing is not None:
                await writing
            writing = asyncio.ensure_future(asyncio.to_thread(partial.write, offset, chunk))
            offset += len(chunk)
        if writing is not None:
            await writing
    finally:
        if writing is not None:  # a thread that still writes must not meet the next attempt
            await asyncio.wait([writing])


def _damaged(digest: str) -> EpochdError:
    name = dataset_name(digest)
    message = f"The rows of {name} are damaged; delete it and upload it again."
    return EpochdError(Reason.ARTIFACT_CORRUPT, message, {"name": name})
