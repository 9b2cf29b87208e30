"""Bad input: each fault is found before anything is queued, under its exact field path."""

import asyncio
import math

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epochd.v1 import tensor_pb2
from epochd.v1.trainer_pb2 import TrainRequest
from epochd_server.domain.errors import EpochdError, InvalidInput, Reason

NAN, INF = math.nan, math.inf


def only(faults: dict[str, str], field: str) -> str:
    assert list(faults) == [field]
    return faults[field]


# -- tensors ---------------------------------------------------------------------------------------------------


def test_bytes_that_do_not_fill_the_shape(faults, tensor_request) -> None:
    request = tensor_request(np.zeros((3, 2), np.float32), np.zeros(3))
    request.data.tensors.features.shape[:] = [3, 3]
    message = only(faults(request), "data.tensors.features.data")
    assert message == "has 24 bytes, but 9 elements of float32 are 36 bytes"


def test_a_shape_whose_product_overflows(faults, tensor_request) -> None:
    request = tensor_request(np.zeros((3, 2)), np.zeros(3))
    request.data.tensors.features.shape[:] = [2**62, 2**62]
    assert "overflows" in only(faults(request), "data.tensors.features.shape")


def test_a_negative_dimension(faults, tensor_request) -> None:
    request = tensor_request(np.zeros((3, 2)), np.zeros(3))
    request.data.tensors.features.shape[:] = [3, -2]
    assert only(faults(request), "data.tensors.features.shape[1]") == "must be >= 0, is -2"


def test_no_rows(faults, tensor_request) -> None:
    request = tensor_request(np.zeros((0, 2)), np.zeros(0))
    assert only(faults(request), "data.tensors.features") == "has no rows"


def test_no_features(faults, tensor_request) -> None:
    request = tensor_request(np.zeros((3, 0)), np.zeros(3))
    assert "1 to 100,000 features" in only(faults(request), "data.tensors.features.shape[1]")


def test_more_features_than_targets(faults, tensor_request) -> None:
    request = tensor_request(np.zeros((3, 2)), np.zeros(4))
    message = only(faults(request), "data.tensors.targets.shape[0]")
    assert message == "has 4 rows, but features has 3"


def test_tensors_of_three_dimensions(faults, tensor_request) -> None:
    request = tensor_request(np.zeros((3, 2, 2)), np.zeros(()))
    assert set(faults(request)) == {"data.tensors.features.shape", "data.tensors.targets.shape"}


def test_an_unknown_element_type(faults, tensor_request) -> None:
    request = tensor_request(np.zeros((3, 2)), np.zeros(3))
    request.data.tensors.features.dtype = 77
    assert only(faults(request), "data.tensors.features.dtype") == "77 is no known DataType"


def test_columns_named_although_the_rows_are_tensors(faults, tensor_request) -> None:
    request = tensor_request(np.zeros((3, 2)), np.zeros(3))
    request.data.target_columns.append("y")
    request.data.feature_columns.append("x0")
    assert set(faults(request)) == {"data.target_columns", "data.feature_columns"}


# -- values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "said"), [(NAN, "missing (NaN) in row 1"), (-INF, "infinite in row 1")])
def test_targets_that_are_not_finite(faults, table_request, value, said) -> None:
    message = only(faults(table_request(x=[1.0, 2.0], y=[1.0, value])), "data.table.columns[1]")
    assert message.startswith(f"target 'y' is {said}")


def test_features_that_are_not_finite_are_named_with_their_first_row(faults, table_request) -> None:
    found = faults(table_request(a=[1.0, 2.0, 3.0], b=[1.0, NAN, NAN], c=[INF, 0.0, 0.0], y=[1.0, 2.0, 3.0]))
    assert found["data.table.columns[1]"].startswith("feature 'b' is missing (NaN) in row 1 and 1 more")
    assert found["data.table.columns[2]"].startswith("feature 'c' is infinite in row 0")
    assert len(found) == 2


