"""Gradient fits as users ask for them, through the real server, against plain PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import epochd

RNG = np.random.default_rng(5)
X = RNG.normal(size=(60, 3))
Y = X @ [1.0, -2.0, 0.5] + 0.3 * RNG.normal(size=60)
LABELS = np.where(X[:, 0] + 0.5 * RNG.normal(size=60) > 0.6, "yes", "no")


@pytest.fixture(scope="module")
def client(server):
    with epochd.connect(server.address) as connected:
        yield connected


def plain_loop(criterion, optimizer, scheduler=None, clip=None, epochs=80, targets=Y):
    """A linear model from zeros in float64: its parameters, and the rate of each epoch."""
    x, y = torch.from_numpy(X), torch.from_numpy(np.asarray(targets))
    module = nn.Linear(3, 1, dtype=torch.float64)
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    steps, rates = optimizer(module.parameters()), []
    schedule = None if scheduler is None else scheduler(steps)
    for _ in range(epochs):
        rates.append(steps.param_groups[0]["lr"])
        steps.zero_grad()
        criterion(module(x)[:, 0], y).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(module.parameters(), clip)
        steps.step()
        if schedule is not None:
            schedule.step()
    return module.weight.detach().numpy(), module.bias.detach().numpy(), rates


def trained(client, target=Y, **options):
    run = client.train(
        X, target, model=epochd.Linear(init="zeros"), epochs=80, dtype="float64", log_every=1, **options
    )
    rates = [log.lr for log in run.logs()]
    return run.result(), rates


def test_schedule_warm_up_and_clipping_are_pytorchs(client):
    model, rates = trained(
        client,
        optimizer=epochd.RMSprop(lr=0.05, momentum=0.5),
        schedule=epochd.CosineAnnealingLR(T_max=70, eta_min=1e-3),
        warmup=epochd.LinearLR(start_factor=0.1, total_iters=10),
        max_norm=0.5,
    )

    def scheduler(steps):
        kinds = torch.optim.lr_scheduler
        warm = kinds.LinearLR(steps, start_factor=0.1, total_iters=10)
        cosine = kinds.CosineAnnealingLR(steps, T_max=70, eta_min=1e-3)
        return kinds.SequentialLR(steps, [warm, cosine], milestones=[10])

    weight, bias, want = plain_loop(
        nn.MSELoss(), lambda p: torch.optim.RMSprop(p, lr=0.05, momentum=0.5), scheduler, clip=0.5
    )
    np.testing.assert_allclose(rates, want, rtol=1e-12)
    np.testing.assert_allclose(model.parameters()["linear.weight"], weight, rtol=1e-9)
    np.testing.assert_allclose(model.parameters()["linear.bias"], bias, rtol=1e-9)


def test_a_poisson_models_predictions_are_rates(client):
    counts = RNG.poisson(np.exp(0.5 * X[:, 0])).astype(float)
    model, _ = trained(client, counts, loss="poisson_nll", optimizer=epochd.SGD(lr=0.1))
    weight, bias, _ = plain_loop(nn.PoissonNLLLoss(), lambda p: torch.optim.SGD(p, lr=0.1), targets=counts)
    np.testing.assert_allclose(model.predict(X), np.exp(X @ weight[0] + bias), rtol=1e-9)


def test_a_gaussian_models_predictions_are_means(client):
    model, _ = trained(client, loss="gaussian_nll", optimizer=epochd.Adam(lr=0.05))
    parameters = model.parameters()
    assert parameters["linear.weight"].shape == (2, 3)
    means = X @ parameters["linear.weight"][0] + parameters["linear.bias"][0]
    np.testing.assert_allclose(model.predict(X), means, rtol=1e-9)


def test_a_quantile_leaves_its_share_of_the_rows_above(client):
    model, _ = trained(
        client, loss=epochd.Quantile(quantile=0.9), optimizer=epochd.Adam(lr=0.1),
        schedule=epochd.ExponentialLR(gamma=0.97),
    )  # fmt: skip
    assert 0.02 <= np.mean(model.predict(X) < Y) <= 0.2


def test_weights_of_classes_are_given_by_label(client):
    loss = epochd.BCEWithLogits(class_weights={"yes": 3.0}, label_smoothing=0.1)
    model, _ = trained(client, LABELS, loss=loss, optimizer=epochd.SGD(lr=0.3))
    is_yes = LABELS == "yes"
    weights = torch.from_numpy(np.where(is_yes, 3.0, 1.0))

    def criterion(outputs, targets):
        rows = nn.functional.binary_cross_entropy_with_logits(outputs, 0.9 * targets + 0.05, reduction="none")
        return (rows * weights).sum() / weights.sum()

    weight, bias, _ = plain_loop(
        criterion, lambda p: torch.optim.SGD(p, lr=0.3), targets=is_yes.astype(float)
    )
    np.testing.assert_allclose(model.parameters()["linear.weight"], weight, rtol=1e-9)
    np.testing.assert_allclose(model.parameters()["linear.bias"], bias, rtol=1e-9)
    with pytest.raises(epochd.InvalidArgument, match="'maybe' is no class of the data"):
        trained(
            client, LABELS, loss=epochd.BCEWithLogits(class_weights={"maybe": 1}), optimizer=epochd.SGD(lr=1)
        )


def test_l1_makes_weights_exactly_zero(client):
    model, _ = trained(client, optimizer=epochd.SGD(lr=0.1), l1=1.5)
    weight = model.parameters()["linear.weight"][0]
    assert weight[2] == 0
    assert (weight[:2] != 0).all()


def test_dropout_and_layer_norm_train_and_predict_the_same_every_time(client):
    mlp = epochd.Sequential(
        epochd.Linear(8), epochd.LayerNorm(), "relu", epochd.Dropout(0.3), epochd.Linear(1)
    )
    options = {"model": mlp, "optimizer": epochd.Adam(lr=0.01), "epochs": 30, "seed": 1, "batch_size": 16}
    first, second = (client.train(X, Y, **options).result() for _ in range(2))
    for name, value in first.parameters().items():
        assert (value == second.parameters()[name]).all()
    assert (first.predict(X) == first.predict(X)).all()
    assert first.parameters()["1.weight"].shape == (8,)


def test_a_fleets_members_have_schedules_of_their_own(client):
    stores = np.repeat(["a", "b", "c"], 20)
    options = {
        "model": epochd.Linear(init="zeros"), "optimizer": epochd.SGD(lr=0.2), "epochs": 60, "dtype": "float64",
        "schedule": epochd.ReduceLROnPlateau(factor=0.5, patience=1, threshold=0.05), "clip_value": 1.0,
    }  # fmt: skip
    fleet = client.train(X, Y, group_by=stores, **options).result()
    for store in "abc":
        rows = stores == store
        alone = client.train(X[rows], Y[rows], **options).result()
        for name, value in alone.parameters().items():
            assert (fleet.member(store).parameters()[name] == value).all()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"max_norm": 1.0, "clip_value": 1.0}, "gradient.clipping"),
        ({"schedule": epochd.StepLR(step_size=0)}, "gradient.schedule.step.step_size"),
        ({"optimizer": epochd.SGD(lr=0.1, momentum=1.0), "l1": 0.1}, "gradient.penalty"),
        ({"loss": "poisson_nll"}, "data.tensors.targets"),
    ],
)
def test_what_cannot_be_is_named(client, options, field):
    with pytest.raises(epochd.InvalidArgument) as caught:
        trained(client, **({"optimizer": epochd.SGD(lr=0.1)} | options))
    assert [violation.field for violation in caught.value.violations] == [field]


def test_a_run_that_diverged_is_told_the_largest_stable_learning_rate(client):
    with pytest.raises(epochd.TrainingFailed, match="LOSS_NOT_FINITE") as caught:
        client.train(10 * X, Y, model=epochd.Linear(), optimizer=epochd.SGD(lr=1.0), epochs=2000).result()
    rows = np.column_stack([10 * X, np.ones(len(X))])
    stable = 2 / np.linalg.eigvalsh(2 * rows.T @ rows / len(rows))[-1]
    assert f"a learning rate below {stable:.4g}" in str(caught.value)
