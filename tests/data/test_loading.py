"""Stored datasets as workers read them."""

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import ipc

from epochd_server.data.loading import ArrowColumns, load_training_arrays, read_schema
from epochd_server.domain.data import ColumnRoles
from epochd_server.domain.datasets import DatasetColumn, DatasetSummary
from epochd_server.domain.errors import EpochdError, InvalidInput, Reason
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
    arrays = load_training_arrays(path, ColumnRoles(features=("b", "a"), targets=("y",)), spec(), None)
    assert arrays.features.tolist() == [[7, 4], [8, 5], [9, 6]]
    assert arrays.features.dtype == np.float32
    assert arrays.targets.tolist() == [[1], [2], [3]]
    assert (arrays.feature_columns, arrays.target_columns) == (("b", "a"), ("y",))


def test_labels_are_numbered_by_the_classes_that_were_planned(store) -> None:
    path = store(pa.table({"x": [1.0, 2.0, 3.0], "y": [2, 0, 2]}))
    roles = ColumnRoles(features=("x",), targets=("y",))
    arrays = load_training_arrays(path, roles, spec(LossKind.CROSS_ENTROPY), (0, 1, 2))
    assert arrays.targets.tolist() == [2, 0, 2]
    assert arrays.classes == (0, 1, 2)


def test_a_dataset_that_changed_under_a_plan_is_an_error(store) -> None:
    path = store(pa.table({"x": [1.0, None], "y": [1.0, 2.0]}))
    with pytest.raises(InvalidInput):
        load_training_arrays(path, ColumnRoles(features=("x",), targets=("y",)), spec(), None)


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


def test_a_fleets_rows_are_sorted_by_member_with_weights_and_targets(store) -> None:
    path = store(
        pa.table(
            {
                "x": [1.0, 2.0, 3.0, 4.0, None],
                "k": ["b", "a", "b", "a", "c"],
                "y": [0, 1, 1, 0, 1],
                "w": [1.0, 2.0, 3.0, 4.0, 5.0],
            }
        )
    )
    roles = ColumnRoles(features=("x",), targets=("y",), groups=("k",), weight="w")
    arrays = load_training_arrays(path, roles, spec(LossKind.CROSS_ENTROPY), (0, 1))
    assert arrays.features[:4].tolist() == [[2], [4], [1], [3]]
    assert arrays.targets.tolist() == [1, 0, 0, 1, 1]
    assert arrays.weights.tolist() == [2, 4, 1, 3, 5]
    assert arrays.weights.dtype == np.float32
    assert arrays.groups.keys.columns[0].tolist() == ["a", "b", "c"]
    assert arrays.groups.offsets.tolist() == [0, 2, 4, 5]
    assert arrays.groups.unfit == {2: "FEATURE_NOT_FINITE"}


def test_a_fleet_without_keys_any_more_is_an_error(store) -> None:
    path = store(pa.table({"x": [1.0, 2.0], "k": ["a", None], "y": [1.0, 2.0]}))
    roles = ColumnRoles(features=("x",), targets=("y",), groups=("k",))
    with pytest.raises(InvalidInput):
        load_training_arrays(path, roles, spec(), None)
