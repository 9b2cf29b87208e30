"""Shapes, counts and sizes without training."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from epochd_server.domain.layers import activation_arguments
from epochd_server.domain.specs import ActivationLayer, LinearLayer, LinearModel, Precision, SequentialModel
from epochd_server.engine.inspection import output_size, parameter_shapes
from epochd_server.engine.programs.lane_kernel import run_epochs
from epochd_server.engine.warmup import warm_up


def test_names_and_shapes_are_those_of_a_state_dict(lab: Any) -> None:
    model = lab.mlp(5, 8, 3)
    module = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    shapes = parameter_shapes(model)
    assert {s.name: s.shape for s in shapes.parameters} == {
        name: tuple(value.shape) for name, value in module.state_dict().items()
    }
    assert shapes.count == sum(value.numel() for value in module.parameters())
    assert output_size(model, 5) == 3


def test_a_linear_model_may_lack_its_bias() -> None:
    shapes = parameter_shapes(LinearModel(in_features=4, out_features=2, bias=False))
    assert [(s.name, s.shape) for s in shapes.parameters] == [("linear.weight", (2, 4))]


def test_nothing_is_allocated_for_huge_models() -> None:
    assert parameter_shapes(LinearModel(in_features=10**9, out_features=10**6)).count == 10**15 + 10**6


def test_layers_that_do_not_fit_are_refused() -> None:
    layers = (LinearLayer(in_features=4, out_features=3), LinearLayer(in_features=2, out_features=1))
    with pytest.raises(ValueError, match="layer 1 takes 2, is given 3"):
        parameter_shapes(SequentialModel(layers=layers))
    with pytest.raises(ValueError, match="not resolved"):
        parameter_shapes(SequentialModel(layers=(ActivationLayer(function="relu"),)))


def test_arguments_of_activations_have_pytorchs_defaults() -> None:
    assert activation_arguments("softplus", {"beta": 2}) == {"beta": 2.0, "threshold": 20.0}
    with pytest.raises(KeyError):
        activation_arguments("softplus", {"alpha": 2})
    with pytest.raises(KeyError):
        activation_arguments("swish", {})


@pytest.mark.parametrize("precision", Precision)
def test_warming_up_again_finds_nothing_left_to_compile(precision: Precision) -> None:
    warm_up(precision)
    compiled = list(run_epochs.signatures)
    warm_up(precision)
    assert run_epochs.signatures == compiled
