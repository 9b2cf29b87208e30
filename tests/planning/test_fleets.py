"""Plans of fleets and sweeps."""

import asyncio
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from epochd.v1.trainer_pb2 import TrainRequest
from epochd_server.codec.members import encode_key
from epochd_server.data.loading import load_training_arrays
from epochd_server.domain.data import ColumnRoles
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.fleets import Sweep
from epochd_server.domain.specs import LinearModel
from epochd_server.domain.work import DatasetFile

STORES = ["b", "a", "b", "c", "a", "b"]
NAN = float("nan")


@pytest.fixture
def fleet_request(table_request):
    """Members a, b and c of 2, 3 and 1 rows."""

    def make(**columns) -> TrainRequest:
        columns = columns or {"x": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "y": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}
        request = table_request(store=STORES, **columns)
        request.data.group_columns.append("store")
        request.seed = 7
        return request

    return make


@pytest.fixture
def sweep_request(table_request):
    def make(**lists) -> TrainRequest:
        request = table_request()
        request.seed = 7
        for name, values in lists.items():
            getattr(request.sweep, name).extend(values)
        return request

    return make


# -- fleets ----------------------------------------------------------------------------------------------------


def test_rows_are_sorted_by_member_and_the_key_is_no_feature(plan, fleet_request) -> None:
    found = plan(fleet_request())
    assert found.started.members == 3
    assert found.started.key_columns == found.spec.key_columns == ("store",)
    assert found.started.rows == 6
    assert found.started.feature_columns == ("x",)
    assert found.spec.model == LinearModel(in_features=1, out_features=1)
    assert found.started.parameters == 2
    assert found.spec.sweep is None
    groups = found.data.groups
    assert groups.keys.names == ("store",)
    assert groups.keys.columns[0].tolist() == ["a", "b", "c"]
    assert groups.offsets.tolist() == [0, 2, 5, 6]
    assert groups.unfit == {}
    assert found.data.features.tolist() == [[2], [5], [1], [3], [6], [4]]
    assert found.data.targets.tolist() == [[2], [5], [1], [3], [6], [4]]


def test_one_model_has_no_members(plan, table_request) -> None:
    found = plan(table_request())
    assert (found.started.members, found.started.key_columns) == (0, ())
    assert found.data.groups is None


def test_keys_may_be_of_several_columns(plan, fleet_request) -> None:
    request = fleet_request(year=np.array([1, 2, 1, 1, 2, 2]), x=[1.0] * 6, y=[1.0] * 6)
    request.data.group_columns.append("year")
    found = plan(request)
    keys = found.data.groups.keys
    assert [keys.key(member) for member in range(len(keys))] == [("a", 2), ("b", 1), ("b", 2), ("c", 1)]
    assert found.started.feature_columns == ("x",)


@pytest.mark.parametrize("bad", [NAN, float("inf"), 1e300])
def test_a_member_with_unusable_values_is_alone_unfit(plan, fleet_request, bad) -> None:
    found = plan(fleet_request(x=[1.0, 2.0, bad, 4.0, 5.0, 6.0], y=[1.0, bad, 3.0, 4.0, 5.0, 6.0]))
    assert found.data.groups.unfit == {0: "TARGET_NOT_FINITE", 1: "FEATURE_NOT_FINITE"}
    assert found.started.members == 3


def test_classes_are_those_of_all_members_and_one_class_is_too_few(plan, fleet_request) -> None:
    request = fleet_request(x=[1.0] * 6, y=["u", "v", "w", "u", "w", "u"])
    request.loss.cross_entropy.SetInParent()
    found = plan(request)
    assert found.started.classes == ("u", "v", "w")
    assert found.spec.model.out_features == 3
    assert found.data.groups.unfit == {2: "ONE_CLASS_ONLY"}


