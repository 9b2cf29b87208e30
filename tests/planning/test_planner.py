"""What the planner fills in, and in what form requests are stored."""

import asyncio
import hashlib
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from epochd.v1.trainer_pb2 import TrainRequest
from epochd_server.data.loading import load_training_arrays
from epochd_server.domain.data import ColumnRoles, TrainingArrays
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.specs import (
    ActivationLayer,
    Init,
    LinearLayer,
    LinearModel,
    Logging,
    Precision,
    SequentialModel,
)
from epochd_server.domain.work import DatasetFile


def test_the_tutorials_request_is_resolved(plan, table_request) -> None:
    found = plan(table_request())
    assert found.spec.model == LinearModel(in_features=1, out_features=1)
    assert found.spec.init is Init.DEFAULT
    assert found.spec.precision is Precision.FLOAT32
    assert found.spec.logging == Logging(every=20, parameters=False)
    assert found.started.parameters == 2
    assert found.started.rows == 3
    assert found.started.feature_columns == ("x",)
    assert found.started.target_columns == ("y",)
    assert found.started.classes is None
    assert found.steps == 2000
    assert found.memory_bytes == 4 * (3 * 2 + 2 * 2)
    assert found.data.features.dtype == np.float32
    assert found.data.features.tolist() == [[1], [2], [3]]
    assert found.data.targets.tolist() == [[2], [4], [6]]


def test_an_unset_seed_is_drawn_and_stored_but_no_part_of_the_fingerprint(plan, table_request) -> None:
    first, second = plan(table_request()), plan(table_request())
    assert first.spec.seed != second.spec.seed
    assert TrainRequest.FromString(first.request).seed == first.spec.seed
    assert first.fingerprint == second.fingerprint


def test_the_fingerprint_is_of_the_request_without_its_id(plan, table_request) -> None:
    request = table_request()
    request.seed = 3
    plain = plan(request)
    assert plain.fingerprint == hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
    request.request_id = "again"
    named = plan(request)
    assert named.fingerprint == plain.fingerprint
    assert (named.asked.request_id, plain.asked) == ("again", None)
    assert request.request_id == "again"
    request.seed = 4
    assert plan(request).fingerprint != plain.fingerprint


def test_a_stored_request_is_planned_again_the_same(make_planner, table_request) -> None:
    async def twice():
        planner = make_planner()
        first = await planner.plan(table_request())
        return first, await planner.replan(first.request)

    first, second = asyncio.run(twice())
    assert second.spec == first.spec
    assert second.started == first.started
    assert np.array_equal(second.data.features, first.data.features)


def test_stored_bytes_that_are_no_request_are_corrupt(make_planner) -> None:
    with pytest.raises(EpochdError) as caught:
        asyncio.run(make_planner().replan(b"\xff\xff\xff"))
    assert caught.value.reason is Reason.ARTIFACT_CORRUPT


def test_a_large_request_is_planned_in_a_thread_the_same(make_planner, table_request) -> None:
    request = table_request()
    request.seed = 1
    here = asyncio.run(make_planner().plan(request))
    elsewhere = asyncio.run(make_planner(inline_bytes=1).plan(request))
    assert elsewhere.spec == here.spec
    assert elsewhere.request == here.request


def test_a_name_and_an_estimate_are_handed_on(plan, table_request) -> None:
    request = table_request()
    request.model_name = "house-price"
    request.validate_only = True
    found = plan(request)
    assert found.model == "house-price"
    assert found.validate_only


def test_layers_get_their_sizes_from_each_other_and_from_the_data(plan, tensor_request) -> None:
    request = tensor_request(np.zeros((4, 5)), np.zeros((4, 2)))
    layers = request.model.sequential.layers
    layers.add().linear.out_features = 8
    layers.add().activation.function = 11
    layers.add().linear.SetInParent()
    found = plan(request)
    assert found.spec.model == SequentialModel(
        layers=(
            LinearLayer(in_features=5, out_features=8),
            ActivationLayer(function="relu"),
            LinearLayer(in_features=8, out_features=2),
        )
    )
    assert found.started.parameters == 5 * 8 + 8 + 8 * 2 + 2
    assert found.started.feature_columns == ("x0", "x1", "x2", "x3", "x4")
    assert found.started.target_columns == ("y0", "y1")


def test_steps_count_batches_and_accumulation(plan, tensor_request) -> None:
    request = tensor_request(np.zeros((10, 1)), np.zeros(10))
    request.gradient.epochs = 7
    request.gradient.batch_size = 3
    request.gradient.accumulation_steps = 3
    assert plan(request).steps == 7 * 2  # four batches: three of them, then the last one