def test_a_number_too_large_for_float32_but_not_for_float64(faults, plan, table_request) -> None:
    request = table_request(x=[1.0, 1e300], y=[1.0, 2.0])
    message = only(faults(request), "data.table.columns[0]")
    assert message == "feature 'x' is 1e+300 in row 1, too large for FLOAT32; train with dtype FLOAT64"
    request.dtype = tensor_pb2.DATA_TYPE_FLOAT64
    assert plan(request).data.features.dtype == np.float64


def test_features_of_text(faults, table_request) -> None:
    message = only(faults(table_request(s=["a", "b"], y=[1.0, 2.0])), "data.table.columns[0]")
    assert message.startswith("feature 's' is text")


def test_regression_targets_of_text(faults, table_request) -> None:
    assert "is text" in only(faults(table_request(x=[1.0, 2.0], y=["a", "b"])), "data.table.columns[1]")


@pytest.mark.parametrize(
    ("labels", "outputs", "said"),
    [
        ([0.0, 1.0, 3.0], 3, "is 3 in row 2, counting from 0; with 3 outputs labels are 0 to 2"),
        ([0.0, -1.0, 2.0], 3, "is -1 in row 1"),
        ([0.0, 0.5, 2.0], None, "is 0.5 in row 1"),
        ([0.0, NAN, 2.0], None, "is nan in row 1"),
        ([0.0, INF, 2.0], 3, "is inf in row 1"),
        ([1e300, 0.0, 2.0], None, "is 1e+300 in row 0"),
        ([1.0, 1.0, 1.0], None, "has one class only, 1"),
        (["a", "a", "a"], None, "has one class only, 'a'"),
        (["a", "b", "c"], 2, "has 3 classes ('a', 'b', 'c'), but the model has 2 outputs"),
        (["a", "b", "b"], 3, "has 2 classes ('a', 'b'), but the model has 3 outputs"),
    ],
)
def test_class_labels_that_do_not_fit_cross_entropy(faults, table_request, labels, outputs, said) -> None:
    request = table_request(x=[1.0, 2.0, 3.0], grade=labels)
    request.loss.cross_entropy.SetInParent()
    if outputs is not None:
        request.model.linear.out_features = outputs
    assert only(faults(request), "data.table.columns[1]").startswith(f"target 'grade' {said}")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([1.0, 2.0, 1.0], "is 2 in row 1"),
        ([0.0, NAN, 1.0], "is nan in row 1"),
        ([0.0, 0.0, 0.0], "has one class only, 0"),
        ([1.0, 1.0, 1.0], "has one class only, 1"),
        (["a", "b", "c"], "has 3 classes ('a', 'b', 'c'), but bce_with_logits takes two"),
        (["a", "a", "a"], "has one class only, 'a'"),
    ],
)
def test_class_labels_that_do_not_fit_bce(faults, table_request, labels, said) -> None:
    request = table_request(x=[1.0, 2.0, 3.0], churned=labels)
    request.loss.bce_with_logits.SetInParent()
    assert only(faults(request), "data.table.columns[1]").startswith(f"target 'churned' {said}")


@pytest.mark.parametrize("loss", ["bce_with_logits", "cross_entropy"])
def test_classifiers_have_one_target_column(faults, table_request, tensor_request, loss) -> None:
    request = table_request(x=[1.0, 2.0], a=[0.0, 1.0], b=[1.0, 0.0])
    request.data.target_columns[:] = ["a", "b"]
    getattr(request.loss, loss).SetInParent()
    assert "takes one column" in only(faults(request), "data.target_columns")
    request = tensor_request(np.zeros((3, 2)), np.zeros((3, 2)))
    getattr(request.loss, loss).SetInParent()
    assert "takes one column" in only(faults(request), "data.tensors.targets.shape")


# -- columns ---------------------------------------------------------------------------------------------------


