"""Uploads of every format: what is stored, and what is refused."""

import io
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import ipc
from pyarrow import parquet as pq

from epochd.v1 import tensor_pb2 as pb
from epochd_server.codec.tensors import encode_tensor
from epochd_server.data.table_files import MAX_MESSAGE_BYTES
from epochd_server.domain.datasets import DatasetColumn, DatasetFormat
from epochd_server.domain.errors import EpochdError, InvalidInput, Reason

PARQUET, ARROW, TABLES = DatasetFormat.PARQUET, DatasetFormat.ARROW, DatasetFormat.TABLES


def parquet(table: pa.Table, **options: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def arrow_stream(table: pa.Table, **options: object) -> bytes:
    sink = io.BytesIO()
    with ipc.new_stream(sink, table.schema, options=ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def arrow_file(table: pa.Table, **options: object) -> bytes:
    sink = io.BytesIO()
    with ipc.new_file(sink, table.schema, options=ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def delimited(*messages: pb.Table) -> bytes:
    parts = []
    for message in messages:
        data, length = message.SerializeToString(), b""
        size = len(data)
        while size > 0x7F:
            length += bytes([size & 0x7F | 0x80])
            size >>= 7
        parts.append(length + bytes([size]) + data)
    return b"".join(parts)


def column(name: str, values: object) -> pb.Column:
    if isinstance(values, np.ndarray):
        return pb.Column(name=name, tensor=encode_tensor(values))
    if isinstance(values[0], str):
        return pb.Column(name=name, strings=pb.Strings(values=values))
    return pb.Column(name=name, numbers=pb.Numbers(values=values))


BINARY = [(PARQUET, parquet), (ARROW, arrow_stream), (ARROW, arrow_file)]
TYPES = [
    (pa.bool_(), [True, None], "bool", [True, None]),
    (pa.int8(), [-128, 127], "int8", [-128, 127]),
    (pa.uint8(), [0, 255], "uint8", [0, 255]),
    (pa.uint16(), [0, 65535], "int32", [0, 65535]),
    (pa.uint32(), [0, 2**32 - 1], "int64", [0, 2**32 - 1]),
    (pa.uint64(), [0, 2**63 - 1], "int64", [0, 2**63 - 1]),
    (pa.float32(), [0.5, None], "float32", [0.5, None]),
    (pa.string(), ["a", None], None, ["a", None]),
    (pa.large_string(), ["a", "b"], None, ["a", "b"]),
    (pa.dictionary(pa.int8(), pa.string()), ["a", None], None, ["a", None]),
    (pa.null(), [None, None], "float64", [None, None]),
]


@pytest.mark.parametrize(("format_", "write"), BINARY)
@pytest.mark.parametrize(("given_type", "values", "dtype", "stored"), TYPES)
def test_each_type_is_stored_as_one_that_trainings_know(
    convert, format_, write, given_type, values, dtype, stored
) -> None:
    table = pa.table({"v": pa.array(values, given_type), "w": [1.0, 2.0]})
    summary, read = convert(write(table), format_)
    assert summary.rows == 2
    assert summary.columns == (DatasetColumn("v", dtype), DatasetColumn("w", "float64"))
    assert read.column("v").to_pylist() == stored


@pytest.mark.parametrize(("format_", "write"), BINARY)
def test_every_column_of_a_type_that_cannot_be_stored_is_named(complaints, format_, write) -> None:
    table = pa.table(
        {"when": pa.array([0], pa.time64("us")), "list": pa.array([[1]], pa.list_(pa.int64())), "x": [1.0]}
    )
    message = complaints(write(table), format_)
    assert "'when' is of type time64" in message
    assert "'list' is of type list" in message
    assert "'x'" not in message


@pytest.mark.parametrize(("format_", "write"), BINARY)
def test_a_number_that_does_not_fit_is_an_error(complaints, format_, write) -> None:
    table = pa.table({"v": pa.array([2**64 - 1], pa.uint64())})
    assert "'v' has a value that int64 cannot hold" in complaints(write(table), format_)


@pytest.mark.parametrize(("format_", "write"), BINARY)
def test_a_table_without_rows_is_refused(complaints, format_, write) -> None:
    assert "no rows" in complaints(write(pa.table({"v": pa.array([], pa.float64())})), format_)


@pytest.mark.parametrize(("format_", "write"), [(ARROW, arrow_stream), (ARROW, arrow_file)])
def test_names_must_be_unique(complaints, format_, write) -> None:
    table = pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], names=["a", "a"])
    assert "more than one column is named 'a'" in complaints(write(table), format_)


@pytest.mark.parametrize(("format_", "write"), BINARY)
def test_a_table_that_expands_beyond_the_limit_is_refused(convert, format_, write) -> None:
    table = pa.table({"v": np.zeros(100_000)})
    data = write(table, compression="zstd")
    assert len(data) < 10_000
    with pytest.raises(EpochdError) as caught:
        convert(data, format_, max_bytes=100_000)
    assert caught.value.reason is Reason.DATA_TOO_LARGE


@pytest.mark.parametrize(("format_", "write"), BINARY)
def test_text_that_a_dictionary_repeats_is_counted_before_it_is_written_out(convert, format_, write) -> None:
    text = pa.array(["x" * 100_000]).dictionary_encode()
    repeated = pa.DictionaryArray.from_arrays(pa.array(np.zeros(20_000, np.int32)), text.dictionary)
    data = write(pa.table({"v": repeated}))
    before = pa.total_allocated_bytes()
    with pytest.raises(EpochdError) as caught:
        convert(data, format_, max_bytes=50_000_000)
    assert caught.value.reason is Reason.DATA_TOO_LARGE
    assert pa.total_allocated_bytes() - before < 50_000_000


def test_a_buffer_that_claims_to_be_huge_is_refused_before_it_is_made(convert) -> None:
    data = arrow_stream(pa.table({"v": np.zeros(1_000)}), compression="zstd")
    claimed = (8_000).to_bytes(8, "little")
    assert data.count(claimed) == 1
    with pytest.raises(EpochdError) as caught:
        convert(data.replace(claimed, (2**50).to_bytes(8, "little")), ARROW)
    assert caught.value.reason is Reason.DATA_TOO_LARGE


def test_messages_of_tables_follow_each_other(convert) -> None:
    first = pb.Table(columns=[column("x", [1.0, 2.0]), column("s", ["a", "b"])])
    second = pb.Table(columns=[column("x", [3.0]), column("s", ["c"])])
    summary, table = convert(delimited(first, second), TABLES)
    assert summary.columns == (DatasetColumn("x", "float64"), DatasetColumn("s", None))
    assert table.to_pydict() == {"x": [1.0, 2.0, 3.0], "s": ["a", "b", "c"]}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "no rows"),
        (b"\x05ab", "ends within message 0"),
        (b"\x80", "ends within the length of message 0"),
        (b"\xff\xff\xff\xff\x7f", f"more than {MAX_MESSAGE_BYTES:,} bytes"),
        (b"\x80\x80\x80\x80\x80\x80", f"more than {MAX_MESSAGE_BYTES:,} bytes"),
        (b"\x02\xff\xff", "is no serialised Table"),
        (b"\x00", "must have 1 to 10,000 columns"),
        (delimited(pb.Table(columns=[column("a", [1.0]), column("a", [1.0])])), "columns[1].name"),
        (
            delimited(pb.Table(columns=[column("a", [1.0])]), pb.Table(columns=[column("b", [1.0])])),
            "message 1, counting from 0, has other columns",
        ),
        (
            delimited(pb.Table(columns=[column("a", [1.0])]), pb.Table(columns=[column("a", ["x"])])),
            "column 'a' as string",
        ),
    ],
)
def test_what_is_wrong_with_a_message_is_said(complaints, data, expected) -> None:
    assert expected in complaints(data, TABLES)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["bool", "int8", "int16", "int32", "int64", "uint8", "float16", "float32", "float64"]),
    st.lists(st.integers(0, 1), min_size=1, max_size=20),
)
def test_tensor_columns_keep_their_type(convert, dtype, values) -> None:
    array = np.array(values).astype(dtype)
    summary, table = convert(delimited(pb.Table(columns=[column("v", array)])), TABLES)
    assert summary.columns == (DatasetColumn("v", dtype),)
    assert table.column("v").to_pylist() == array.tolist()


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(DatasetFormat), st.binary(max_size=300))
def test_random_bytes_are_never_an_exception_of_another_kind(convert, format_, data) -> None:
    tracemalloc.start()
    try:
        convert(data, format_)
    except InvalidInput:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2 * MAX_MESSAGE_BYTES


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_are_never_an_exception_of_another_kind(convert, data) -> None:
    table = pa.table({"v": [1.0, 2.0], "s": ["a", "b"], "d": pa.array(["x", "y"]).dictionary_encode()})
    format_, write = data.draw(st.sampled_from(BINARY))
    compression = data.draw(st.sampled_from(["zstd", None]))
    content = bytearray(write(table, **({} if format_ is PARQUET else {"compression": compression})))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        convert(bytes(content), format_)
    except EpochdError as error:
        assert error.reason in {Reason.INVALID_FIELDS, Reason.DATA_TOO_LARGE}  # noqa: PT017