def test_weights_come_along_and_members_without_any_are_unfit(plan, fleet_request) -> None:
    request = fleet_request(w=[1.0, 0.0, 2.0, 1.0, 0.0, 3.0], x=[1.0] * 6, y=[1.0] * 6)
    request.data.weight_column = "w"
    found = plan(request)
    assert found.data.weights.tolist() == [0, 0, 1, 2, 3, 1]
    assert found.data.groups.unfit == {0: "NO_WEIGHT"}
    assert found.started.feature_columns == ("x",)
    request.data.table.columns[1].numbers.values[0] = -1
    assert plan(request).data.groups.unfit == {0: "NO_WEIGHT", 1: "WEIGHT_NOT_VALID"}


def test_one_model_may_have_weights_too(plan, table_request) -> None:
    request = table_request(x=[1.0, 2.0], w=[0.0, 3.0], y=[1.0, 2.0])
    request.data.weight_column = "w"
    found = plan(request)
    assert found.data.weights.tolist() == [0, 3]
    assert found.data.groups is None
    assert found.memory_bytes == 4 * (2 * 3 + 2 * 2)


def test_a_batch_is_capped_by_each_members_rows(plan, fleet_request) -> None:
    request = fleet_request()
    request.gradient.epochs = 5
    request.gradient.batch_size = 2
    found = plan(request)
    assert found.spec.fit.batch_size == 2
    assert found.steps == 5 * (1 + 2 + 1)


def test_memory_counts_the_parameters_of_all_members(plan, fleet_request) -> None:
    assert plan(fleet_request()).memory_bytes == 4 * (6 * 2 + 3 * 2 * 2)


def test_members_to_be_logged_are_known(plan, fleet_request) -> None:
    request = fleet_request()
    request.logging.members.extend([encode_key(("c",)), encode_key(("a",))])
    assert plan(request).spec.logging.members == (("c",), ("a",))


def test_a_stored_request_of_a_fleet_is_planned_again_the_same(make_planner, fleet_request) -> None:
    async def twice():
        planner = make_planner()
        first = await planner.plan(fleet_request())
        return first, await planner.replan(first.request)

    first, second = asyncio.run(twice())
    assert (second.spec, second.started) == (first.spec, first.started)
    assert np.array_equal(second.data.features, first.data.features)


@pytest.mark.parametrize(
    ("target", "loss"),
    [
        ([1.5, NAN, 3.5, 4.5, 5.5, 6.5], "mse"),
        (["a", "c", "b", "a", "b", "b"], "cross_entropy"),
        ([1, 0, 0, 1, 1, 1], "bce_with_logits"),
    ],
)
@pytest.mark.parametrize("keys", [STORES, [3, -1, 3, 10**12, -1, 3]])
def test_a_dataset_is_planned_as_its_table_would_be_and_loads_the_same(
    plan, datasets, table_request, target, loss, keys
) -> None:
    columns = {"x": [0.5, 1.5, NAN, 3.0, 4.0, 5.0], "w": [1.0, 2.0, 1.0, 3.0, 0.5, 0.0]}
    inline_keys = keys if isinstance(keys[0], str) else np.array(keys)
    inline_target = [float(value) if not isinstance(value, str) else value for value in target]
    request = table_request(k=inline_keys, **columns, target=inline_target)
    getattr(request.loss, loss).SetInParent()
    request.data.group_columns.append("k")
    request.data.weight_column = "w"
    request.seed = 1
    inline = plan(request)
    request.data.dataset = datasets.add(pa.table({"k": keys, **columns, "target": target}))
    stored = plan(request)
    assert replace(stored.started, lineage=inline.started.lineage) == inline.started
    assert (stored.memory_bytes, stored.steps) == (inline.memory_bytes, inline.steps)
    assert isinstance(stored.data, DatasetFile)
    assert stored.data.roles == ColumnRoles(features=("x",), targets=("target",), groups=("k",), weight="w")
    loaded = load_training_arrays(stored.data, stored.spec)
    for name in ("features", "targets", "weights"):
        ours, theirs = getattr(loaded, name), getattr(inline.data, name)
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs, equal_nan=True)
    assert loaded.groups.unfit == inline.data.groups.unfit
    assert loaded.groups.offsets.tolist() == inline.data.groups.offsets.tolist()
    assert loaded.groups.keys.columns[0].tolist() == inline.data.groups.keys.columns[0].tolist()