def test_columns_of_one_name(faults, table_request) -> None:
    request = table_request()
    request.data.table.columns[1].name = "x"
    found = faults(request)
    assert found == {"data.table.columns[1].name": "'x' is the name of columns[0] already"}


@pytest.mark.parametrize("name", ["", "a\nb", "a\x00", "x" * 257])
def test_columns_with_unusable_names(faults, table_request, name) -> None:
    request = table_request()
    request.data.table.columns[0].name = name
    assert list(faults(request)) == ["data.table.columns[0].name"]


def test_columns_that_do_not_exist_come_with_the_nearest_that_does(faults, table_request) -> None:
    request = table_request(income=[1.0, 2.0], age=[1.0, 2.0], price=[1.0, 2.0])
    request.data.target_columns[:] = ["pirce"]
    request.data.feature_columns[:] = ["age", "incone", "zzz"]
    found = faults(request)
    assert found["data.target_columns[0]"] == "'pirce' is no column of the data; did you mean 'price'?"
    assert found["data.feature_columns[1]"].endswith("did you mean 'income'?")
    assert found["data.feature_columns[2]"].endswith("there are 'income', 'age', 'price'")
    assert len(found) == 3


def test_columns_listed_twice_or_in_both_roles(faults, table_request) -> None:
    request = table_request(a=[1.0, 2.0], b=[1.0, 2.0], y=[1.0, 2.0])
    request.data.feature_columns[:] = ["a", "a", "y"]
    assert faults(request) == {
        "data.feature_columns[1]": "'a' is listed twice",
        "data.feature_columns[2]": "'y' is a target column too",
    }


def test_no_target_column(faults, table_request) -> None:
    request = table_request()
    del request.data.target_columns[:]
    assert "must name one column or more" in only(faults(request), "data.target_columns")


def test_nothing_to_learn_from(faults, table_request) -> None:
    assert "no column to learn from" in only(faults(table_request(y=[1.0])), "data.feature_columns")


def test_columns_of_unequal_length(faults, table_request) -> None:
    found = faults(table_request(x=[1.0, 2.0], y=[1.0]))
    assert only(found, "data.table.columns[1]") == "'y' has 1 rows, but 'x' has 2"


def test_a_table_without_columns_or_rows(faults, table_request) -> None:
    request = table_request(x=[], y=[])
    assert only(faults(request), "data.table") == "has no rows"
    del request.data.table.columns[:]
    request.data.table.SetInParent()
    assert "must have 1 to 10,000 columns" in only(faults(request), "data.table.columns")


def test_a_thousand_wrong_names_are_not_a_thousand_answers(faults, table_request) -> None:
    request = table_request()
    request.data.feature_columns[:] = [f"nothing{index}" for index in range(1_000)]
    found = faults(request)
    assert len(found) == 21
    assert found["data.feature_columns"] == "has 980 more faults of this kind"


# -- what is not set, and numbers that nothing has ---------------------------------------------------------------


def test_an_empty_request(faults) -> None:
    assert set(faults(TrainRequest())) == {"data.source", "model.kind", "loss.kind", "fit"}


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (lambda r: r.data.ClearField("table"), "data.source"),
        (lambda r: r.data.table.columns[0].ClearField("numbers"), "data.table.columns[0].values"),
        (lambda r: r.model.ClearField("linear"), "model.kind"),
        (lambda r: r.model.sequential.layers.add(), "model.sequential.layers[0].kind"),
        (lambda r: r.loss.ClearField("mse"), "loss.kind"),
        (lambda r: r.ClearField("gradient"), "fit"),
        (lambda r: r.gradient.optimizer.ClearField("sgd"), "gradient.optimizer.kind"),
    ],
)
def test_an_unset_oneof(faults, table_request, spoil, field) -> None:
    request = table_request()
    spoil(request)
    assert "must be set" in only(faults(request), field)


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (lambda r: setattr(r, "dtype", 99), "dtype"),
        (lambda r: setattr(r, "dtype", tensor_pb2.DATA_TYPE_INT8), "dtype"),
        (lambda r: setattr(r.model, "init", 99), "model.init"),
        (
            lambda r: setattr(r.model.sequential.layers.add().activation, "function", 99),
            "model.sequential.layers[0].activation.function",
        ),
    ],
)
def test_an_unknown_enum_number(faults, table_request, spoil, field) -> None:
    request = table_request()
    spoil(request)
    assert list(faults(TrainRequest.FromString(request.SerializeToString()))) == [field]


