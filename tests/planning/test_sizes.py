"""Sizes of layers, against PyTorch's own modules."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epochd_server.domain.errors import Violations
from epochd_server.domain.specs import ActivationLayer, LinearLayer, LinearModel, SequentialModel
from epochd_server.planning.sizes import Needed, count_parameters, given_outputs, resolve_sizes

widths = st.lists(st.integers(1, 20), min_size=2, max_size=6)


@given(widths, st.data())
def test_a_chain_that_fits_is_filled_in_and_counted_as_pytorch_does(widths, data) -> None:
    layers, modules = [], []
    for index, (before, after) in enumerate(itertools.pairwise(widths)):
        last = index == len(widths) - 2
        bias = data.draw(st.booleans())
        layers.append(
            LinearLayer(
                in_features=data.draw(st.sampled_from([before, None])),
                out_features=data.draw(st.sampled_from([after, None])) if last else after,
                bias=bias,
            )
        )
        layers.append(ActivationLayer(function="relu"))
        modules += [torch.nn.Linear(before, after, bias=bias), torch.nn.ReLU()]
    violations = Violations()
    needed = Needed(features=widths[0], outputs=widths[-1], why="so it is")
    resolved = resolve_sizes(SequentialModel(layers=tuple(layers)), needed, violations)
    assert not violations
    linears = [layer for layer in resolved.layers if isinstance(layer, LinearLayer)]
    assert [(layer.in_features, layer.out_features) for layer in linears] == list(itertools.pairwise(widths))
    expected = sum(parameter.numel() for parameter in torch.nn.Sequential(*modules).parameters())
    assert count_parameters(resolved) == expected


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=5), st.integers(1, 3))
def test_a_chain_that_pytorch_cannot_run_has_a_violation_at_each_misfit(sizes, features) -> None:
    layers = tuple(LinearLayer(in_features=i, out_features=o) for i, o in sizes)
    violations = Violations()
    resolve_sizes(SequentialModel(layers=layers), Needed(features=features), violations)
    widths = [features, *(o for _, o in sizes[:-1])]
    expected = [
        f"sequential.layers[{index}].linear.in_features"
        for index, ((i, _), width) in enumerate(zip(sizes, widths, strict=True))
        if i != width
    ]
    assert [violation.field for violation in violations.found] == expected
    module = torch.nn.Sequential(*(torch.nn.Linear(i, o) for i, o in sizes))
    try:
        module(torch.zeros(2, features))
        runs = True
    except RuntimeError:
        runs = False
    assert runs == (not expected)


@pytest.mark.parametrize("model", [LinearModel(), SequentialModel(layers=(LinearLayer(),))])
def test_what_cannot_be_known_is_not_held_against_the_model(model) -> None:
    violations = Violations()
    assert resolve_sizes(model, Needed(features=None), violations) is None
    assert not violations


def test_outputs_are_those_of_the_last_linear_layer() -> None:
    layers = (LinearLayer(out_features=3), LinearLayer(out_features=2), ActivationLayer(function="tanh"))
    assert given_outputs(SequentialModel(layers=layers)) == 2
    assert given_outputs(SequentialModel(layers=layers[2:])) is None
    assert given_outputs(LinearModel()) is None
