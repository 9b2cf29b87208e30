"""Plans with held-out rows: which rows are where, and every reason why they cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from epochd.v1.tensor_pb2 import Column, Numbers, Strings
from epochd.v1.trainer_pb2 import TrainRequest
from epochd_server.data.loading import load_training_arrays
from epochd_server.domain.data import TrainingArrays
from epochd_server.domain.errors import InvalidInput
from epochd_server.domain.plans import Plan
from epochd_server.domain.validation import Folds, GivenRows, HoldOut, Split
from epochd_server.domain.work import DatasetFile

Make = Callable[..., TrainRequest]
Planning = Callable[[TrainRequest], Plan]
Faults = Callable[[TrainRequest], dict[str, str]]


def held_out(plan: Plan) -> TrainingArrays:
    assert isinstance(plan.data, TrainingArrays)
    assert plan.data.validation is not None
    return plan.data.validation


def numbers(count: int) -> list[float]:
    return [float(one) for one in range(count)]


@pytest.fixture
def request_of(table_request: Make) -> Make:
    """A request that holds out a fifth of ten rows; columns may be given."""

    def make(**columns: list[float] | list[str]) -> TrainRequest:
        request = table_request(**(columns or {"x": numbers(10), "y": numbers(10)}))
        request.validation.fraction = 0.2
        request.seed = 7
        return request

    return make


@pytest.fixture
def classes_of(request_of: Make) -> Make:
    """The same for labels."""

    def make(labels: list[str], **columns: list[float] | list[str]) -> TrainRequest:
        request = request_of(x=numbers(len(labels)), **columns, y=labels)
        request.loss.cross_entropy.SetInParent()
        return request

    return make


def test_a_fraction_of_the_rows_is_held_out(request_of: Make, plan: Planning) -> None:
    planned = plan(request_of())
    data, held = planned.data, held_out(planned)
    assert isinstance(data, TrainingArrays)
    assert (data.rows, held.rows, planned.started.rows) == (8, 2, 8)
    assert sorted(np.concatenate([data.targets, held.targets])[:, 0].tolist()) == numbers(10)
    assert planned.spec.validation is not None
    assert planned.spec.validation.rows == HoldOut(fraction=0.2)


def test_the_same_seed_holds_out_the_same_rows(request_of: Make, plan: Planning) -> None:
    first, second = held_out(plan(request_of())), held_out(plan(request_of()))
    np.testing.assert_array_equal(first.targets, second.targets)


def test_the_column_that_rows_are_split_by_is_no_feature(request_of: Make, plan: Planning) -> None:
    request = request_of(x=numbers(10), day=[f"2026-01-{10 - n:02d}" for n in range(10)], y=numbers(10))
    request.validation.split.time_column = "day"
    planned = plan(request)
    assert planned.started.feature_columns == ("x",)
    assert held_out(planned).targets[:, 0].tolist() == [0.0, 1.0]


def test_groups_are_held_out_whole(request_of: Make, plan: Planning) -> None:
    shops = ["a", "b", "c", "d", "e"] * 2
    request = request_of(x=numbers(10), shop=shops, y=numbers(10))
    request.validation.split.group_column = "shop"
    first, second = held_out(plan(request)).targets[:, 0].tolist()
    assert second - first == 5


def test_classes_are_held_out_in_proportion(classes_of: Make, plan: Planning) -> None:
    held = held_out(plan(classes_of(["yes"] * 5 + ["no"] * 5)))
    assert sorted(held.targets.tolist()) == [0, 1]


def test_members_of_a_fleet_are_split_each(request_of: Make, plan: Planning) -> None:
    request = request_of(x=numbers(12), shop=["b", "a"] * 5 + ["c", "b"], y=numbers(12))
    request.data.group_columns.append("shop")
    planned = plan(request)
    held = held_out(planned)
    assert held.groups is not None
    assert np.diff(held.groups.offsets).tolist() == [1, 1, 0]
    assert dict(held.groups.unfit) == {2: "NO_VALIDATION_ROWS"}
    assert isinstance(planned.data, TrainingArrays)
    assert planned.data.groups is not None
    assert np.diff(planned.data.groups.offsets).tolist() == [4, 5, 1]


def test_a_fleet_without_any_member_that_can_be_split_is_refused(request_of: Make, faults: Faults) -> None:
    request = request_of(x=numbers(2), shop=["a", "b"], y=numbers(2))
    request.data.group_columns.append("shop")
    assert "NO_VALIDATION_ROWS (2 members)" in faults(request)["validation.rows"]


def test_folds_are_dealt_and_counted(request_of: Make, plan: Planning) -> None:
    request = request_of()
    request.validation.ClearField("fraction")
    request.sweep.folds = 3
    request.sweep.lr.extend([0.1, 0.2])
    planned = plan(request)
    assert isinstance(planned.data, TrainingArrays)
    assert planned.data.folds is not None
    assert sorted(np.bincount(planned.data.folds).tolist()) == [3, 3, 4]
    assert planned.spec.key_columns == ("lr", "fold")
    assert planned.started.members == 6
    assert planned.spec.validation is not None
    assert planned.spec.validation.rows == Folds(count=3)


def test_folds_need_no_validation_message(request_of: Make, plan: Planning) -> None:
    request = request_of()
    request.ClearField("validation")
    request.sweep.folds = 5
    assert plan(request).started.members == 5


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda r: r.sweep.__setattr__("folds", 11), "sweep.folds"),
        (lambda r: r.sweep.__setattr__("folds", 1), "sweep.folds"),
        (lambda r: setattr(r.validation.split, "time_column", "dai"), "validation.split"),
    ],
)
def test_what_cannot_be_split_is_named(
    change: Callable[[TrainRequest], None], field: str, request_of: Make, faults: Faults
) -> None:
    request = request_of(x=numbers(10), day=numbers(10), y=numbers(10))
    request.validation.ClearField("rows")
    change(request)
    if not request.sweep.folds:
        request.validation.fraction = 0.5
    assert field in faults(request)


def test_one_row_cannot_be_split(request_of: Make, faults: Faults) -> None:
    assert "none can be held out" in faults(request_of(x=[1.0], y=[2.0]))["validation.fraction"]


def test_a_missing_value_to_split_by_is_named(request_of: Make, faults: Faults) -> None:
    request = request_of(x=numbers(3), day=[1.0, float("nan"), 2.0], y=numbers(3))
    request.validation.split.time_column = "day"
    assert "missing in row 1" in faults(request)["data.table.columns[1]"]


def test_training_rows_of_one_class_are_refused(classes_of: Make, faults: Faults) -> None:
    request = classes_of(["a", "a", "b"], day=[1.0, 2.0, 3.0])
    request.validation.split.time_column = "day"
    assert "one class only" in faults(request)["validation.fraction"]


def test_tensors_have_no_column_to_split_by(tensor_request: Make, faults: Faults) -> None:
    request = tensor_request(np.arange(10.0), np.arange(10.0))
    request.validation.fraction = 0.2
    request.validation.split.group_column = "shop"
    assert "validation.split.group_column" in faults(request)


@pytest.fixture
def given_rows(classes_of: Make) -> Callable[[list[str]], TrainRequest]:
    """A request with held-out rows of their own, of these labels."""

    def make(labels: list[str]) -> TrainRequest:
        request = classes_of(["a", "b", "c", "a"])
        request.validation.ClearField("rows")
        request.validation.table.columns.extend(
            [
                Column(name="y", strings=Strings(values=labels)),
                Column(name="x", numbers=Numbers(values=numbers(len(labels)))),
            ]
        )
        return request

    return make


def test_rows_of_their_own_are_read_as_the_trainings_are(
    given_rows: Callable[[list[str]], TrainRequest], plan: Planning
) -> None:
    planned = plan(given_rows(["c", "a"]))
    held = held_out(planned)
    assert held.features.tolist() == [[0.0], [1.0]]
    assert held.targets.tolist() == [2, 0]
    assert planned.started.rows == 4
    assert planned.spec.validation is not None
    assert planned.spec.validation.rows == GivenRows()


def test_an_unseen_class_is_named(given_rows: Callable[[list[str]], TrainRequest], faults: Faults) -> None:
    found = faults(given_rows(["a", "z"]))
    assert "'z' in row 1" in found["validation.table.columns[0]"]


def test_rows_of_their_own_need_the_trainings_columns(
    given_rows: Callable[[list[str]], TrainRequest], faults: Faults
) -> None:
    request = given_rows(["a"])
    request.validation.table.columns[1].name = "z"
    assert "'x'" in faults(request)["validation.rows"]


def test_rows_of_members_are_found_by_their_keys(request_of: Make, plan: Planning, faults: Faults) -> None:
    request = request_of(x=numbers(4), shop=["a", "b", "b", "c"], y=numbers(4))
    request.data.group_columns.append("shop")
    table = request.validation.table
    for name, values in (("x", [5.0, 6.0]), ("y", [7.0, 8.0])):
        table.columns.append(Column(name=name, numbers=Numbers(values=values)))
    table.columns.append(Column(name="shop", strings=Strings(values=["b", "a"])))
    planned = plan(request)
    assert held_out(planned).targets[:, 0].tolist() == [8.0, 7.0]
    assert isinstance(planned.data, TrainingArrays)
    assert planned.data.groups is not None
    assert dict(planned.data.groups.unfit) == {2: "NO_VALIDATION_ROWS"}
    table.columns[2].strings.values[0] = "z"
    assert "no member" in faults(request)["validation.table.columns[2]"]


def test_a_datasets_rows_are_held_out_where_they_lie(
    request_of: Make, plan: Planning, datasets: object
) -> None:
    table = pa.table({"x": numbers(10), "y": numbers(10)})
    request = request_of()
    whole = held_out(plan(request))
    request.data.dataset = datasets.add(table)
    request.data.target_columns[:] = ["y"]
    planned = plan(request)
    assert isinstance(planned.data, DatasetFile)
    assert isinstance(planned.data.validation, DatasetFile)
    loaded = load_training_arrays(planned.data, planned.spec)
    assert loaded.rows == 8
    assert loaded.validation is not None
    np.testing.assert_array_equal(loaded.validation.targets, whole.targets)


def test_a_missing_dataset_of_held_out_rows_is_not_found(request_of: Make, faults: Faults) -> None:
    request = request_of()
    request.validation.dataset = f"datasets/{'cd' * 32}"
    request.gradient.epochs = 0
    assert "validation.dataset" in faults(request)


def test_a_dataset_of_held_out_rows_is_kept_while_the_run_is(
    request_of: Make, plan: Planning, datasets: object
) -> None:
    request = request_of()
    request.validation.dataset = datasets.add(pa.table({"x": [1.0], "y": [2.0]}))
    assert plan(request).validation_dataset == request.validation.dataset.removeprefix("datasets/")


def test_held_out_rows_have_a_limit_too(
    given_rows: Callable[[list[str]], TrainRequest], make_planner: Callable[..., object]
) -> None:
    with pytest.raises(InvalidInput) as caught:
        asyncio.run(make_planner(max_data_bytes=64).plan(given_rows(["a"] * 100)))
    (violation,) = caught.value.violations
    assert violation.field == "validation.table"


def test_stratified_folds_are_the_default_of_classifiers(classes_of: Make, plan: Planning) -> None:
    request = classes_of(["a", "b"] * 6)
    request.ClearField("validation")
    request.sweep.folds = 3
    spec = plan(request).spec
    assert spec.validation is not None
    assert spec.validation.rows == Folds(count=3, split=Split.STRATIFIED)