# -- numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lr", [0.0, -0.1, NAN, INF, -INF])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_learning_rate_that_is_none(faults, table_request, optimizer, lr) -> None:
    request = table_request()
    getattr(request.gradient.optimizer, optimizer).lr = lr
    assert only(faults(request), f"gradient.optimizer.{optimizer}.lr").startswith("must be finite and > 0")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("sgd.momentum", -0.1),
        ("sgd.weight_decay", NAN),
        ("sgd.dampening", INF),
        ("adam.beta1", 1.0),
        ("adam.beta2", -0.1),
        ("adam.eps", -1e-8),
        ("adamw.beta1", NAN),
        ("adamw.weight_decay", -1.0),
    ],
)
def test_other_numbers_of_optimizers(faults, table_request, path, value) -> None:
    request = table_request()
    kind, name = path.split(".")
    optimizer = getattr(request.gradient.optimizer, kind)
    optimizer.lr = 0.1
    setattr(optimizer, name, value)
    assert list(faults(request)) == [f"gradient.optimizer.{path}"]


@pytest.mark.parametrize(("momentum", "dampening"), [(0.0, 0.0), (0.9, 0.1)])
def test_nesterov_needs_momentum_and_no_dampening(faults, table_request, momentum, dampening) -> None:
    request = table_request()
    sgd = request.gradient.optimizer.sgd
    sgd.nesterov, sgd.momentum, sgd.dampening = True, momentum, dampening
    assert list(faults(request)) == ["gradient.optimizer.sgd.nesterov"]


@pytest.mark.parametrize("epochs", [0, -1, 10_000_001, 2**63 - 1])
def test_zero_or_absurd_epochs(faults, table_request, epochs) -> None:
    request = table_request()
    request.gradient.epochs = epochs
    assert only(faults(request), "gradient.epochs").startswith("must be from 1 to 10,000,000")


def test_a_batch_larger_than_the_rows(faults, table_request) -> None:
    request = table_request()
    request.gradient.batch_size = 4
    assert only(faults(request), "gradient.batch_size") == "is 4, but there are 3 rows"


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (lambda r: setattr(r.gradient, "batch_size", 0), "gradient.batch_size"),
        (lambda r: setattr(r.gradient, "accumulation_steps", 0), "gradient.accumulation_steps"),
        (lambda r: setattr(r.gradient, "accumulation_steps", 2), "gradient.accumulation_steps"),
        (lambda r: setattr(r.logging, "every", 0), "logging.every"),
        (lambda r: setattr(r, "seed", -1), "seed"),
        (lambda r: setattr(r.loss.huber, "delta", 0.0), "loss.huber.delta"),
        (lambda r: setattr(r.model.linear, "in_features", 0), "model.linear.in_features"),
        (lambda r: setattr(r.model.linear, "out_features", -1), "model.linear.out_features"),
        (lambda r: r.model.sequential.SetInParent(), "model.sequential.layers"),
    ],
)
def test_numbers_out_of_bounds(faults, table_request, spoil, field) -> None:
    request = table_request()
    spoil(request)
    assert list(faults(request)) == [field]


# -- names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a/b", "a.b", "../x", "a\nb", "A", "1a", "ä", "a" * 65, "a b"])
def test_model_names_with_anything_but_letters_digits_and_hyphens(faults, table_request, name) -> None:
    request = table_request()
    request.model_name = name
    assert "lower-case letters" in only(faults(request), "model_name")


