"""Models through both clients: finding, predicting, parameters, aliases."""

from __future__ import annotations

import grpc
import numpy as np
import pandas as pd
import pytest

import epochd
from epochd.v1 import errors_pb2


@pytest.fixture
def classifier(fake):
    """Makes the server's model a classifier of two texts."""
    fake.does.version.classes.strings.values.extend(["no", "yes"])
    fake.does.version.feature_columns[:] = ["a", "b"]
    fake.does.version.target_columns[:] = ["churned"]


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("house-price", "models/house-price"),
        ("house-price@champion", "models/house-price@champion"),
        ("house-price/versions/3", "models/house-price/versions/3"),
        ("models/house-price/versions/3", "models/house-price/versions/3"),
    ],
)
def test_a_model_is_found_by_every_form_of_its_name(call, request_of, given, asked):
    model = call(lambda c: c.model(given))
    assert request_of("GetVersion").name == asked
    assert (model.name, model.version) == ("house-price", 3)
    assert model.resource_name == "models/house-price/versions/3"


def test_printing_a_model_tells_what_it_is(call):
    assert str(call(lambda c: c.model("house-price"))).splitlines() == [
        "models/house-price/versions/3",
        "  model     Linear(1, 1), 2 parameters, float32",
        "  trained   5 epochs on 3 rows, final loss 0.2 (mse)",
        "  features  x0",
        "  target    y",
        "  run       runs/r1, seed 1",
    ]


def predict(call, steps, data, **options):
    @steps
    def use(client):
        model = yield client.model("house-price")
        return (yield model.predict(data, **options))

    return call(use)


def test_predictions_are_an_array(call, steps, request_of):
    np.testing.assert_array_equal(predict(call, steps, [[4.0], [5.0]]), [8.0, 10.0])
    assert request_of("Predict").model == "models/house-price/versions/3"


def test_one_dimension_is_rows_where_there_is_one_feature(call, steps, request_of):
    np.testing.assert_array_equal(predict(call, steps, [4.0, 5.0, 6.0]), [8.0, 10.0, 12.0])
    assert list(request_of("Predict").tensor.shape) == [3, 1]


@pytest.mark.usefixtures("classifier")
def test_one_dimension_is_one_row_where_there_are_several_features(call, steps, request_of):
    assert predict(call, steps, [1.0, 2.0]).tolist() == ["yes"]
    assert list(request_of("Predict").tensor.shape) == [2]


@pytest.mark.usefixtures("classifier")
def test_a_classifier_gives_labels_and_on_request_probabilities_and_logits(call, steps):
    labels = predict(call, steps, [[1.0, 2.0], [-1.0, -2.0]])
    assert labels.tolist() == ["yes", "no"]
    assert labels.dtype.kind == "U"
    whole = predict(call, steps, [[1.0, 2.0], [-1.0, -2.0]], probabilities=True, logits=True)
    assert isinstance(whole, epochd.Prediction)
    assert whole.values.tolist() == ["yes", "no"]
    np.testing.assert_allclose(whole.probabilities, [0.9525741268224334, 0.04742587317756678])
    np.testing.assert_array_equal(whole.logits, [3, -3])
    assert whole.classes.tolist() == ["no", "yes"]
    assert whole.model_version == "models/house-price/versions/3"


@pytest.mark.usefixtures("classifier")
def test_predict_proba_has_a_column_a_class(call, steps):
    @steps
    def use(client):
        model = yield client.model("house-price")
        return (yield model.predict_proba([[1.0, 2.0], [-1.0, -2.0]]))

    p = call(use)
    assert p.shape == (2, 2)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert p[0, 1] > 0.95


@pytest.mark.usefixtures("classifier")
def test_a_table_may_still_have_the_target_column_but_others_are_the_servers_to_refuse(
    call, steps, request_of
):
    frame = pd.DataFrame({"a": [1.0], "b": [2.0], "churned": ["no"], "extra": [1.0]})
    predict(call, steps, frame)
    assert [column.name for column in request_of("Predict").table.columns] == ["a", "b", "extra"]


@pytest.mark.usefixtures("classifier")
def test_a_dict_of_single_values_is_one_row(call, steps):
    assert predict(call, steps, {"a": 1.0, "b": 2.0}).tolist() == ["yes"]


def test_many_rows_take_several_requests_and_come_back_in_order(call, fake, steps):
    x = np.arange(800_000, dtype=np.float32).reshape(-1, 1)
    np.testing.assert_array_equal(predict(call, steps, x), 2.0 * x[:, 0])
    assert fake.does.count("Predict") > 1


