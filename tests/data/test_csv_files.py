"""CSV uploads: types from all values, faults by row."""

import csv
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochd_server.domain.datasets import DatasetColumn, DatasetFormat
from epochd_server.domain.errors import InvalidInput

CSV = DatasetFormat.CSV


@pytest.mark.parametrize(
    ("values", "dtype", "stored"),
    [
        (["1", "2", "-3"], "int64", [1, 2, -3]),
        (["1", "2.5", "1e3"], "float64", [1.0, 2.5, 1000.0]),
        (["true", "False", "TRUE"], "bool", [True, False, True]),
        (["1", "true", "0"], None, ["1", "true", "0"]),
        (["a", "1", "NA"], None, ["a", "1", "NA"]),
        (["1", "", "3"], "int64", [1, None, 3]),
        (["NA", "", ""], "int64", [None, None, None]),
        ([" 1", "2 ", "3"], "int64", [1, 2, 3]),
        (["9223372036854775808", "1", "2"], "float64", [9223372036854775808.0, 1.0, 2.0]),
    ],
)
def test_a_columns_type_is_found_from_all_of_its_values(convert, values, dtype, stored) -> None:
    data = "id,v\n" + "".join(f"{index},{value}\n" for index, value in enumerate(values))
    summary, table = convert(data.encode(), CSV)
    assert summary.rows == 3
    assert summary.columns == (DatasetColumn("id", "int64"), DatasetColumn("v", dtype))
    assert table.column("v").to_pylist() == stored


def test_a_type_that_only_a_late_block_shows_holds_for_the_whole_column(convert) -> None:
    rows = 300_000  # several blocks
    data = "v\n" + "1\n" * rows + "0.5\n"
    summary, table = convert(data.encode(), CSV)
    assert summary.columns == (DatasetColumn("v", "float64"),)
    values = table.column("v").to_numpy()
    assert len(values) == rows + 1
    assert values.sum() == rows + 0.5


def test_the_row_with_too_many_values_is_named(complaints) -> None:
    message = complaints(b"a,b\n1,2\n3,4,5\n", CSV)
    assert "row 3" in message
    assert "has 3 values" in message
    assert "2 names" in message


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "Empty CSV file"),
        (b"a,b\n", "no rows"),
        (b"a,a\n1,2\n", "more than one column is named 'a'"),
        (b"a,\n1,2\n", "column 1"),
        (b"a,b\n1,\xff\xfe\n", "line 2 is not UTF-8"),
        (b"\x01,b\n1,2\n", "control characters"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(complaints, data, expected) -> None:
    assert expected.lower() in complaints(data, CSV).lower()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(
            st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1).map(
                "t".__add__
            ),
            min_size=2,
            max_size=2,
        ),
        min_size=1,
        max_size=5,
    )
)
def test_text_comes_back_as_pythons_csv_module_wrote_it(convert, rows) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([["p", "q"], *rows])
    _, table = convert(text.getvalue().encode(), CSV)
    assert [list(row) for row in zip(*table.to_pydict().values(), strict=True)] == rows


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_numbers_come_back_to_the_bit(convert, numbers) -> None:
    data = "v\n" + "".join(f"{number!r}\n" for number in numbers)
    _, table = convert(data.encode(), CSV)
    assert np.array_equal(table.column("v").to_numpy().astype(np.float64), np.array(numbers))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_a_complaint(convert, data) -> None:
    try:
        summary, table = convert(data, CSV)
    except InvalidInput:
        return
    assert summary.rows == table.num_rows > 0


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"x,y\n1,2\n3,\xe9\n", "line 3 is not UTF-8: byte 3 of it is 0xe9"),
        (b"\xffx\n1\n", "line 1 is not UTF-8: byte 1 of it is 0xff"),
        (b"x\n" + b"1\n" * 600_000 + b"\xc3", "line 600002 is not UTF-8: byte 1 of it is 0xc3"),
        (b"x\n" + b"a" * (2**20 - 1) + b"\xc3\x28\n", "line 2 is not UTF-8: byte 1048576 of it is 0xc3"),
    ],
    ids=["latin", "first", "cut off", "over blocks"],
)
def test_another_encoding_is_told_by_line_and_byte(complaints, data: bytes, says: str) -> None:
    assert says in complaints(data, DatasetFormat.CSV)