@pytest.mark.parametrize("name", ["a/b", "a\nb", "-a", "a" * 129, "ä"])
def test_request_ids_with_slashes_or_control_characters(faults, table_request, name) -> None:
    request = table_request()
    request.request_id = name
    assert list(faults(request)) == ["request_id"]


@pytest.mark.parametrize("name", ["x", "datasets/x", "datasets/../../etc/passwd", "datasets/" + "A" * 64])
def test_names_of_datasets(faults, table_request, name) -> None:
    request = table_request()
    request.data.dataset = name
    assert list(faults(request)) == ["data.dataset"]


# -- layers ----------------------------------------------------------------------------------------------------


def test_layers_that_do_not_fit_each_other(faults, tensor_request) -> None:
    request = tensor_request(np.zeros((3, 5)), np.zeros(3))
    layers = request.model.sequential.layers
    layers.add().linear.out_features = 64
    layers.add().activation.function = 11
    layers.add().linear.in_features = 32
    message = only(faults(request), "model.sequential.layers[2].linear.in_features")
    assert message == "is 32, but layers[0] before it gives 64; set 64 or leave it unset"


def test_layers_that_do_not_fit_the_data(faults, tensor_request) -> None:
    request = tensor_request(np.zeros((3, 5)), np.zeros((3, 2)))
    request.model.linear.in_features = 4
    request.model.linear.out_features = 3
    assert faults(request) == {
        "model.linear.in_features": "is 4, but there are 5 features; set 5 or leave it unset",
        "model.linear.out_features": "is 3, but there are 2 target columns; set 2 or leave it unset",
    }


def test_only_a_last_layer_may_leave_its_output_open(faults, tensor_request) -> None:
    request = tensor_request(np.zeros((3, 5)), np.zeros(3))
    for _ in range(2):
        request.model.sequential.layers.add().linear.SetInParent()
    assert list(faults(request)) == ["model.sequential.layers[0].linear.out_features"]


def test_layers_without_anything_to_train(faults, table_request) -> None:
    request = table_request()
    request.model.sequential.layers.add().activation.function = 11
    assert "nothing to train" in only(faults(request), "model.sequential.layers")


@pytest.mark.parametrize(("loss", "outputs"), [("bce_with_logits", 2), ("cross_entropy", 1)])
def test_outputs_that_do_not_fit_the_loss(faults, tensor_request, loss, outputs) -> None:
    request = tensor_request([1.0, 2.0], [0, 1])
    getattr(request.loss, loss).SetInParent()
    request.model.linear.out_features = outputs
    assert f"is {outputs}, but {loss} needs" in only(faults(request), "model.linear.out_features")


@pytest.mark.parametrize(
    ("function", "name", "value"),
    [
        (11, "alpha", 1.0),
        (12, "negative_slope", NAN),
        (15, "alpha", 0.0),
        (8, "beta", -1.0),
        (20, "max_val", -2.0),
    ],
)
def test_parameters_of_activations(faults, table_request, function, name, value) -> None:
    request = table_request()
    activation = request.model.sequential.layers.add().activation
    activation.function = function
    activation.parameters[name] = value
    assert list(faults(request)) == [f"model.sequential.layers[0].activation.parameters.{name}"]


def test_functions_that_are_no_layers(faults, table_request) -> None:
    request = table_request()
    request.model.sequential.layers.add().activation.function = 5
    message = only(faults(request), "model.sequential.layers[0].activation.function")
    assert message.startswith("softmax cannot be a layer")


# -- modules, and what is too large ------------------------------------------------------------------------------


def refusal(plan, request) -> EpochdError:
    with pytest.raises(EpochdError) as caught:
        plan(request)
    assert not isinstance(caught.value, InvalidInput)
    return caught.value


def test_a_module_that_is_not_registered(plan, table_request) -> None:
    request = table_request()
    request.model.module.name = "Nothing"
    assert refusal(plan, request).reason is Reason.MODULE_NOT_FOUND


