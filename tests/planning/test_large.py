"""Tables too large for memory: what is planned, and what is refused before anything is queued."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from epochd.v1.trainer_pb2 import TrainRequest
from epochd_server.data.loading import load_training_arrays
from epochd_server.domain import large_tables
from epochd_server.domain.plans import Plan
from epochd_server.domain.preprocessing import Affine
from epochd_server.domain.validation import HoldOut
from epochd_server.domain.work import DatasetFile
from epochd_server.planning import drafting, large, values

from .conftest import FolderDatasets

ROWS, ROW_BYTES = 1_000, 12
Plans = Callable[[TrainRequest], Plan]
Faults = Callable[[TrainRequest], dict[str, str]]


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of more than 200 rows are large; pieces have 100; at most 250 rows are held out."""
    monkeypatch.setattr(large_tables, "LARGE_BYTES", 200 * ROW_BYTES)
    monkeypatch.setattr(large_tables, "_PIECE_BYTES", 100 * ROW_BYTES)
    monkeypatch.setattr(drafting, "LARGE_BYTES", 200 * ROW_BYTES)
    for module in (large, values):
        monkeypatch.setattr(module, "HELD_OUT_BYTES", 250 * ROW_BYTES)


@pytest.fixture
def request_on(datasets: FolderDatasets) -> Callable[..., TrainRequest]:
    """A request on 1,000 rows with features a and b, and target y."""

    def make(**changed: object) -> TrainRequest:
        random = np.random.default_rng(0)
        columns: dict[str, object] = {name: random.normal(size=ROWS) for name in ("a", "b", "y")}
        request = TrainRequest()
        request.data.dataset = datasets.add(pa.table(columns | changed))
        request.data.target_columns.append("y")
        request.model.linear.SetInParent()
        request.loss.mse.SetInParent()
        request.gradient.epochs = 3
        request.gradient.batch_size = 10
        request.gradient.optimizer.sgd.lr = 0.01
        return request

    return make


def test_a_large_table_is_trained_from_the_disk(plan: Plans, request_on: Callable[..., TrainRequest]) -> None:
    found = plan(request_on())
    assert isinstance(found.data, DatasetFile)
    assert found.data.large
    assert found.data.rows is None
    assert found.started.rows == ROWS
    assert found.steps == 300
    # what is in memory at a time, and no more
    assert found.memory_bytes < 210 * ROW_BYTES


def test_rows_are_held_out_of_it_piece_by_piece(plan: Plans, request_on: Callable[..., TrainRequest]) -> None:
    request = request_on()
    request.validation.fraction = 0.2
    request.seed = 5
    found = plan(request)
    assert isinstance(found.data, DatasetFile)
    drawn = found.data.drawn
    assert drawn is not None
    assert (drawn.hold_out, drawn.seed, drawn.piece_rows, drawn.count) == (HoldOut(fraction=0.2), 5, 100, 200)
    assert found.started.rows == 800


def test_smaller_tables_are_read_into_memory(plan: Plans, datasets: FolderDatasets) -> None:
    request = TrainRequest()
    request.data.dataset = datasets.add(
        pa.table({"a": np.arange(200.0), "b": np.arange(200.0), "y": np.ones(200)})
    )
    request.data.target_columns.append("y")
    request.model.linear.SetInParent()
    request.loss.mse.SetInParent()
    request.gradient.epochs = 3
    request.gradient.optimizer.sgd.lr = 0.01
    found = plan(request)
    assert isinstance(found.data, DatasetFile)
    assert not found.data.large


def test_values_that_no_training_can_use_are_named(
    faults: Faults, request_on: Callable[..., TrainRequest]
) -> None:
    values = np.ones(ROWS)
    values[[512, 700]] = np.nan
    found = faults(request_on(a=values))
    assert found == {
        "data.dataset": "feature 'a' is missing (NaN) in row 512 and 1 more, counting from 0; "
        "every value must be finite"
    }


def test_what_cannot_be_done_piece_by_piece_is_refused_with_what_to_do(
    faults: Faults, request_on: Callable[..., TrainRequest]
) -> None:
    request = request_on()
    request.sweep.folds = 5
    assert "hold out a fraction" in faults(request)["sweep.folds"]

    request = request_on()
    request.validation.fraction = 0.3
    found = faults(request)
    assert found["validation.fraction"].endswith("set at most 0.25")

    request = request_on()
    request.model.module.name = "Affine"
    request.gradient.ClearField("batch_size")
    assert "must be set for a module" in faults(request)["gradient.batch_size"]


