"""What ``train`` accepts as data, and how it reaches the server."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import epochd
from epochd._core.data import INLINE_BYTES, gather
from epochd._core.uploading import TableSource, Upload
from epochd._wire.columns import make_column
from epochd._wire.tables import Table, as_table
from epochd.v1 import tensor_pb2

ROWS = {"x": [1.0, 2.0, 3.0], "n": [1, 2, 3], "ok": [True, False, True], "colour": ["red", "green", "blue"]}


def unpacked(column: tensor_pb2.Column) -> list:
    if column.HasField("strings"):
        return list(column.strings.values)
    name = tensor_pb2.DataType.Name(column.tensor.dtype).removeprefix("DATA_TYPE_").lower()
    return np.frombuffer(column.tensor.data, name).tolist()


def rows(data, y=None, *, target=None, features=None, dtype="float32"):
    return gather(data, y, target=target, features=features, dtype=dtype)


TABLES = {
    "dict": ROWS,
    "pandas": pd.DataFrame(ROWS),
    "polars": pl.DataFrame(ROWS),
    "arrow": pa.table(ROWS),
    "arrow batch": pa.table(ROWS).to_batches()[0],
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_of_every_kind_give_the_same_columns(kind):
    table = rows(TABLES[kind], target="x").table
    assert {column.name: unpacked(column) for column in table.columns} == ROWS
    assert [column.tensor.dtype for column in table.columns[:3]] == [
        tensor_pb2.DATA_TYPE_FLOAT64, tensor_pb2.DATA_TYPE_INT64, tensor_pb2.DATA_TYPE_BOOL,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "column",
    [
        pd.Categorical(["a", "b", "a"]),
        pd.Series(["a", "b", "a"], dtype="string"),
        pl.Series(["a", "b", "a"], dtype=pl.Categorical),
        pa.array(["a", "b", "a"]).dictionary_encode(),
        np.array(["a", "b", "a"]),
        np.array(["a", "b", "a"], dtype=object),
    ],
    ids=[
        "pandas categorical",
        "pandas string",
        "polars categorical",
        "arrow dictionary",
        "numpy str",
        "objects",
    ],
)
def test_text_of_every_kind_is_text(column):
    assert unpacked(make_column("c", column).encode()) == ["a", "b", "a"]


@pytest.mark.parametrize(
    "column",
    [
        [1, None, 3],
        pd.array([1, None, 3], dtype="Int64"),
        pd.Series(pd.array([True, None, True], dtype="boolean")) * 2 - pd.Series([1, 0, -1]),
        pl.Series([1, None, 3]),
        pa.array([1, None, 3]),
        pd.Series([1.0, float("nan"), 3.0], dtype="Float32"),
    ],
    ids=["list", "pandas Int64", "pandas boolean arithmetic", "polars", "arrow", "pandas Float32"],
)
def test_missing_numbers_are_nan(column):
    np.testing.assert_array_equal(unpacked(make_column("c", column).encode()), [1.0, np.nan, 3.0])


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (["a", 1], "mixes text and numbers"),
        (pd.to_timedelta([1], "h"), "holds durations"),
        ([object()], "must hold numbers, booleans or text"),
        ([1 + 2j], "complex128"),
        ([[1, 2], [3, 4]], r"must have one value a row, has the shape \(2, 2\)"),
    ],
)
def test_columns_that_cannot_be_sent_are_named(column, says):
    with pytest.raises(epochd.InvalidArgument, match=says) as caught:
        make_column("age", column)
    assert caught.value.violations[0].field == "age"


@pytest.mark.parametrize(
    "column",
    [
        ["a", None],
        pd.Series(["a", None]),
        pd.Series(["a", None], dtype="string"),
        pd.Series(["a", None], dtype="category"),
        pl.Series(["a", None]),
        pa.array(["a", None]),
    ],
    ids=["list", "pandas", "pandas string", "pandas categorical", "polars", "arrow"],
)
def test_missing_texts_are_told_by_their_rows(column):
    message = make_column("c", column).encode()
    assert (list(message.strings.values), list(message.missing_rows)) == (["a", ""], [1])


TIMES = ["2024-05-17T12:00:00.000001", None]


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(pd.to_datetime(TIMES)),
        pd.Series(pd.to_datetime(TIMES)).dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"),
        np.array(TIMES, "M8[ns]"),
        [datetime(2024, 5, 17, 14, 0, 0, 1, timezone(timedelta(hours=2))), None],
        [datetime(2024, 5, 17, 12, 0, 0, 1), pd.NaT],  # noqa: DTZ001 - taken as UTC
        pl.Series([datetime(2024, 5, 17, 12, 0, 0, 1), None]),  # noqa: DTZ001
        pa.array([datetime(2024, 5, 17, 12, 0, 0, 1), None], pa.timestamp("us")),  # noqa: DTZ001
    ],
    ids=["pandas", "pandas zone", "numpy", "datetimes of a zone", "datetimes", "polars", "arrow"],
)
def test_times_are_microseconds_in_utc(column):
    message = make_column("c", column).encode()
    expected = datetime(2024, 5, 17, 12, 0, 0, 1, UTC)
    micros = message.timestamps.microseconds
    assert datetime.fromtimestamp(0, UTC) + timedelta(microseconds=micros[0]) == expected
    assert list(message.missing_rows) == [1]


def test_dates_are_their_midnights():
    message = make_column("c", [date(1970, 1, 2)]).encode()
    assert list(message.timestamps.microseconds) == [86_400_000_000]


def test_unsigned_integers_that_tensors_lack_are_widened():
    columns = [make_column("c", np.array([1, 2], dtype)) for dtype in ("uint16", "uint32", "uint64")]
    assert [str(column.values.dtype) for column in columns] == ["int32", "int64", "int64"]
    assert str(make_column("c", np.array([2**63], "uint64")).values.dtype) == "float64"


def test_repeated_columns_are_named():
    frame = pd.DataFrame([[1, 2, 3]], columns=["a", "b", "a"])
    with pytest.raises(epochd.InvalidArgument, match="more than one column named 'a'"):
        as_table(frame)


def test_columns_of_different_lengths_are_named():
    with pytest.raises(epochd.InvalidArgument, match="a: 1, b: 2"):
        as_table({"a": [1], "b": [1, 2]})


def test_features_choose_and_order_columns():
    sent = rows(ROWS, target="x", features=["n"])
    assert [column.name for column in sent.table.columns] == ["n", "x"]
    assert (sent.feature_columns, sent.target_columns) == (["n"], ["x"])


def test_unknown_columns_are_all_named():
    with pytest.raises(epochd.InvalidArgument) as caught:
        rows(ROWS, target="x", features=["n", "height", "weight"])
    assert [violation.field for violation in caught.value.violations] == ["height", "weight"]


def test_a_table_without_a_target_says_how_to_give_one():
    with pytest.raises(epochd.InvalidArgument, match="target="):
        rows(ROWS)


def test_a_table_with_separate_targets_gets_a_column():
    sent = rows(pd.DataFrame({"a": [1, 2]}), pd.Series([3.0, 4.0], name="price"))
    assert [column.name for column in sent.table.columns] == ["a", "price"]
    assert sent.target_columns == ["price"]


def test_target_and_y_together_are_refused():
    with pytest.raises(epochd.InvalidArgument, match="not both"):
        rows(ROWS, [1, 2, 3], target="x")


def test_lists_and_arrays_are_sent_as_tensors_in_the_type_of_training():
    sent = rows([[1, 2], [3, 4]], [0.5, 1.5])
    assert sent.tensors.features.dtype == tensor_pb2.DATA_TYPE_INT64
    assert list(sent.tensors.features.shape) == [2, 2]
    assert rows(np.ones((2, 2)), [1, 2]).tensors.features.dtype == tensor_pb2.DATA_TYPE_FLOAT32
    assert (
        rows(np.ones((2, 2)), [1, 2], dtype="float64").tensors.features.dtype == tensor_pb2.DATA_TYPE_FLOAT64
    )


def test_fortran_order_and_big_endian_arrive_as_row_major_little_endian():
    array = np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3))
    message = rows(array, [1, 2]).tensors.features
    assert np.frombuffer(message.data, "<f4").tolist() == [0, 1, 2, 3, 4, 5]


def test_text_targets_make_a_table_with_the_servers_column_names():
    sent = rows(np.ones((2, 2)), ["cat", "dog"])
    assert [column.name for column in sent.table.columns] == ["x0", "x1", "y"]
    assert sent.target_columns == ["y"]


def test_an_array_without_targets_is_refused():
    with pytest.raises(epochd.InvalidArgument, match="give y"):
        rows([[1.0]])


def test_columns_named_for_an_array_are_refused():
    with pytest.raises(epochd.InvalidArgument, match="in place of an array"):
        rows([[1.0]], [1.0], target="price")


class TorchLike:
    """What a torch tensor on a device, with a gradient, lets be seen of itself."""

    dtype = "torch.float32"

    def __init__(self, values):
        self._values = values

    def detach(self):
        return self

    def cpu(self):
        return self

    def numpy(self):
        return np.asarray(self._values, np.float32)

    def __array__(self, *_):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


def test_what_looks_like_a_torch_tensor_is_detached_and_copied_to_the_cpu():
    message = rows(TorchLike([[1.0], [2.0]]), TorchLike([1.0, 2.0])).tensors.features
    assert np.frombuffer(message.data, "f4").tolist() == [1, 2]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bfloat16"])
def test_torch_tensors_are_accepted(dtype):
    torch = pytest.importorskip("torch")
    x = torch.ones(2, 3, dtype=getattr(torch, dtype))
    message = rows(x.requires_grad_() if x.is_floating_point() else x, torch.zeros(2)).tensors.features
    assert list(message.shape) == [2, 3]
    assert len(message.data) == 6 * (8 if dtype == "int64" else 4)


def test_what_only_speaks_dlpack_is_accepted():
    class Tensor:
        def __init__(self, array):
            self._array = array

        def __dlpack__(self, **options):
            return self._array.__dlpack__(**options)

        def __dlpack_device__(self):
            return self._array.__dlpack_device__()

    assert list(rows(Tensor(np.ones((2, 2))), [1, 2]).tensors.features.shape) == [2, 2]


def parse_tables(data: bytes) -> list[tensor_pb2.Table]:
    """Length-delimited messages, as the proto describes them."""
    tables, position = [], 0
    while position < len(data):
        length = shift = 0
        while True:
            byte = data[position]
            position += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        tables.append(tensor_pb2.Table.FromString(data[position : position + length]))
        position += length
    return tables


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=300), st.integers(20, 5_000))
def test_batches_of_a_table_hold_every_row_once(texts, nbytes):
    table = as_table({"t": texts, "n": list(range(len(texts)))})
    ranges = list(table.batches(nbytes))
    assert [row for start, stop in ranges for row in range(start, stop)] == list(range(len(texts)))
    encoded = [table.encode(start, stop) for start, stop in ranges]
    assert [text for part in encoded for text in unpacked(part.columns[0])] == texts


def test_an_upload_is_batches_of_at_most_a_megabyte_and_the_same_every_time():
    table = as_table({"x": np.arange(400_000.0), "t": ["abc"] * 400_000})
    upload = Upload(TableSource(table))
    data = b"".join(upload._source.pieces())
    tables = parse_tables(data)
    assert len(tables) > 4
    assert max(part.ByteSize() for part in tables) <= 1 << 20
    assert np.concatenate([unpacked(part.columns[0]) for part in tables]).tolist() == list(range(400_000))
    assert upload.sha256 == Upload(TableSource(table)).sha256
    assert upload.size_bytes == len(data)


@pytest.mark.parametrize("offset", [0, 1, 1000, 1 << 20, (1 << 20) + 17])
def test_an_upload_goes_on_at_any_offset(offset):
    upload = Upload(TableSource(as_table({"x": np.arange(200_000.0)})))
    whole = b"".join(upload._source.pieces())
    header, *parts = upload.requests(offset)
    assert header.header.offset == offset
    assert b"".join(part.data for part in parts) == whole[offset:]
    assert all(1 <= len(part.data) <= 1 << 20 for part in parts)


# -- over the wire ------------------------------------------------------------------------------------------------


def big() -> dict[str, np.ndarray]:
    return {"x": np.arange(300_000.0), "y": np.arange(300_000.0)}


def test_data_that_fits_no_message_is_uploaded_first(call, fake, request_of, train_arguments):
    call(lambda c: c.train(big(), target="y", **train_arguments))
    assert fake.does.calls == ["BeginUpload", "UploadDataset", "Train"]
    ((digest, data),) = fake.does.uploaded.items()
    assert request_of("Train").data.dataset == f"datasets/{digest}"
    assert list(request_of("Train").data.target_columns) == ["y"]
    assert sum(len(part.columns[0].tensor.data) for part in parse_tables(data)) == 300_000 * 4


def test_large_arrays_are_uploaded_as_columns(call, fake, request_of, train_arguments):
    call(lambda c: c.train(np.ones((300_000, 4)), np.ones(300_000), **train_arguments))
    (data,) = fake.does.uploaded.values()
    assert [column.name for column in parse_tables(data)[0].columns] == ["x0", "x1", "x2", "x3", "y"]
    assert list(request_of("Train").data.target_columns) == ["y"]


def test_a_second_upload_of_the_same_content_costs_one_round_trip(call, fake, steps, train_arguments):
    @steps
    def use(client):
        yield client.train(big(), target="y", **train_arguments)
        yield client.train(big(), target="y", **train_arguments)

    call(use)
    assert fake.does.calls == ["BeginUpload", "UploadDataset", "Train", "BeginUpload", "Train"]


def test_a_broken_upload_goes_on_where_it_ended(call, fake, train_arguments):
    fake.does.break_upload_at = [1_000_000, 3_000_000]
    call(lambda c: c.train(big(), target="y", **train_arguments))
    offsets = [r.header.offset for r in fake.does.requests if hasattr(r, "header")]
    assert len(offsets) == 3
    assert 0 == offsets[0] < offsets[1] < offsets[2]
    assert len(fake.does.uploaded) == 1


def test_a_table_is_uploaded_once_and_trained_on_by_name(call, fake, steps, request_of, train_arguments):
    @steps
    def use(client):
        dataset = yield client.upload(ROWS)
        yield client.train(dataset, target="x", **train_arguments)
        listed = yield client.datasets()
        yield client.delete_dataset(dataset)
        return dataset, listed

    dataset, listed = call(use)
    assert request_of("Train").data.dataset == dataset.name
    assert dataset.columns == {"x": "float64", "colour": "text"}
    assert listed == [dataset]
    assert not fake.does.uploaded


@pytest.mark.parametrize(("suffix", "number"), [(".csv", 2), (".parquet", 3), (".arrow", 4)])
def test_files_are_sent_as_they_are(call, fake, request_of, tmp_path, train_arguments, suffix, number):
    path = tmp_path / f"data{suffix}"
    path.write_bytes(b"x,y\n1,2\n")
    call(lambda c: c.train(path, target="y", **train_arguments))
    assert list(fake.does.uploaded.values()) == [b"x,y\n1,2\n"]
    assert request_of("BeginUpload").format == number


def test_a_file_of_another_kind_is_refused(call, tmp_path):
    with pytest.raises(epochd.InvalidArgument, match=r"data\.xlsx must end in one of \.csv"):
        call(lambda c: c.upload(tmp_path / "data.xlsx"))


def test_text_that_takes_more_bytes_than_characters_is_uploaded():
    table = as_table({"t": ["한" * 100] * 20_000, "y": np.zeros(20_000)})
    assert table.nbytes < INLINE_BYTES
    assert rows(table, target="y").upload is not None


def test_a_request_holds_what_was_asked_for(call, request_of):
    call(
        lambda c: c.train(
            [[1.0]], [2.0], model=epochd.Linear(init="zeros"), loss="huber", optimizer=epochd.Adam(lr=0.1), epochs=7,
            batch_size=1, shuffle=False, accumulation_steps=2, log_every=3, log_parameters=True, seed=0,
            dtype="float64", name="house-price",
        )
    )  # fmt: skip
    request = request_of("Train")
    assert request.model_name == "house-price"
    assert request.model.init == 2
    assert request.loss.huber.delta == 1.0
    fit = request.gradient
    assert (fit.epochs, fit.batch_size, fit.accumulation_steps) == (7, 1, 2)
    assert fit.HasField("shuffle")
    assert not fit.shuffle
    assert fit.optimizer.adam.beta2 == 0.999
    assert (request.logging.every, request.logging.parameters) == (3, True)
    assert request.HasField("seed")
    assert request.dtype == tensor_pb2.DATA_TYPE_FLOAT64


def test_what_is_not_asked_for_stays_unset(call, request_of, train_arguments):
    call(lambda c: c.train([[1.0]], [2.0], **train_arguments))
    request = request_of("Train")
    assert not request.HasField("seed")
    assert not request.gradient.HasField("batch_size")
    assert not request.logging.HasField("every")
    assert not request.model.linear.HasField("in_features")
    assert request.model_name == ""


def test_a_table_selects_nothing_it_lacks():
    with pytest.raises(epochd.InvalidArgument, match="there are a"):
        Table((make_column("a", [1]),)).select(["b"])


def test_features_of_a_table_travel_in_the_precision_they_are_trained_in():
    table = {"x": [0.1], "n": [1], "y": [0.1], "w": [0.5]}

    def types(dtype):
        columns = gather(table, None, target="y", weight="w", dtype=dtype).table.columns
        return [tensor_pb2.DataType.Name(column.tensor.dtype)[10:] for column in columns]

    assert types("float32") == ["FLOAT32", "INT64", "FLOAT64", "FLOAT64"]
    assert types("float64") == ["FLOAT64", "INT64", "FLOAT64", "FLOAT64"]


def test_what_float32_cannot_hold_is_sent_as_it_is():
    assert unpacked(rows({"x": [1e300, 0.0], "y": [1, 2]}, target="y").table.columns[0]) == [1e300, 0.0]


def test_bytes_are_encoded_once_unless_there_are_too_many_to_keep(monkeypatch):
    class Counted:
        format = 0
        reads = 0

        def pieces(self):
            self.reads += 1
            return iter([b"ab", b"cd"])

    for limit, reads in ((4, 1), (3, 2)):
        monkeypatch.setattr("epochd._core.uploading._KEPT_BYTES", limit)
        source = Counted()
        sent = b"".join(request.data for request in Upload(source).requests(1))
        assert (sent, source.reads) == (b"bcd", reads)