def test_arguments_that_a_module_does_not_take(faults, table_request) -> None:
    request = table_request(a=[1.0], b=[1.0], y=[1.0])
    request.model.module.name = "Affine"
    request.model.module.arguments["size"].integer = 3
    assert "takes no such argument" in only(faults(request), "model.module.arguments.size")


def test_arguments_that_a_constructor_refuses(faults, table_request) -> None:
    request = table_request(a=[1.0], b=[1.0], y=[1.0])
    request.model.module.name = "Affine"
    request.model.module.arguments["outputs"].text = "many"
    assert "cannot be constructed" in only(faults(request), "model.module.arguments")


def test_a_module_with_the_wrong_number_of_outputs(faults, table_request) -> None:
    request = table_request(a=[1.0], b=[1.0], y=[1.0])
    request.model.module.name = "Affine"
    request.model.module.arguments["outputs"].integer = 2
    assert only(faults(request), "model.module") == "has 2 outputs, but there is 1 target column"


def test_a_module_that_does_not_take_the_features(faults, table_request) -> None:
    request = table_request()
    request.model.module.name = "Affine"
    assert only(faults(request), "model.module") == "Affine does not take rows of 1 features"


def test_a_module_without_anything_to_train(faults, table_request) -> None:
    request = table_request()
    request.model.module.name = "Constant"
    assert "nothing to train" in only(faults(request), "model.module")


def test_arguments_of_modules_that_are_none(faults, table_request) -> None:
    request = table_request()
    request.model.module.name = ""
    arguments = request.model.module.arguments
    arguments["unset"].SetInParent()
    arguments["nan"].number = NAN
    arguments["long"].text = "x" * 1_025
    arguments["a.b"].flag = True
    assert set(faults(request)) == {
        "model.module.name",
        "model.module.arguments",
        *(f"model.module.arguments.{name}" for name in ("unset", "nan", "long")),
    }


def test_a_model_too_large(make_planner, table_request) -> None:
    request = table_request()
    error = refusal(lambda r: asyncio.run(make_planner(max_parameters=1).plan(r)), request)
    assert error.reason is Reason.MODEL_TOO_LARGE
    assert error.message == "The model has 2 parameters; this server allows 1 at most."


def test_sizes_whose_product_is_astronomic_are_only_counted(plan, tensor_request) -> None:
    request = tensor_request(np.zeros((3, 5)), np.zeros(3))
    request.model.sequential.layers.add().linear.out_features = 2**62
    request.model.sequential.layers.add().linear.SetInParent()
    assert refusal(plan, request).reason is Reason.MODEL_TOO_LARGE


def test_data_too_large(make_planner, table_request) -> None:
    error = refusal(lambda r: asyncio.run(make_planner(max_data_bytes=23).plan(r)), table_request())
    assert error.reason is Reason.DATA_TOO_LARGE


def test_a_dataset_that_does_not_exist(plan, table_request) -> None:
    request = table_request()
    request.data.dataset = "datasets/" + "0" * 64
    error = refusal(plan, request)
    assert error.reason is Reason.DATASET_NOT_FOUND
    assert error.metadata == {"name": "datasets/" + "0" * 64}


def test_a_refusal_is_one_fault_among_others_where_there_are_any(faults, table_request) -> None:
    request = table_request()
    request.model.module.name = "Nothing"
    request.gradient.optimizer.sgd.lr = -1
    assert set(faults(request)) == {"model.module.name", "gradient.optimizer.sgd.lr"}


def test_parameters_in_logs_are_for_small_models(faults, table_request, make_planner) -> None:
    request = table_request()
    request.logging.parameters = True
    with pytest.raises(InvalidInput) as caught:
        asyncio.run(make_planner(max_logged_parameters=1).plan(request))
    assert [violation.field for violation in caught.value.violations] == ["logging.parameters"]


