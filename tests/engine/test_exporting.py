"""Models as PyTorch's own modules and archives."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from torch import nn

from epochd_server.domain.layers import ACTIVATION_PARAMETERS
from epochd_server.domain.specs import (
    ActivationLayer,
    DropoutLayer,
    LayerNormLayer,
    LinearLayer,
    LinearModel,
    ModuleModel,
    SequentialModel,
)
from epochd_server.engine.exporting import module_of, pt2_archive
from epochd_server.engine.inference import Predictor
from epochd_server.engine.inspection import parameter_shapes
from epochd_server.engine.modules import ModuleRegistry


def drawn(model, modules=None, dtype=np.float64):
    rng = np.random.default_rng(3)
    shapes = parameter_shapes(model, modules=modules).parameters
    return {slot.name: rng.normal(size=slot.shape).astype(dtype) for slot in shapes}


@pytest.mark.parametrize("function", [*ACTIVATION_PARAMETERS, "gelu_tanh"])
def test_a_network_as_a_module_gives_what_predict_gives(function):
    layer = ActivationLayer(
        function=function.removesuffix("_tanh"), approximate="tanh" if "_tanh" in function else "none"
    )
    model = SequentialModel(
        layers=(LinearLayer(in_features=3, out_features=5), layer, LinearLayer(in_features=5, out_features=2))
    )
    parameters = drawn(model)
    rows = np.random.default_rng(0).normal(size=(7, 3))
    with torch.no_grad():
        outputs = module_of(model, parameters)(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(outputs, Predictor(model, parameters).predict(rows), rtol=1e-12, atol=1e-14)


def test_layer_norm_and_dropout_as_modules():
    model = SequentialModel(
        layers=(
            LayerNormLayer(),
            LinearLayer(in_features=3, out_features=4),
            DropoutLayer(),
            LayerNormLayer(bias=False, eps=0.1),
            LinearLayer(in_features=4, out_features=1),
        )
    )
    parameters, rows = drawn(model), np.random.default_rng(0).normal(size=(7, 3))
    with torch.no_grad():
        outputs = module_of(model, parameters)(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(outputs, Predictor(model, parameters).predict(rows), rtol=1e-12, atol=1e-14)


def test_a_module_has_pytorchs_parameter_names():
    model = LinearModel(in_features=2, out_features=1)
    assert list(module_of(model, drawn(model)).state_dict()) == ["linear.weight", "linear.bias"]


class Scaled(nn.Module):
    """A module with a buffer."""

    def __init__(self, features: int = 2) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1)
        self.register_buffer("scale", torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * self.scale


def test_an_archive_takes_any_number_of_rows_and_gives_what_predict_gives():
    modules = ModuleRegistry()
    modules.register(Scaled)
    model = ModuleModel(name="Scaled")
    parameters = drawn(model, modules, np.float32)
    archive = pt2_archive(module_of(model, parameters, modules=modules), 2)
    program = torch.export.load(io.BytesIO(archive)).module()
    predictor = Predictor(model, parameters, modules=modules)
    for count in (1, 2, 9):
        rows = np.random.default_rng(count).normal(size=(count, 2)).astype(np.float32)
        outputs = program(torch.from_numpy(rows)).detach().numpy()
        np.testing.assert_allclose(outputs, predictor.predict(rows), rtol=1e-6)