def test_a_large_table_takes_several_requests(call, fake, steps):
    x = np.arange(800_000.0)
    np.testing.assert_array_equal(predict(call, steps, {"x0": x}), 2.0 * x)
    assert fake.does.count("Predict") > 1


def test_no_rows_give_no_predictions(call, fake, steps):
    assert predict(call, steps, np.empty((0, 1))).shape == (0,)
    assert fake.does.count("Predict") == 1


def test_a_client_predicts_by_name_in_one_call(call, fake):
    np.testing.assert_array_equal(call(lambda c: c.predict("house-price@champion", [[4.0]])), [8.0])
    assert fake.does.calls == ["Predict"]
    assert fake.does.requests[0].model == "models/house-price@champion"


@pytest.mark.parametrize("fit", [True, False], ids=["in a message", "as a file"])
def test_parameters_come_by_name_whether_or_not_they_fit_a_message(call, fake, steps, fit):
    fake.does.parameters_fit = fit

    @steps
    def use(client):
        model = yield client.model("house-price")
        return (yield model.parameters())

    parameters = call(use)
    assert set(parameters) == {"linear.weight", "linear.bias"}
    np.testing.assert_array_equal(parameters["linear.weight"], np.float32([[2.0]]))
    assert parameters["linear.bias"].dtype == np.float32
    parameters["linear.bias"][0] = 1.0  # they are the caller's own


def test_an_export_that_breaks_begins_again(call, fake, steps):
    fake.does.parameters_fit = False
    fake.does.fail("ExportVersion", grpc.StatusCode.UNAVAILABLE)

    @steps
    def use(client):
        model = yield client.model("house-price")
        return (yield model.parameters())

    assert len(call(use)) == 2


def test_a_model_is_saved_as_a_safetensors_file(call, steps, tmp_path):
    from safetensors.numpy import load_file

    @steps
    def use(client):
        model = yield client.model("house-price")
        yield model.save(tmp_path / "model.safetensors")

    call(use)
    assert set(load_file(tmp_path / "model.safetensors")) == {"linear.weight", "linear.bias"}


def test_aliases_are_set_listed_and_deleted(call, fake, steps):
    @steps
    def use(client):
        model = yield client.model("house-price")
        before = yield model.aliases()
        registered = yield model.set_alias("champion")
        after = yield model.aliases()
        gone = yield model.delete_alias("champion")
        return before, registered, after, gone

    before, registered, after, gone = call(use)
    assert (before, after) == ([], ["champion"])
    assert registered.aliases == {"champion": "models/house-price/versions/3"}
    assert gone.aliases == {}


def test_models_and_versions_are_listed(call, steps):
    @steps
    def use(client):
        return (yield client.models()), (yield client.versions("house-price"))

    models, versions = call(use)
    assert [model.name for model in models] == ["models/house-price"]
    assert models[0].latest_version == "models/house-price/versions/3"
    assert [version.version for version in versions] == [3]


def test_versions_and_models_are_deleted(call, fake, steps, request_of):
    @steps
    def use(client):
        model = yield client.model("house-price")
        yield model.delete()
        yield client.delete_model("house-price")

    call(use)
    assert request_of("DeleteVersion").name == "models/house-price/versions/3"
    assert request_of("DeleteModel").name == "models/house-price"


def test_what_changes_something_is_repeated_under_one_request_id(call, fake, steps):
    methods = ("DeleteVersion", "SetAlias", "DeleteAlias", "DeleteModel")
    for method in methods:
        fake.does.fail(method, grpc.StatusCode.UNAVAILABLE)

    @steps
    def use(client):
        model = yield client.model("house-price")
        yield model.set_alias("champion", etag="absent")
        yield model.delete_alias("champion")
        yield model.delete()
        yield client.delete_model("house-price")

    call(use)
    assert {method: fake.does.count(method) for method in methods} == dict.fromkeys(methods, 2)
    changes = [request for request in fake.does.requests if hasattr(request, "request_id")]
    ids = [request.request_id for request in changes]
    assert len(ids) == 8
    assert ids[::2] == ids[1::2]
    assert len(set(ids)) == 4
    assert all(ids)


def test_a_missing_column_is_named_as_the_server_names_it(call, fake, steps, detail):
    bad = errors_pb2.BadRequest()
    bad.field_violations.add(field="table", description="lacks the column 'rooms'")
    fake.does.fail("Predict", grpc.StatusCode.INVALID_ARGUMENT, details=[detail("BadRequest", bad)])
    with pytest.raises(epochd.InvalidArgument, match="lacks the column 'rooms'"):
        predict(call, steps, {"x0": [1.0]})
