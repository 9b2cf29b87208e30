"""A fit that goes on from between two iterations ends in the bits of one that was never interrupted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from epochd_server.domain.checkpoints import MemberCheckpoint
from epochd_server.domain.exact_fits import LbfgsFit, NewtonFit
from epochd_server.domain.specs import ActivationLayer, LinearLayer, LossKind, SequentialModel
from epochd_server.engine.exact import lbfgs, newton, slicing
from epochd_server.engine.task import MemberState

NETWORK = SequentialModel(
    layers=(
        LinearLayer(in_features=3, out_features=4),
        ActivationLayer(function="tanh"),
        LinearLayer(in_features=4, out_features=1),
    )
)
FITS = {
    "network by L-BFGS": (LbfgsFit(max_iterations=40, history=4), LossKind.MSE, {"model": NETWORK}),
    "logistic by L-BFGS": (LbfgsFit(l2=0.1, tolerance=1e-11), LossKind.BCE_WITH_LOGITS, {}),
    "logistic by Newton": (NewtonFit(), LossKind.BCE_WITH_LOGITS, {}),
    "softmax by Newton": (NewtonFit(l2=0.1), LossKind.CROSS_ENTROPY, {"outputs": 3}),
}


@pytest.fixture
def problem(monkeypatch):
    """Features, targets by loss, and options of three members that are saved after every iteration of each."""
    for module in (slicing, lbfgs, newton):
        monkeypatch.setattr(module, "SLICE_OPERATIONS", 1.0)
    random = np.random.default_rng(5)
    features = random.standard_normal((180, 3))
    numbers = features @ [1.0, -2.0, 0.5] + 2 * random.standard_normal(180)
    targets = {
        LossKind.MSE: numbers,
        LossKind.BCE_WITH_LOGITS: (numbers > 0) * 1.0,
        LossKind.CROSS_ENTROPY: np.digitize(numbers, [-1, 1]),
    }
    offsets = np.array([0, 50, 120, 180])
    options = {"offsets": offsets, "weights": random.uniform(0.2, 2.0, 180), "log_parameters": True}
    return features, targets, {**options, "seeds": np.array([1, 2, 3])}


def story(fitted, member, since=0):
    """All that the owner of a member gets to see from an iteration on, as bytes where it is numbers."""
    points = [
        (epoch, loss.tobytes(), step.tobytes(), {name: array.tobytes() for name, array in parameters.items()})
        for batch in fitted.logs
        for owner, epoch, loss, step, parameters in zip(
            batch.members, batch.epochs.tolist(), batch.losses, batch.lrs, batch.parameters, strict=True
        )
        if owner == member and epoch >= since
    ]
    found = {**fitted.parameters, **fitted.statistics, "loss": fitted.losses}
    ends = {name: array[member].tobytes() for name, array in found.items()}
    return points, ends, int(fitted.states[member]), int(fitted.epochs[member])


def places(watcher):
    """Every checkpoint of every member."""
    return [
        (member, MemberCheckpoint(epoch, {name: array[place] for name, array in batch.state.items()}))
        for batch in watcher.places
        for place, (member, epoch) in enumerate(
            zip(batch.members.tolist(), batch.epochs.tolist(), strict=True)
        )
    ]


@pytest.mark.parametrize("name", FITS)
def test_members_go_on_from_any_of_their_checkpoints(fit, problem, watcher, name):
    how, loss, model = FITS[name]
    features, targets, options = problem
    given = features, targets[loss], how
    options = {**options, **model, "loss": loss}
    observer = watcher()
    undisturbed = fit(*given, watcher=observer, checkpoint_seconds=0.0, clock=lambda: 0.0, **options)
    found = places(observer)
    assert {member for member, _ in found} == {0, 1, 2}
    for member, checkpoint in found[:: max(len(found) // 12, 1)]:
        again = fit(*given, resume={member: checkpoint}, **options)
        assert story(again, member, checkpoint.epoch) == story(undisturbed, member, checkpoint.epoch)
        assert len(story(again, member)[0]) == undisturbed.epochs[member] - checkpoint.epoch
        others = {0, 1, 2} - {member}
        assert all(story(again, other) == story(undisturbed, other) for other in others)


@pytest.mark.parametrize("name", ["network by L-BFGS", "softmax by Newton"])
def test_who_stops_is_saved_first_and_goes_on_later(fit, problem, watcher, name):
    how, loss, model = FITS[name]
    features, targets, options = problem
    given = features, targets[loss], how
    options = {**options, **model, "loss": loss}
    expected = fit(*given, **options)
    observer = watcher(stop={0}, after=1)
    stopped = fit(*given, watcher=observer, clock=itertools.count(0.0, 0.03).__next__, **options)
    ((member, checkpoint),) = places(observer)
    assert member == 0
    assert stopped.states[0] == MemberState.STOPPED
    assert 0 < checkpoint.epoch == stopped.epochs[0] < expected.epochs[0]
    assert len(story(stopped, 0)[0]) == checkpoint.epoch
    again = fit(*given, resume={0: checkpoint}, **options)
    assert story(again, 0, checkpoint.epoch) == story(expected, 0, checkpoint.epoch)