# -- datasets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "loss", "said"),
    [
        ({"x": [1.0, None]}, "mse", "feature 'x' is missing (NaN) in row 1"),
        ({"x": [1, None]}, "mse", "feature 'x' is missing (NaN) in row 1"),
        ({"x": ["a", "b"]}, "mse", "feature 'x' is text"),
        ({"y": [1.0, NAN]}, "mse", "target 'y' is missing (NaN) in row 1"),
        ({"y": ["a", None]}, "cross_entropy", "target 'y' is missing in row 1"),
        ({"y": [0, 2]}, "bce_with_logits", "target 'y' is 2 in row 1"),
    ],
)
def test_values_of_datasets_are_looked_at_too(faults, datasets, table_request, column, loss, said) -> None:
    request = table_request()
    getattr(request.loss, loss).SetInParent()
    request.data.dataset = datasets.add(pa.table({"x": [1.0, 2.0], "y": [0.0, 1.0]} | column))
    assert only(faults(request), "data.dataset").startswith(said)


def test_a_damaged_dataset_is_no_fault_of_the_request(plan, datasets, table_request) -> None:
    request = table_request()
    request.data.dataset = datasets.add(pa.table({"x": [1.0], "y": [1.0]}))
    path = datasets.file_of(request.data.dataset.removeprefix("datasets/"))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(EpochdError) as caught:
        plan(request)
    assert caught.value.reason in {Reason.ARTIFACT_CORRUPT, Reason.DATASET_NOT_FOUND}


# -- all at once -----------------------------------------------------------------------------------------------

SPOILERS = {
    "gradient.optimizer.sgd.lr": lambda r: setattr(r.gradient.optimizer.sgd, "lr", NAN),
    "gradient.epochs": lambda r: setattr(r.gradient, "epochs", 0),
    "gradient.batch_size": lambda r: setattr(r.gradient, "batch_size", 1_000),
    "data.feature_columns[2]": lambda r: r.data.feature_columns.append("nothing"),
    "data.table.columns[1]": lambda r: r.data.table.columns[1].numbers.values.__setitem__(0, NAN),
    "data.table.columns[2]": lambda r: r.data.table.columns[2].numbers.values.__setitem__(2, INF),
    "model.sequential.layers[2].linear.in_features": lambda r: setattr(
        r.model.sequential.layers[2].linear, "in_features", 7
    ),
    "model.init": lambda r: setattr(r.model, "init", 9),
    "dtype": lambda r: setattr(r, "dtype", 3),
    "seed": lambda r: setattr(r, "seed", -5),
    "model_name": lambda r: setattr(r, "model_name", "a/b"),
    "request_id": lambda r: setattr(r, "request_id", "a/b"),
    "logging.every": lambda r: setattr(r.logging, "every", -1),
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.sampled_from(sorted(SPOILERS)), min_size=1))
def test_every_fault_of_every_stage_is_in_one_answer(faults, table_request, fields) -> None:
    request = table_request(a=[1.0, 2.0, 3.0], b=[1.0, 2.0, 3.0], y=[2.0, 4.0, 6.0])
    request.data.feature_columns[:] = ["a", "b"]
    request.model.sequential.layers.add().linear.out_features = 8
    request.model.sequential.layers.add().activation.function = 10
    request.model.sequential.layers.add().linear.SetInParent()
    for field in fields:
        SPOILERS[field](request)
    assert set(faults(request)) == fields


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_requests_are_never_an_exception_of_another_kind(plan, table_request, data) -> None:
    request = table_request(x=[1.0, 2.0], s=["a", "b"])
    request.loss.cross_entropy.SetInParent()
    request.model.sequential.layers.add().linear.out_features = 4
    request.model.sequential.layers.add().activation.function = 11
    request.model.sequential.layers.add().linear.SetInParent()
    request.seed = 7
    content = bytearray(request.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        plan(TrainRequest.FromString(bytes(content)))
    except (EpochdError, DecodeError) as error:
        assert not isinstance(error, EpochdError) or error.reason is not Reason.INTERNAL  # noqa: PT017