def in_batches(rows: int, size: int, **options: object) -> bytes:
    table, sink = pa.table({"x": np.arange(rows)}), io.BytesIO()
    with ipc.new_file(sink, table.schema, options=ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=size)
    return sink.getvalue()


def test_a_file_that_is_as_it_would_be_written_is_linked(convert, folder) -> None:
    data = in_batches(1000, 300)
    summary, table = convert(data, ARROW)
    assert (folder / "stored.arrow").samefile(folder / "secret-upload")
    assert summary.rows == 1000
    assert table["x"].to_pylist() == list(range(1000))


@pytest.mark.parametrize(
    "data",
    [
        in_batches(1000, 300, compression="zstd"),
        arrow_stream(pa.table({"x": np.arange(1000)})),
        arrow_file(pa.table({"x": pa.array(np.arange(1000), pa.uint16())})),
        arrow_file(pa.table({"x": pa.array([f"{n % 3}" for n in range(1000)]).dictionary_encode()})),
        arrow_file(pa.table({"x": np.arange(1000)}).replace_schema_metadata({"pandas": "{}"})),
    ],
)
def test_any_other_table_is_written_anew(convert, folder, data) -> None:
    summary, _ = convert(data, ARROW)
    assert not (folder / "stored.arrow").samefile(folder / "secret-upload")
    assert summary.rows == 1000


def test_batches_that_the_footer_does_not_lead_to_are_no_secret(convert, folder) -> None:
    def footer(data: bytes) -> int:
        return len(data) - 10 - int.from_bytes(data[-10:-6], "little")

    whole, part = in_batches(900, 300), in_batches(600, 300)
    data = whole[: footer(whole)] + part[footer(part) :]
    with ipc.open_file(data) as reader:
        assert reader.num_record_batches == 2
    summary, table = convert(data, ARROW)
    assert not (folder / "stored.arrow").samefile(folder / "secret-upload")
    assert summary.rows == len(table) == 900


def test_large_batches_are_stored_in_portions(convert, folder) -> None:
    rows = 6_000_000
    convert(arrow_file(pa.table({"x": np.zeros(rows)})), ARROW)
    with ipc.open_file(str(folder / "stored.arrow")) as reader:
        sizes = [reader.get_batch(index).nbytes for index in range(reader.num_record_batches)]
    assert sum(sizes) == 8 * rows
    assert max(sizes) <= 8 * 2**20
