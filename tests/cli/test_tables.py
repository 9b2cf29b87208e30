"""CSV in and out."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np
import pandas
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from epochd.cli import tables

TEXT = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8)


def parse(text: str) -> tables.Table:
    return tables.parse(io.StringIO(text), "data.csv")


def problem(text: str) -> str:
    with pytest.raises(typer.BadParameter) as caught:
        parse(text)
    return str(caught.value)


def test_whole_numbers_numbers_and_text_become_columns_of_their_kind():
    table = parse("n,x,city\n1,0.5,Seoul\n-2,1e3,Busan\n")
    assert table["n"].dtype == np.int64
    assert table["x"].dtype == np.float64
    assert table["n"].tolist() == [1, -2]
    assert table["x"].tolist() == [0.5, 1000.0]
    assert table["city"] == ["Seoul", "Busan"]


def test_an_empty_cell_among_numbers_is_nan():
    column = parse("x\n1\n \n2\n".replace(" ", '""'))["x"]
    assert column[0] == 1
    assert math.isnan(column[1])


def test_quotes_and_commas_are_read_as_csv_has_them():
    assert parse('name,x\n"Kim, A.",1\n"say ""hi""",2\n')["name"] == ["Kim, A.", 'say "hi"']


def test_digit_groups_are_text_and_huge_integers_are_numbers():
    table = parse("group,huge\n1_000,123456789012345678901\n2_000,1\n")
    assert table["group"] == ["1_000", "2_000"]
    assert table["huge"].dtype == np.float64


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path):
    path = tmp_path / "excel.csv"
    path.write_bytes(b"\xef\xbb\xbfx,y\n1,2\n")
    assert list(tables.read(str(path))) == ["x", "y"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "data.csv is empty; the first line must name the columns"),
        ("x,y\n", "data.csv has a header but no rows"),
        ("x,\n1,2\n", "data.csv: column 2 has no name"),
        ("x,y,x\n1,2,3\n", "data.csv has more than one column x"),
        ("1,2\n3,4\n", "data.csv has no header: its first line holds only numbers"),
        ("x,y\n1,2\n3\n", "data.csv, line 3: 1 cells, but the header names 2 columns"),
        ('x\n"1\n', "data.csv, line 2: unexpected end of data"),
    ],
)
def test_what_is_no_table_is_refused_with_the_line(text: str, expected: str):
    assert problem(text) == expected


def test_a_file_that_is_not_there_or_not_text_is_refused_in_one_line(tmp_path: Path):
    (tmp_path / "binary.csv").write_bytes(b"x\n\xff\xfe\n")
    with pytest.raises(typer.BadParameter, match=r"cannot read .*none\.csv: No such file or directory"):
        tables.read(str(tmp_path / "none.csv"))
    with pytest.raises(typer.BadParameter, match=r"binary\.csv is not UTF-8: byte 2 is 0xff"):
        tables.read(str(tmp_path / "binary.csv"))


@given(st.lists(st.lists(st.floats(allow_nan=False), min_size=3, max_size=3), min_size=1, max_size=20))
def test_numbers_are_read_as_pandas_reads_them_exactly(rows: list[list[float]]):
    file = io.StringIO()
    tables.write(file, {name: [row[index] for row in rows] for index, name in enumerate("abc")})
    ours = parse(file.getvalue())
    oracle = pandas.read_csv(io.StringIO(file.getvalue()))
    for name in "abc":
        np.testing.assert_array_equal(
            np.asarray(ours[name], dtype=np.float64), oracle[name].to_numpy(dtype=np.float64)
        )


@given(st.lists(TEXT, min_size=1, max_size=10))
def test_text_is_read_as_it_was_written(texts: list[str]):
    file = io.StringIO()
    csv.writer(file).writerows([["t", "kind"], *([text, "text"] for text in texts)])
    read = parse(file.getvalue())["t"]
    if isinstance(read, list):
        assert read == texts
    else:
        assert [float(text) for text in texts] == pytest.approx(read.tolist(), nan_ok=True)