@pytest.mark.parametrize(("optimizer", "numbers"), [("sgd", 2), ("momentum", 3), ("adam", 4), ("adamw", 4)])
def test_memory_counts_gradients_and_the_optimizers_state(plan, tensor_request, optimizer, numbers) -> None:
    request = tensor_request(np.zeros((10, 4)), np.zeros(10))
    request.dtype = 10
    if optimizer == "momentum":
        request.gradient.optimizer.sgd.momentum = 0.9
    elif optimizer != "sgd":
        getattr(request.gradient.optimizer, optimizer).SetInParent()
    assert plan(request).memory_bytes == 8 * (10 * 5 + 5 * numbers)


@pytest.mark.parametrize(
    ("labels", "classes", "indices"),
    [
        ([2.0, 0.0, 5.0, 2.0], (0, 2, 5), [1, 0, 2, 1]),
        (["b", "a", "c", "b"], ("a", "b", "c"), [1, 0, 2, 1]),
    ],
)
def test_classes_are_the_sorted_labels(plan, table_request, labels, classes, indices) -> None:
    request = table_request(x=[1.0, 2.0, 3.0, 4.0], grade=labels)
    request.loss.cross_entropy.SetInParent()
    found = plan(request)
    assert found.started.classes == classes
    assert found.spec.model == LinearModel(in_features=1, out_features=3)
    assert found.data.targets.dtype == np.int64
    assert found.data.targets.tolist() == indices


def test_given_outputs_are_the_classes_0_to_c_even_where_some_are_absent(plan, table_request) -> None:
    request = table_request(x=[1.0, 2.0], grade=[2.0, 0.0])
    request.loss.cross_entropy.SetInParent()
    request.model.linear.out_features = 4
    found = plan(request)
    assert found.started.classes == (0, 1, 2, 3)
    assert found.data.targets.tolist() == [2, 0]


@pytest.mark.parametrize(("labels", "classes"), [([0.0, 1.0], (0, 1)), (["no", "yes"], ("no", "yes"))])
def test_two_classes_make_one_logit(plan, table_request, labels, classes) -> None:
    request = table_request(x=[1.0, 2.0], churned=labels)
    request.loss.bce_with_logits.SetInParent()
    found = plan(request)
    assert found.started.classes == classes
    assert found.spec.model.out_features == 1
    assert found.data.targets.tolist() == [[0], [1]]


def test_boolean_tensors_are_the_classes_0_and_1(plan, tensor_request) -> None:
    request = tensor_request([1.0, 2.0], [True, False])
    request.loss.cross_entropy.SetInParent()
    found = plan(request)
    assert found.started.classes == (0, 1)
    assert found.data.targets.tolist() == [1, 0]


def test_a_module_has_the_parameters_and_outputs_that_it_says(plan, table_request) -> None:
    request = table_request(x=[1.0, 2.0], z=[0.0, 0.0], grade=[2.0, 0.0])
    request.loss.cross_entropy.SetInParent()
    request.model.module.name = "Affine"
    request.model.module.arguments["outputs"].integer = 3
    found = plan(request)
    assert found.started.classes == (0, 1, 2)
    assert found.started.parameters == 6


@pytest.mark.parametrize(
    ("target", "loss"),
    [
        ([1.5, 2.5, 3.5, 4.5, 5.5], "mse"),
        ([7, 3, 7, 3, 5], "cross_entropy"),
        (["a", "c", "b", "a", "c"], "cross_entropy"),
        ([True, False, True, True, False], "bce_with_logits"),
    ],
)
def test_a_dataset_is_planned_as_its_table_would_be_and_loads_the_same(
    plan, datasets, table_request, target, loss
) -> None:
    numbers = [0.5, 1.5, -2.0, 3.0, 4.0]
    request = table_request(a=numbers, target=[float(v) if not isinstance(v, str) else v for v in target])
    getattr(request.loss, loss).SetInParent()
    request.seed = 1
    inline = plan(request)
    request.data.dataset = datasets.add(pa.table({"a": numbers, "target": target}))
    stored = plan(request)
    assert replace(stored.started, lineage=inline.started.lineage) == inline.started
    assert stored.started.lineage.dataset == stored.dataset
    assert stored.memory_bytes == inline.memory_bytes
    assert isinstance(stored.data, DatasetFile)
    assert stored.data.roles == ColumnRoles(features=("a",), targets=("target",))
    loaded = load_training_arrays(stored.data, stored.spec)
    assert isinstance(inline.data, TrainingArrays)
    assert loaded.features.dtype == inline.data.features.dtype
    assert np.array_equal(loaded.features, inline.data.features)
    assert loaded.targets.dtype == inline.data.targets.dtype
    assert np.array_equal(loaded.targets, inline.data.targets)
