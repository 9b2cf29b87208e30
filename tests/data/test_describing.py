"""Descriptions and first rows of stored datasets, against pandas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import ipc

from epochd_server.codec.descriptions import encode_table, pack_descriptions, unpack_descriptions
from epochd_server.codec.tables import decode_table
from epochd_server.data.describing import describe, first_rows
from epochd_server.domain.data import ColumnKind
from epochd_server.domain.errors import Violations

NUMBERS = st.one_of(st.none(), st.floats(-1e9, 1e9, allow_subnormal=False))


def store(folder: Path, table: pa.Table, chunk: int) -> Path:
    path = folder / "table.arrow"
    with ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=chunk)
    return path


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(NUMBERS, min_size=1, max_size=40), st.integers(1, 40))
def test_numbers_are_described_as_pandas_does(
    tmp_path: Path, numbers: list[float | None], chunk: int
) -> None:
    column = pd.Series(numbers, dtype="float64")
    (found,) = describe(store(tmp_path, pa.table({"x": pa.array(numbers, pa.float64())}), chunk))
    assert (found.missing, found.distinct) == (column.isna().sum(), column.nunique())
    if column.notna().any():
        assert (found.min, found.max) == (column.min(), column.max())
        np.testing.assert_allclose(found.mean, column.mean(), rtol=1e-9, atol=1e-6)
        np.testing.assert_allclose(found.std, column.std(ddof=0), rtol=1e-6, atol=1e-6)
    else:
        assert (found.min, found.max, found.mean, found.std) == (None,) * 4


def test_every_kind_of_column_is_described(tmp_path: Path) -> None:
    times = pa.array([5, None, 3, 5], pa.timestamp("us"))
    table = pa.table(
        {"t": times, "s": ["a", None, "b", "a"], "b": [True, False, None, True], "n": [1, 2, 2, 2**60]}
    )
    found = describe(store(tmp_path, table, 3))
    assert [column.kind for column in found] == [
        ColumnKind.TIMESTAMP,
        ColumnKind.TEXT,
        ColumnKind.BOOLEAN,
        ColumnKind.INTEGER,
    ]
    assert [column.distinct for column in found] == [2, 2, 2, 3]
    assert [column.missing for column in found] == [1, 1, 1, 0]
    assert (found[0].earliest, found[0].latest, found[0].min) == (3, 5, None)
    assert (found[2].min, found[2].max, found[2].mean) == (0, 1, 2 / 3)
    assert unpack_descriptions(pack_descriptions(found)) == found


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()], ids=str)
def test_many_distinct_values_are_estimated_closely(tmp_path: Path, kind: pa.DataType) -> None:
    column = pa.array(np.arange(200_000)).cast(kind)
    (found,) = describe(store(tmp_path, pa.table({"x": column}), 70_000))
    assert found.distinct_is_estimate
    assert abs(found.distinct / 200_000 - 1) < 0.03


def test_first_rows_come_as_they_are_over_batches_and_the_wire(tmp_path: Path) -> None:
    table = pa.table(
        {
            "s": ["a", None, "c", "d"],
            "t": pa.array([0, None, 2, 3], pa.timestamp("us")),
            "x": pa.array([0.5, None, 2.5, 3.5]),
        }
    )
    rows = first_rows(store(tmp_path, table, 2), 3)
    back = decode_table(encode_table(rows), Violations())
    assert back is not None
    for found in (rows, back):
        s, t, x = (column.values for column in found.columns)
        assert s.tolist() == ["a", None, "c"]
        np.testing.assert_array_equal(t, np.array([0, "NaT", 2], "M8[us]"))
        np.testing.assert_array_equal(x, [0.5, np.nan, 2.5])
