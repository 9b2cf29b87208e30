"""ONNX files, run by onnxruntime and held against Predict."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.layers import ACTIVATION_PARAMETERS
from epochd_server.domain.specs import (
    ActivationLayer,
    DropoutLayer,
    LayerNormLayer,
    LinearLayer,
    LinearModel,
    ModuleModel,
    Precision,
    SequentialModel,
)
from epochd_server.engine.inference import Predictor
from epochd_server.serving.exporting.onnx_file import onnx_file
from epochd_server.serving.outputs import Labels, sigmoid, softmax

ROWS = np.random.default_rng(0).normal(size=(40, 3)) * 3


def run(file: bytes, **inputs) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(file)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def network(function="relu", outputs=1, approximate="none", **parameters):
    return SequentialModel(
        layers=(
            LinearLayer(in_features=3, out_features=6),
            ActivationLayer(function=function, parameters=parameters, approximate=approximate),
            LinearLayer(in_features=6, out_features=outputs, bias=False),
        )
    )


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("function", ACTIVATION_PARAMETERS)
def test_every_activation_in_both_precisions(card, draw, function, precision):
    model = network(function)
    parameters = draw(model, dtype=precision.value)
    rows = ROWS.astype(precision.value)
    file = onnx_file("models/m/versions/1", card(model, precision=precision), parameters, [])
    values = run(file, features=rows)["values"]
    expected = Predictor(model, parameters).predict(rows)[:, 0]
    assert values.dtype == rows.dtype
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(
    "model",
    [
        network("gelu", approximate="tanh"),
        network("softplus", beta=2.0, threshold=0.5),
        network("hardtanh", min_val=-0.25, max_val=2.0),
        network("celu", alpha=0.3),
        network("elu", alpha=2.5),
        network("leaky_relu", negative_slope=0.3),
    ],
)
def test_activations_with_arguments(card, draw, model):
    parameters = draw(model)
    values = run(onnx_file("", card(model), parameters, []), features=ROWS)["values"]
    np.testing.assert_allclose(
        values, Predictor(model, parameters).predict(ROWS)[:, 0], rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("members", [0, 3])
@pytest.mark.parametrize(
    "norm", [LayerNormLayer(), LayerNormLayer(bias=False, eps=0.1), LayerNormLayer(elementwise_affine=False)]
)
def test_layer_norm_and_dropout(card, draw, norm, members):
    model = SequentialModel(
        layers=(
            norm,
            LinearLayer(in_features=3, out_features=5),
            DropoutLayer(p=0.5),
            norm,
            LinearLayer(in_features=5, out_features=2),
        )
    )
    parameters, of_rows = draw(model, members=members), np.arange(40) % max(members, 1)
    keys = [[n] for n in range(members)]
    file = onnx_file("", card(model, outputs=2, keys=("shop",) if members else ()), parameters, keys)
    inputs = {"features": ROWS} | ({"member": of_rows} if members else {})
    expected = Predictor(model, parameters).predict(ROWS, of_rows)
    np.testing.assert_allclose(run(file, **inputs)["values"], expected, rtol=1e-9, atol=1e-9)


def test_several_targets_are_columns(card, draw):
    model = LinearModel(in_features=3, out_features=2)
    parameters = draw(model)
    values = run(onnx_file("", card(model, outputs=2), parameters, []), features=ROWS)["values"]
    np.testing.assert_allclose(values, Predictor(model, parameters).predict(ROWS), rtol=1e-12)


@pytest.mark.parametrize("classes", [("no", "perhaps", "yes"), (3, 7, 9)])
def test_a_classifier_gives_logits_probabilities_and_labels(card, draw, classes):
    model = network("tanh", outputs=3)
    parameters = draw(model)
    answer = run(onnx_file("", card(model, outputs=3, classes=classes), parameters, []), features=ROWS)
    logits = Predictor(model, parameters).predict(ROWS)
    np.testing.assert_allclose(answer["logits"], logits, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(answer["probabilities"], softmax(logits), rtol=1e-9)
    assert answer["labels"].tolist() == Labels(classes).of(logits).tolist()


def test_two_classes_may_share_a_logit(card, draw, linear):
    parameters, classes = draw(linear), ("no", "yes")
    answer = run(onnx_file("", card(linear, classes=classes), parameters, []), features=ROWS)
    logits = Predictor(linear, parameters).predict(ROWS)[:, 0]
    np.testing.assert_allclose(answer["probabilities"], sigmoid(logits), rtol=1e-9)
    assert answer["labels"].tolist() == Labels(classes).of(logits).tolist()


def test_a_fleet_finds_each_rows_member(card, draw):
    model, keys = network("relu"), [["north", 1], ["north", 2], ["south", 1]]
    parameters, members = draw(model, members=3), np.arange(40) % 3
    file = onnx_file("", card(model, keys=("city", "shop")), parameters, keys)
    values = run(file, features=ROWS, member=members)["values"]
    expected = Predictor(model, parameters).predict(ROWS, members)[:, 0]
    np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-12)
    metadata = {entry.key: entry.value for entry in onnx.load_from_string(file).metadata_props}
    assert json.loads(metadata["member_keys"]) == keys
    assert json.loads(metadata["key_columns"]) == ["city", "shop"]


def test_a_file_names_its_version_columns_and_opset(card, draw, linear):
    model = onnx.load_from_string(onnx_file("models/m/versions/7", card(linear), draw(linear), []))
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["epochd_version"] == "models/m/versions/7"
    assert json.loads(metadata["feature_columns"]) == ["x0", "x1", "x2"]
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]


def test_a_registered_module_has_no_onnx_form(card, linear, draw):
    made = card(linear)
    made = replace(made, spec=replace(made.spec, model=ModuleModel(name="Mine")))
    with pytest.raises(EpochdError, match="PT2") as caught:
        onnx_file("", made, draw(linear), [])
    assert caught.value.reason is Reason.EXPORT_NOT_POSSIBLE
