"""Datasets on the real server: described, previewed, imported from allowed folders, refused from others."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import epochd

FRAME = pd.DataFrame(
    {
        "area": [40.0, np.nan, 60.0, 80.0],
        "city": ["Oslo", None, "Bergen", "Oslo"],
        "listed": pd.to_datetime(["2024-01-02", None, "2024-03-01", "2024-01-02"]),
        "rent": [1, 2, 3, 4],
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("allowed")
    pq.write_table(pa.Table.from_pandas(FRAME), folder / "flats.parquet")
    (folder / "broken.csv").write_text("a,b\n1,2\n3\n")
    (folder / "empty.csv").write_text("")
    return folder


@pytest.fixture
def address(start_server, folder, tmp_path):
    return start_server("--data-root", str(folder)).address


def test_a_dataset_tells_of_its_columns_and_shows_its_first_rows(server):
    with epochd.connect(server.address) as client:
        dataset = client.upload(FRAME)
        found = client.dataset(dataset.name).describe()
        assert [column.kind for column in found] == ["number", "text", "timestamp", "integer"]
        assert (found["area"].min, found["area"].max, found["area"].mean) == (40, 80, 60)
        assert (found["city"].missing, found["city"].distinct) == (1, 2)
        assert found["listed"].max == datetime(2024, 3, 1, tzinfo=UTC)
        assert str(found).splitlines()[0] == "4 rows"
        pd.testing.assert_frame_equal(
            pd.DataFrame(dataset.preview(3)), FRAME.head(3), check_dtype=False, check_exact=True
        )
        assert dataset in list(client.datasets())


def test_the_asyncio_client_has_the_same(server):
    async def run() -> tuple[int, int]:
        async with epochd.aio.connect(server.address) as client:
            dataset = await client.upload(FRAME)
            return len(await dataset.describe()), len((await dataset.preview(2))["rent"])

    assert asyncio.run(run()) == (4, 2)


def test_a_file_of_the_server_becomes_a_dataset_only_below_a_data_root(address, folder, tmp_path):
    (tmp_path / "secret.csv").write_text("x\n1\n")
    (folder / "link.csv").symlink_to(tmp_path / "secret.csv")
    with epochd.connect(address) as client:
        dataset = client.import_dataset(str(folder / "flats.parquet"))
        assert dataset.rows == 4
        assert client.import_dataset(str(folder / "flats.parquet")).name == dataset.name
        for path in (tmp_path / "secret.csv", folder / "link.csv", folder / ".." / "secret.csv"):
            with pytest.raises(epochd.PermissionDenied) as caught:
                client.import_dataset(str(path))
            assert str(tmp_path) not in str(caught.value)
        with pytest.raises(epochd.NotFound):
            client.import_dataset(str(folder / "none.csv"))
        with pytest.raises(epochd.InvalidArgument, match="row 3, where the header is row 1, has 1 values"):
            client.import_dataset(str(folder / "broken.csv"))
        with pytest.raises(epochd.InvalidArgument, match="the file is empty"):
            client.import_dataset(str(folder / "empty.csv"))
        assert [one.name for one in client.datasets()] == [dataset.name]
