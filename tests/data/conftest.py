"""Shared by the tests of datasets: files to convert, and what a client would be told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import ipc

from epochd_server.data.formats import convert_to_arrow
from epochd_server.domain.datasets import DatasetFormat, DatasetSummary
from epochd_server.domain.errors import InvalidInput

Convert = Callable[..., tuple[DatasetSummary, pa.Table]]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="session")
def convert(folder: Path) -> Convert:
    """Converts bytes and reads the stored file back."""

    def run(data: bytes, format_: DatasetFormat, **options: int) -> tuple[DatasetSummary, pa.Table]:
        source, destination = folder / "secret-upload", folder / "stored.arrow"
        destination.unlink(missing_ok=True)  # it may be the file that was the source before
        source.unlink(missing_ok=True)
        source.write_bytes(data)
        summary = convert_to_arrow(source, format_, destination, **options)
        with ipc.open_file(destination.read_bytes()) as reader:
            return summary, reader.read_all()

    return run


@pytest.fixture(scope="session")
def complaints(convert: Convert) -> Callable[[bytes, DatasetFormat], str]:
    """What is said of bytes that are no table; never a path."""

    def run(data: bytes, format_: DatasetFormat) -> str:
        with pytest.raises(InvalidInput) as caught:
            convert(data, format_)
        assert "secret" not in str(caught.value)
        assert "/" not in caught.value.message.replace("://", "")
        return caught.value.message

    return run