# -- sweeps ----------------------------------------------------------------------------------------------------


def test_a_sweep_has_a_member_for_each_combination(plan, sweep_request) -> None:
    found = plan(sweep_request(lr=[0.1, 0.01], seed=[3, 1, 2]))
    assert found.started.members == 6
    assert found.started.key_columns == found.spec.key_columns == ("lr", "seed")
    assert found.spec.sweep == Sweep(lr=(0.1, 0.01), seed=(3, 1, 2))
    assert found.data.groups is None
    assert found.steps == 6 * 2000
    assert found.memory_bytes == 4 * (3 * 2 + 6 * 2 * 2)


def test_what_is_swept_may_be_left_open(plan, sweep_request) -> None:
    request = sweep_request(lr=[0.1, 0.01], momentum=[0.5, 0.9], seed=[4, 5])
    request.ClearField("seed")
    request.gradient.optimizer.sgd.lr = 0
    request.gradient.optimizer.sgd.nesterov = True
    found = plan(request)
    optimizer = found.spec.fit.optimizer
    assert (optimizer.lr, optimizer.momentum, found.spec.seed) == (0.1, 0.5, 4)
    assert plan(request).spec.seed == 4


def test_members_of_a_sweep_to_be_logged_may_be_named_by_integers(plan, sweep_request) -> None:
    request = sweep_request(weight_decay=[0.0, 1.0])
    request.logging.members.append(encode_key((1,)))
    (key,) = plan(request).spec.logging.members
    assert key == (1.0,)
    assert isinstance(key[0], float)


# -- what is refused -------------------------------------------------------------------------------------------


def test_all_faults_of_keys_and_weights_in_one_answer(faults, fleet_request) -> None:
    request = fleet_request(k=[1.5] * 6, w=["s"] * 6, x=[1.0] * 6, y=[1.0] * 6)
    request.data.group_columns.extend(["k", "nowhere"])
    request.data.feature_columns.extend(["x", "store"])
    request.data.weight_column = "w"
    request.gradient.epochs = 0
    found = faults(request)
    assert set(found) == {
        "data.group_columns[2]",
        "data.feature_columns[1]",
        "data.table.columns[1]",
        "data.table.columns[2]",
        "gradient.epochs",
        "data.table.columns[0]",
    }
    assert "key 'k' holds floating-point numbers" in found["data.table.columns[1]"]
    assert "weight 'w' is text" in found["data.table.columns[2]"]


def test_keys_that_are_missing(faults, datasets, fleet_request) -> None:
    request = fleet_request()
    table = pa.table({"store": ["a", None, "b"], "x": [1.0, 2.0, 3.0], "y": [1.0, 2.0, 3.0]})
    request.data.dataset = datasets.add(table)
    assert faults(request) == {
        "data.dataset": "key 'store' is missing in row 1, counting from 0; every row needs a key"
    }


def test_more_keys_than_the_limit(make_planner, fleet_request) -> None:
    with pytest.raises(EpochdError) as caught:
        asyncio.run(make_planner(max_members=2).plan(fleet_request()))
    assert [(v.field, v.description) for v in caught.value.violations] == [
        ("data.group_columns", "'store' would make 3 members, at most 2 are allowed")
    ]


def test_more_parameters_than_a_fleet_may_have(make_planner, fleet_request, sweep_request) -> None:
    for request in (fleet_request(), sweep_request(seed=[1, 2, 3])):
        with pytest.raises(EpochdError) as caught:
            asyncio.run(make_planner(max_fleet_parameters=5).plan(request))
        assert caught.value.reason is Reason.MODEL_TOO_LARGE
        assert "3 members have 6 parameters" in caught.value.message
        asyncio.run(make_planner(max_fleet_parameters=6).plan(request))


