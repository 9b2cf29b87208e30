"""Stored datasets as workers read them."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import ipc

from epochd_server.data.arrow_types import ARROW_TYPES
from epochd_server.data.loading import ArrowColumns, load_training_arrays, read_schema
from epochd_server.domain.data import ColumnRoles
from epochd_server.domain.datasets import DatasetColumn, DatasetSummary
from epochd_server.domain.errors import EpochdError, InvalidInput, Reason
from epochd_server.domain.fleets import Groups, Keys
from epochd_server.domain.specs import (
    GradientFit,
    Init,
    LinearModel,
    Logging,
    Loss,
    LossKind,
    Optimizer,
    OptimizerKind,
    Precision,
    TrainingSpec,
)
from epochd_server.domain.work import DatasetFile


def spec(kind: LossKind = LossKind.MSE) -> TrainingSpec:
    return TrainingSpec(
        model=LinearModel(in_features=1, out_features=1),
        loss=Loss(kind=kind),
        fit=GradientFit(optimizer=Optimizer(kind=OptimizerKind.SGD, lr=0.1), epochs=1),
        init=Init.ZEROS,
        precision=Precision.FLOAT32,
        seed=0,
        logging=Logging(every=1),
    )


@pytest.fixture
def store(tmp_path):
    def write(table: pa.Table):
        path = tmp_path / "table.arrow"
        with ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
        return path

    return write


def test_a_schema_names_rows_and_types(store) -> None:
    path = store(pa.table({"x": [1, 2, 3], "b": [True, False, None], "s": ["a", "b", None]}))
    columns = (DatasetColumn("x", "int64"), DatasetColumn("b", "bool"), DatasetColumn("s", None))
    assert read_schema(path) == DatasetSummary(3, columns)


def test_chunks_are_joined_and_missing_values_are_nan_or_none(store) -> None:
    columns = ArrowColumns(store(pa.table({"i": [1, None, 3], "f": [0.5, None, 1.5], "s": ["a", None, "c"]})))
    assert np.array_equal(columns.values(0), [1, np.nan, 3], equal_nan=True)
    assert np.array_equal(columns.values(1), [0.5, np.nan, 1.5], equal_nan=True)
    assert columns.values(2).tolist() == ["a", None, "c"]


def test_columns_are_loaded_in_the_order_of_their_roles(store) -> None:
    path = store(pa.table({"y": [1.0, 2.0, 3.0], "a": [4, 5, 6], "b": [7.0, 8.0, 9.0]}))
    roles = ColumnRoles(features=("b", "a"), targets=("y",))
    arrays = load_training_arrays(DatasetFile(path=str(path), roles=roles), spec())
    assert arrays.features.tolist() == [[7, 4], [8, 5], [9, 6]]
    assert arrays.features.dtype == np.float32
    assert arrays.targets.tolist() == [[1], [2], [3]]
    assert (arrays.feature_columns, arrays.target_columns) == (("b", "a"), ("y",))


def test_labels_are_numbered_by_the_classes_that_were_planned(store) -> None:
    path = store(pa.table({"x": [1.0, 2.0, 3.0], "y": [2, 0, 2]}))
    file = DatasetFile(path=str(path), roles=ColumnRoles(features=("x",), targets=("y",)), classes=(0, 1, 2))
    arrays = load_training_arrays(file, spec(LossKind.CROSS_ENTROPY))
    assert arrays.targets.tolist() == [2, 0, 2]
    assert arrays.classes == (0, 1, 2)


def test_a_dataset_that_changed_under_a_plan_is_an_error(store) -> None:
    path = store(pa.table({"x": [1.0, None], "y": [1.0, 2.0]}))
    file = DatasetFile(path=str(path), roles=ColumnRoles(features=("x",), targets=("y",)))
    with pytest.raises(InvalidInput):
        load_training_arrays(file, spec())


def test_a_dataset_that_is_gone_or_damaged_says_so(tmp_path) -> None:
    with pytest.raises(EpochdError) as gone:
        ArrowColumns(tmp_path / "none")
    assert gone.value.reason is Reason.DATASET_NOT_FOUND
    (tmp_path / "damaged").write_bytes(b"ARROW1" * 20)
    with pytest.raises(EpochdError) as damaged:
        ArrowColumns(tmp_path / "damaged")
    assert damaged.value.reason is Reason.ARTIFACT_CORRUPT
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(EpochdError) as empty:
        ArrowColumns(tmp_path / "empty")
    assert empty.value.reason is Reason.ARTIFACT_CORRUPT


def fleet_file(path, *, rows, sizes, unfit=None, **roles) -> DatasetFile:
    """Members 0, 1 … of these sizes, whose rows are ``rows`` of the file."""
    return DatasetFile(
        path=str(path),
        roles=ColumnRoles(features=("x",), targets=("y",), groups=("k",), **roles),
        classes=(0, 1),
        groups=Groups(
            keys=Keys(("k",), (np.arange(len(sizes)),)),
            offsets=np.concatenate([[0], np.cumsum(sizes)]),
            unfit=unfit or {},
        ),
        rows=rows,
    )


def test_a_fleets_rows_are_read_in_the_order_that_was_planned(store) -> None:
    path = store(
        pa.table(
            {
                "x": [1.0, 2.0, 3.0, 4.0, None],
                "k": ["b", "a", "b", "a", "c"],
                "y": [0, 1, 1, 0, None],
                "w": [1.0, 2.0, 3.0, 4.0, -5.0],
            }
        )
    )
    unfit = {2: "FEATURE_NOT_FINITE"}
    file = fleet_file(path, rows=np.array([1, 3, 0, 2, 4]), sizes=[2, 2, 1], unfit=unfit, weight="w")
    arrays = load_training_arrays(file, spec(LossKind.CROSS_ENTROPY))
    assert arrays.features[:4].tolist() == [[2], [4], [1], [3]]
    assert arrays.targets[:4].tolist() == [1, 0, 0, 1]
    assert arrays.weights[:4].tolist() == [2, 4, 1, 3]
    assert arrays.weights.dtype == np.float32
    assert arrays.groups is file.groups


@pytest.mark.parametrize("rows", [slice(2, 5), np.array([4, 2, 3])])
def test_a_part_of_a_fleet_reads_its_own_rows_only(store, rows) -> None:
    texts = ["a", "b", "b", "a", "b", None]
    path = store(pa.table({"x": [float(n) for n in range(6)], "k": [0, 0, 1, 1, 1, 2], "y": texts}))
    file = replace(fleet_file(path, rows=rows, sizes=[3]), classes=("a", "b"))
    arrays = load_training_arrays(file, spec(LossKind.BCE_WITH_LOGITS))
    numbers = np.arange(6)[rows]
    assert arrays.features[:, 0].tolist() == numbers.tolist()
    assert arrays.targets[:, 0].tolist() == [float(texts[number] == "b") for number in numbers]


@pytest.mark.parametrize("rows", [None, slice(1, 4), np.array([0, 7, 1])])
def test_a_file_that_lacks_rows_of_a_plan_is_damaged(store, rows) -> None:
    path = store(pa.table({"x": [1.0, 2.0], "k": [0, 0], "y": [0, 1]}))
    with pytest.raises(EpochdError) as caught:
        load_training_arrays(fleet_file(path, rows=rows, sizes=[3]), spec(LossKind.CROSS_ENTROPY))
    assert caught.value.reason is Reason.ARTIFACT_CORRUPT


def column_of(kind: pa.DataType) -> st.SearchStrategy[list[object]]:
    if kind == pa.bool_():
        values: st.SearchStrategy[object] = st.booleans()
    elif pa.types.is_integer(kind):
        values = st.integers(0, 100)
    elif pa.types.is_floating(kind):
        values = st.floats(-9, 9, width=16)
    else:
        values = st.text(max_size=3)
    return st.lists(st.none() | values, min_size=20, max_size=20) | st.lists(values, min_size=20, max_size=20)


KINDS = [*ARROW_TYPES.values(), pa.string()]


@given(
    columns=st.tuples(*map(column_of, KINDS)),
    chunk=st.integers(1, 25),
    first=st.integers(0, 20),
    last=st.integers(0, 20),
    numbers=st.lists(st.integers(0, 19), unique=True),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_chosen_rows_are_those_that_arrow_takes(tmp_path, columns, chunk, first, last, numbers) -> None:
    table = pa.table(
        [pa.array(v, kind) for v, kind in zip(columns, KINDS, strict=True)], list(map(str, KINDS))
    )
    path = tmp_path / "table.arrow"
    with ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=chunk)
    for chosen in (None, slice(first, last), np.array(numbers, np.uint32)):
        read = ArrowColumns(path, chosen)
        picked = np.arange(20) if chosen is None else np.arange(20)[chosen]
        expected = table.take(pa.array(picked, pa.int64()))
        assert read.rows == len(picked)
        for index in range(len(KINDS)):
            missing = None if read.is_text(index) else np.nan
            wanted = [missing if value is None else value for value in expected.column(index).to_pylist()]
            assert np.array_equal(
                read.values(index),
                np.array(wanted, object).astype(read.values(index).dtype),
                equal_nan=not read.is_text(index),
            )
        numeric = range(len(KINDS) - 1)
        matrix = np.empty((read.rows, len(numeric)))
        read.fill(numeric, matrix)
        if read.rows:
            assert np.array_equal(matrix, np.stack([read.values(i) for i in numeric], 1), equal_nan=True)
