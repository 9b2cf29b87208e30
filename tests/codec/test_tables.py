"""Tables: every kind of column, and every fault of one."""

import math

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from epochd.v1 import tensor_pb2 as pb
from epochd_server.codec.tables import decode_table
from epochd_server.codec.tensors import encode_tensor
from epochd_server.domain.errors import Violations

column_names = st.lists(
    st.text(
        st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=9
    ),
    min_size=1,
    max_size=4,
    unique=True,
)


def numbers(name: str, *values: float) -> pb.Column:
    return pb.Column(name=name, numbers=pb.Numbers(values=values))


def faults(message: pb.Table) -> dict[str, str]:
    violations = Violations()
    assert decode_table(message, violations) is None
    return {violation.field: violation.description for violation in violations.found}


@given(st.data())
def test_columns_of_every_kind_come_back(data) -> None:
    names = data.draw(column_names)
    rows = data.draw(st.sampled_from([0, 1, 3, 100]))
    given_values = [data.draw(values_of(rows)) for _ in names]
    message = pb.Table(columns=[to_column(n, v) for n, v in zip(names, given_values, strict=True)])
    violations = Violations()
    table = decode_table(pb.Table.FromString(message.SerializeToString()), violations)
    assert not violations
    assert table.names == tuple(names)
    assert table.rows == rows
    for column, values in zip(table.columns, given_values, strict=True):
        assert column.is_text == (values.dtype == object)
        assert column.values.dtype == values.dtype
        assert np.array_equal(column.values, values, equal_nan=values.dtype.kind == "f")


def values_of(rows: int) -> st.SearchStrategy[np.ndarray]:
    texts = st.lists(st.text(st.characters(codec="utf-8"), max_size=5), min_size=rows, max_size=rows)
    dtypes = st.sampled_from(["bool", "int8", "int64", "uint8", "float16", "float32", "float64"])
    return texts.map(lambda values: np.array(values, dtype=object)) | dtypes.flatmap(
        lambda dtype: hnp.arrays(np.dtype(dtype), rows)
    )


def to_column(name: str, values: np.ndarray) -> pb.Column:
    if values.dtype == object:
        return pb.Column(name=name, strings=pb.Strings(values=values.tolist()))
    if values.dtype == np.float64:
        return pb.Column(name=name, numbers=pb.Numbers(values=values.tolist()))
    return pb.Column(name=name, tensor=encode_tensor(values))


def test_a_table_may_have_columns_but_no_rows() -> None:
    table = decode_table(pb.Table(columns=[numbers("x")]), Violations())
    assert table.rows == 0


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (pb.Table(), {"columns"}),
        (pb.Table(columns=[numbers("x")] * 10_001), {"columns"}),
        (pb.Table(columns=[numbers("")]), {"columns[0].name"}),
        (pb.Table(columns=[numbers("é" * 256), numbers("é" * 257)]), {"columns[1].name"}),
        (
            pb.Table(columns=[numbers("x"), numbers("a\tb"), numbers("c\x85")]),
            {"columns[1].name", "columns[2].name"},
        ),
        (
            pb.Table(columns=[numbers("x"), numbers("x"), numbers("x")]),
            {"columns[1].name", "columns[2].name"},
        ),
        (pb.Table(columns=[numbers("x"), pb.Column(name="y")]), {"columns[1].values"}),
        (pb.Table(columns=[numbers("x", 1), numbers("y", 1, 2), numbers("z")]), {"columns[1]", "columns[2]"}),
        (
            pb.Table(columns=[pb.Column(name="x", tensor=encode_tensor(np.zeros((2, 2))))]),
            {"columns[0].tensor.shape"},
        ),
        (
            pb.Table(columns=[pb.Column(name="x", tensor=pb.Tensor(dtype=99, shape=[-1]))]),
            {"columns[0].tensor.dtype", "columns[0].tensor.shape[0]"},
        ),
        (
            pb.Table(columns=[numbers(""), pb.Column(name="y"), numbers("z", math.nan)]),
            {"columns[0].name", "columns[1].values"},
        ),
    ],
)
def test_every_fault_has_its_field(message, fields) -> None:
    assert set(faults(message)) == fields


@given(st.binary(max_size=80))
def test_any_bytes_are_a_table_or_have_violations(data) -> None:
    try:
        message = pb.Table.FromString(data)
    except DecodeError:
        return
    violations = Violations()
    assert (decode_table(message, violations) is None) == bool(violations)
