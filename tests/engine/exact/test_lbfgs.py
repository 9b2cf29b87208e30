"""L-BFGS against the exact fits, scikit-learn, and PyTorch's gradients at its optima."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch import nn

from epochd_server.domain.exact_fits import LbfgsFit, LeastSquaresFit, NewtonFit
from epochd_server.domain.specs import ActivationLayer, LinearLayer, Loss, LossKind, SequentialModel
from epochd_server.engine.exact import lbfgs, newton, slicing
from epochd_server.engine.task import MemberState

TIGHT = LbfgsFit(tolerance=1e-11)


@pytest.fixture(scope="module")
def sample():
    random = np.random.default_rng(11)
    features = random.standard_normal((150, 3)) + np.array([0, 1, 0])
    numbers = features @ [1.0, -2.0, 0.5] + random.standard_normal(150)
    return features, numbers, np.digitize(numbers, [-2, 0]), random.uniform(0.2, 2.0, 150)


@pytest.mark.parametrize("l2", [0.0, 3.0])
def test_mse_has_the_optimum_of_least_squares(fit, sample, l2):
    features, numbers, _, weights = sample
    found = fit(features, numbers, LbfgsFit(tolerance=1e-11, l2=2 * l2), weights=weights)
    right = fit(features, numbers, LeastSquaresFit(l2=l2), weights=weights)
    np.testing.assert_allclose(found.weight, right.weight, rtol=1e-8)
    np.testing.assert_allclose(found.losses, right.losses, rtol=1e-12)


@pytest.mark.parametrize("loss", [LossKind.BCE_WITH_LOGITS, LossKind.CROSS_ENTROPY])
@pytest.mark.parametrize("penalize_bias", [True, False])
def test_classifiers_have_the_optimum_of_newton(fit, sample, loss, penalize_bias):
    features, numbers, classes, weights = sample
    labels, outputs = ((numbers > 0) * 1.0, 1) if loss is LossKind.BCE_WITH_LOGITS else (classes, 3)
    penalty = {"l2": 0.5, "penalize_bias": penalize_bias}
    arguments = {"loss": loss, "outputs": outputs, "weights": weights}
    found = fit(features, labels, LbfgsFit(tolerance=1e-11, **penalty), **arguments)
    right = fit(features, labels, NewtonFit(**penalty), **arguments)
    np.testing.assert_allclose(found.weight, right.weight, rtol=1e-7)
    np.testing.assert_allclose(found.bias, right.bias, rtol=1e-7)


def test_l2_of_a_logistic_model_is_1_over_c(fit, sample):
    features, numbers, _, _ = sample
    right = LogisticRegression(C=0.25, tol=1e-14, max_iter=10_000, solver="newton-cholesky")
    right.fit(features, numbers > 0)
    found = fit(
        features, (numbers > 0) * 1.0, LbfgsFit(l2=4.0, tolerance=1e-11), loss=LossKind.BCE_WITH_LOGITS
    )
    np.testing.assert_allclose(found.weight[0], right.coef_, rtol=1e-8)


def test_a_network_comes_to_where_pytorch_finds_no_gradient(fit, sample):
    features, numbers, _, weights = sample
    layers = (
        LinearLayer(in_features=3, out_features=4),
        ActivationLayer(function="tanh"),
        LinearLayer(in_features=4, out_features=1),
    )
    model = SequentialModel(layers=layers)
    found = fit(features, numbers, LbfgsFit(l2=5.0, tolerance=1e-8), model=model, weights=weights)
    assert found.states.tolist() == [MemberState.FINISHED]
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    module.load_state_dict({name: torch.tensor(array[0]) for name, array in found.parameters.items()})
    rest = module(torch.tensor(features))[:, 0] - torch.tensor(numbers)
    penalty = sum((layer.weight**2).sum() for layer in (module[0], module[2]))
    objective = ((rest**2 * torch.tensor(weights)).sum() + 2.5 * penalty) / weights.sum()
    objective.backward()
    assert max(parameter.grad.abs().max() for parameter in module.parameters()) < 1e-7


def test_huber_comes_to_where_pytorch_finds_no_gradient(fit, sample):
    features, numbers, _, _ = sample
    found = fit(features, numbers, TIGHT, loss=Loss(kind=LossKind.HUBER, delta=0.7))
    weight = torch.tensor(found.weight[0], requires_grad=True)
    outputs = torch.tensor(features) @ weight[0] + torch.tensor(found.bias[0])
    nn.functional.huber_loss(outputs, torch.tensor(numbers), delta=0.7).backward()
    assert weight.grad.abs().max() < 1e-9


def test_separable_classes_fail(fit):
    line = np.arange(12.0)[:, None]
    found = fit(line, (line[:, 0] > 5) * 1.0, LbfgsFit(), loss=LossKind.BCE_WITH_LOGITS)
    assert found.states.tolist() == [MemberState.SEPARABLE_CLASSES]


def test_too_few_iterations_fail_where_there_is_one_optimum_and_end_a_network_well(fit, sample):
    features, numbers, _, _ = sample
    short = LbfgsFit(max_iterations=2)
    assert fit(features, numbers, short).states.tolist() == [MemberState.NOT_CONVERGED]
    layers = (
        LinearLayer(in_features=3, out_features=4),
        ActivationLayer(function="tanh"),
        LinearLayer(in_features=4, out_features=1),
    )
    network = fit(features, numbers, short, model=SequentialModel(layers=layers))
    assert network.states.tolist() == [MemberState.FINISHED]
    assert network.epochs.tolist() == [2]


def test_iterations_are_logged_as_epochs_and_lead_down(fit, sample):
    features, numbers, _, _ = sample
    found = fit(features, numbers, TIGHT, log_parameters=True)
    epochs = np.concatenate([batch.epochs for batch in found.logs])
    losses = np.concatenate([batch.losses for batch in found.logs])
    assert epochs.tolist() == list(range(found.epochs[0]))
    assert (np.diff(losses) <= 1e-12).all()
    np.testing.assert_array_equal(found.logs[-1].parameters[-1]["linear.weight"], found.weight[0])


def test_a_member_can_be_stopped_between_iterations(fit, watcher):
    random = np.random.default_rng(0)
    layers = (
        LinearLayer(in_features=200, out_features=100),
        ActivationLayer(function="tanh"),
        LinearLayer(in_features=100, out_features=1),
    )
    wide, targets = random.standard_normal((2000, 200)), random.standard_normal(2000)
    observer = watcher(stop={0}, after=2)
    found = fit(
        wide,
        targets,
        LbfgsFit(max_iterations=100_000),
        model=SequentialModel(layers=layers),
        watcher=observer,
    )
    assert found.states.tolist() == [MemberState.STOPPED]
    assert 0 < found.epochs[0] < 100_000


@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(8, 200), min_size=2, max_size=5))
def test_a_member_has_the_bits_it_would_have_alone(fit, seed, sizes):
    random = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    features, numbers = random.standard_normal((offsets[-1], 2)), random.standard_normal(offsets[-1])
    layers = (
        LinearLayer(in_features=2, out_features=3),
        ActivationLayer(function="tanh"),
        LinearLayer(in_features=3, out_features=1),
    )
    how = {"model": SequentialModel(layers=layers)}
    limit, seeds = LbfgsFit(max_iterations=20), random.integers(0, 2**31, len(sizes))
    fleet = fit(features, numbers, limit, offsets=offsets, seeds=seeds, **how)
    for member, (begin, end) in enumerate(itertools.pairwise(offsets.tolist())):
        alone = fit(features[begin:end], numbers[begin:end], limit, seeds=seeds[member : member + 1], **how)
        for name, array in alone.parameters.items():
            assert fleet.parameters[name][member].tobytes() == array[0].tobytes()


@pytest.mark.parametrize("loss", [LossKind.BCE_WITH_LOGITS, LossKind.CROSS_ENTROPY])
@pytest.mark.parametrize("how", [NewtonFit(l2=0.1), LbfgsFit(l2=0.1)], ids=["newton", "lbfgs"])
def test_looking_at_who_shall_stop_after_each_iteration_changes_no_bit(fit, sample, monkeypatch, how, loss):
    features, numbers, classes, _ = sample
    labels, outputs = ((numbers > 0) * 1.0, 1) if loss is LossKind.BCE_WITH_LOGITS else (classes, 3)
    arguments = {"loss": loss, "outputs": outputs, "offsets": np.array([0, 70, 150])}
    seldom = fit(features, labels, how, **arguments)
    for module in (lbfgs, newton, slicing):
        monkeypatch.setattr(module, "SLICE_OPERATIONS", 1.0)
    often = fit(features, labels, how, **arguments)
    assert often.weight.tobytes() == seldom.weight.tobytes()
    assert often.bias.tobytes() == seldom.bias.tobytes()
    assert often.epochs.tolist() == seldom.epochs.tolist()