@pytest.mark.parametrize("column", ["time_column", "group_column"])
def test_the_rows_that_a_column_holds_out_are_those_of_a_table_in_memory(
    plan: Plans, request_on: Callable[..., TrainRequest], monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    days = np.random.default_rng(4).integers(0, 50, ROWS)
    request = request_on(day=days, a=np.arange(ROWS, dtype=float))
    request.seed = 3
    request.validation.fraction = 0.2
    setattr(request.validation.split, column, "day")
    large = plan(request)
    monkeypatch.setattr(large_tables, "LARGE_BYTES", 2**30)
    small = plan(request)
    assert isinstance(large.data, DatasetFile)
    assert isinstance(small.data, DatasetFile)
    assert (large.data.large, small.data.large) == (True, False)
    assert large.started.rows == small.started.rows
    one, other = (load_training_arrays(found.data, found.spec) for found in (large, small))
    assert one.validation is not None
    assert other.validation is not None
    np.testing.assert_array_equal(one.features, other.features)
    np.testing.assert_array_equal(one.validation.features, other.validation.features)


def test_a_column_with_holes_splits_no_large_table(
    faults: Faults, request_on: Callable[..., TrainRequest]
) -> None:
    request = request_on(day=np.where(np.arange(ROWS) == 700, np.nan, 1.0))
    request.validation.fraction = 0.2
    request.validation.split.group_column = "day"
    assert "'day' has no value in row 700" in faults(request)["data.dataset"]


def test_both_sides_of_a_split_must_count(
    faults: Faults, plan: Plans, request_on: Callable[..., TrainRequest]
) -> None:
    weights = np.zeros(ROWS)
    weights[7] = 1.0
    request = request_on(w=weights)
    request.data.weight_column = "w"
    request.validation.fraction = 0.1
    assert "has a weight above 0" in faults(request)["validation.fraction"]

    labels = np.zeros(ROWS, np.int64)
    labels[7] = 1
    held, left = [], []
    for seed in range(40):
        request = request_on(y=labels)
        request.loss.bce_with_logits.SetInParent()
        request.validation.fraction = 0.2
        request.seed = seed
        request.validate_only = True
        try:
            left.append(plan(request).started.rows)
        except Exception as error:
            held.append(str(error))
    assert left == [800] * len(left)
    assert held
    assert all("have one class only" in text for text in held)


def test_held_out_rows_of_their_own_must_fit_memory(
    faults: Faults, request_on: Callable[..., TrainRequest]
) -> None:
    request = request_on()
    request.validation.dataset = request.data.dataset
    assert faults(request)["validation.dataset"] == f"takes more than {250 * ROW_BYTES:,} bytes"


def test_columns_are_preprocessed_as_the_rows_that_are_trained_on_say(
    plan: Plans, faults: Faults, request_on: Callable[..., TrainRequest]
) -> None:
    random = np.random.default_rng(1)
    a, city = random.normal(size=ROWS), random.choice(["Oslo", "Bergen"], ROWS)
    a[::7] = np.nan
    request = request_on(a=a, city=city)
    request.preprocess.SetInParent()
    request.validation.fraction = 0.1
    request.seed = 3
    found = plan(request)
    assert isinstance(found.data, DatasetFile)
    assert found.data.large
    assert found.data.preprocess is not None
    assert found.data.preprocess.outputs == ("a", "a_missing", "b", "city=Bergen", "city=Oslo")
    assert found.started.feature_columns == found.data.preprocess.outputs
    request = request_on(a=a)
    request.preprocess.columns.add(columns=["a"]).steps.add().passthrough.SetInParent()
    assert "feature 'a' is missing (NaN) in row 0" in faults(request)["data.dataset"]


def test_row_weights_count_in_the_steps_of_large_tables(
    faults: Faults, plan: Plans, request_on: Callable[..., TrainRequest]
) -> None:
    random = np.random.default_rng(5)
    values, weights = random.normal(3, 2, ROWS), random.integers(0, 3, ROWS) * 0.5
    request = request_on(a=values, w=weights)
    request.data.weight_column = "w"
    request.preprocess.columns.add(columns=["a"]).steps.add().standardize.SetInParent()
    fitted = plan(request).started.preprocess
    assert fitted is not None
    state = fitted.columns[0].steps[0].state
    assert isinstance(state, Affine)
    mean = np.average(values, weights=weights)
    deviation = np.sqrt(np.average((values - mean) ** 2, weights=weights))
    np.testing.assert_allclose((*state.center, *state.scale), (mean, deviation), rtol=1e-12)

    request = request_on(w=["heavy"] * ROWS)
    request.data.weight_column = "w"
    request.preprocess.SetInParent()
    assert "weights must be numbers" in faults(request)["data.dataset"]