def test_a_fleet_of_which_no_member_can_be_trained(faults, fleet_request) -> None:
    request = fleet_request(
        a=[NAN] * 6, b=[NAN, 1.0, NAN, NAN, NAN, NAN], w=[0.0] * 6, x=[1.0] * 6, y=[1.0] * 6
    )
    request.data.weight_column = "w"
    found = faults(request)
    assert set(found) == {"data.table.columns[1]", "data.table.columns[2]", "data.table.columns[3]"} | {
        "data.group_columns"
    }
    assert found["data.table.columns[1]"].startswith("feature 'a' is missing (NaN) in row 0 and 5 more")
    assert found["data.group_columns"] == "no member can be trained: FEATURE_NOT_FINITE (3 members)"


def test_a_fleet_of_members_of_one_class_each(faults, fleet_request) -> None:
    request = fleet_request(x=[1.0] * 6, y=["u", "v", "u", "u", "v", "u"])
    request.loss.cross_entropy.SetInParent()
    assert faults(request) == {"data.group_columns": "no member can be trained: ONE_CLASS_ONLY (3 members)"}


@pytest.mark.parametrize("weight", [-1.0, NAN, float("inf")])
def test_weights_of_one_model_that_are_none(faults, table_request, weight) -> None:
    request = table_request(x=[1.0, 2.0], w=[1.0, weight], y=[1.0, 2.0])
    request.data.weight_column = "w"
    (field,) = found = faults(request)
    assert field == "data.table.columns[1]"
    assert found[field].startswith(f"weight 'w' is {weight:g} in row 1")


def test_tensors_have_no_keys_and_no_weights(faults, tensor_request) -> None:
    request = tensor_request(np.zeros((3, 2)), np.zeros(3))
    request.data.group_columns.append("store")
    request.data.weight_column = "w"
    assert set(faults(request)) == {"data.group_columns", "data.weight_column"}


def test_a_batch_larger_than_every_member(faults, fleet_request) -> None:
    request = fleet_request()
    request.gradient.batch_size = 4
    assert faults(request) == {"gradient.batch_size": "is 4, but the largest member has 3 rows"}


def test_members_to_be_logged_that_do_not_exist(faults, fleet_request) -> None:
    request = fleet_request()
    keys = [("a",), ("z",), (3,), ("a", 1), ("a",)]
    request.logging.members.extend(map(encode_key, keys))
    assert faults(request) == {
        "logging.members[1]": "there is no member store='z'",
        "logging.members[2]": "'store' must be text",
        "logging.members[3]": "has 2 values, but there are 1 key columns",
        "logging.members[4]": "is listed twice",
    }


def test_members_to_be_logged_of_one_model_or_too_many(faults, table_request, fleet_request) -> None:
    request = table_request()
    request.logging.members.append(encode_key(("a",)))
    assert set(faults(request)) == {"logging.members"}
    request = fleet_request()
    request.logging.members.extend(encode_key((str(index),)) for index in range(101))
    assert faults(request) == {"logging.members": "has 101 keys, at most 100 are allowed"}


def test_a_sweep_over_too_much_of_what_cannot_be(faults, fleet_request) -> None:
    request = fleet_request()
    request.gradient.optimizer.adam.SetInParent()
    request.sweep.lr.extend([0.1, -1.0, 0.1])
    request.sweep.momentum.append(0.9)
    request.sweep.seed.extend(range(100_000))
    assert set(faults(request)) == {
        "data.group_columns",
        "sweep",
        "sweep.lr[1]",
        "sweep.lr[2]",
        "sweep.momentum",
    }


def test_an_empty_sweep(faults, sweep_request) -> None:
    request = sweep_request()
    request.sweep.SetInParent()
    assert set(faults(request)) == {"sweep"}


def test_too_many_key_columns(faults, fleet_request) -> None:
    request = fleet_request()
    request.data.group_columns.extend(f"k{index}" for index in range(16))
    assert faults(request)["data.group_columns"] == "has 17 names, at most 16 are allowed"
