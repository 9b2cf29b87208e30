"""Both clients against the real server: what a user does, from training to a restart in the middle of it."""

from __future__ import annotations

import threading

import numpy as np
import pandas as pd
import pytest
import torch

import epochd
from epochd import events

POINTS = ([[1.0], [2.0], [3.0]], [[2.0], [4.0], [6.0]])


@pytest.fixture(scope="module")
def client(server):
    with epochd.connect(server.address) as connected:
        yield connected


@pytest.fixture(scope="module")
def people():
    """500 rows of two features and a class that depends on them."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.normal(size=500), "income": rng.normal(size=500)})
    return frame.assign(churned=np.where(frame.age + frame.income > 0, "yes", "no"))


def torch_costs(epochs, every):
    """The plain PyTorch loop of the classic tutorial: the cost of every so many epochs."""
    x, y = (torch.tensor(values) for values in POINTS)
    w, b = (torch.zeros(1, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.SGD([w, b], lr=0.01)
    for epoch in range(epochs):
        cost = ((x * w + b - y) ** 2).mean()
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        if epoch % every == 0:
            yield f"Epoch {epoch:4d}/{epochs - 1} W: {w.item():.3f}, b: {b.item():.3f} Cost: {cost.item():.6f}"


def test_the_tutorial_prints_what_plain_pytorch_prints(client):
    run = client.train(
        *POINTS, model=epochd.Linear(init="zeros"), loss="mse", optimizer=epochd.SGD(lr=0.01), epochs=2000,
        log_every=100, log_parameters=True, name="tutorial",
    )  # fmt: skip
    lines = [
        f"Epoch {log.epoch:4d}/{log.epochs - 1} W: {log.parameters['linear.weight'].item():.3f}, "
        f"b: {log.parameters['linear.bias'].item():.3f} Cost: {log.loss:.6f}"
        for log in run.logs()
        if log.epoch % 100 == 0
    ]
    assert lines == list(torch_costs(2000, 100))
    model = run.result()
    np.testing.assert_allclose(model.predict([[4.0]]), [8.0], atol=0.01)
    assert client.model("tutorial").resource_name == model.resource_name
    assert list(model.parameters()) == ["linear.weight", "linear.bias"]


@pytest.mark.parametrize(
    "model", [epochd.Linear(), epochd.Sequential(epochd.Linear(16), "relu", epochd.Linear())], ids=str
)
def test_a_frame_is_trained_on_and_predicted_from(client, people, model):
    arguments = {"target": "churned", "loss": "cross_entropy", "optimizer": epochd.Adam(lr=0.1), "epochs": 50}
    model = client.train(people, model=model, seed=7, **arguments).result()
    assert (model.predict(people) == people.churned).mean() > 0.95
    assert model.features == ("age", "income")
    assert model.classes.tolist() == ["no", "yes"]
    np.testing.assert_allclose(model.predict_proba(people).sum(axis=1), 1, rtol=1e-5)
    model.set_alias("champion")
    assert client.model(f"{model.name}@champion").version == model.version


def test_everything_wrong_is_told_at_once_and_the_next_request_succeeds(client):
    with pytest.raises(epochd.InvalidArgument) as caught:
        client.train(*POINTS, model=epochd.Linear(), optimizer=epochd.SGD(lr=-1), epochs=0, batch_size=9)
    assert {violation.field for violation in caught.value.violations} == {
        "gradient.optimizer.sgd.lr", "gradient.epochs", "gradient.batch_size",
    }  # fmt: skip
    assert client.activation("sigmoid", 0.0) == 0.5


def test_the_same_request_id_attaches_to_the_same_run(client):
    arguments = {
        "model": epochd.Linear(),
        "optimizer": epochd.SGD(lr=0.1),
        "epochs": 3,
        "request_id": "only-once",
    }
    assert client.train(*POINTS, **arguments).name == client.train(*POINTS, **arguments).name


def test_a_large_table_is_uploaded_once_and_gives_what_torch_gives(client):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(100_000, 10))
    y = x @ np.arange(10.0)
    arguments = {"model": epochd.Linear(init="zeros"), "optimizer": epochd.SGD(lr=0.1), "epochs": 3}
    model = client.train(x, y, dtype="float64", **arguments).result()
    w = torch.zeros(10, dtype=torch.float64)
    b = torch.zeros((), dtype=torch.float64)
    features, targets = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(3):
        residual = features @ w + b - targets
        w, b = w - 0.2 * features.T @ residual / len(x), b - 0.2 * residual.mean()
    np.testing.assert_allclose(model.parameters()["linear.weight"][0], w.numpy(), rtol=1e-9)
    assert [dataset.rows for dataset in client.datasets()] == [100_000]


def test_64_mb_go_through_and_come_back_right(client):
    x = np.random.default_rng(2).normal(size=8_000_000)
    np.testing.assert_allclose(
        client.activation("sigmoid", x), torch.sigmoid(torch.from_numpy(x)), rtol=1e-14
    )


def test_expressions_are_differentiated_like_torch_does(client):
    result = client.differentiate("y = w**2; z = 2*y + 5", w=2.0)
    assert (result.value, result.gradients) == (13.0, {"w": 8.0})
    history = client.differentiate("2*w", w=2.0, repeat=21, accumulate=True).history
    assert [once["w"] for once in history] == [2.0 * times for times in range(1, 22)]


def test_a_diverging_run_fails_with_epoch_and_hint(client):
    run = client.train(*POINTS, model=epochd.Linear(), optimizer=epochd.SGD(lr=1e9), epochs=1000)
    with pytest.raises(epochd.TrainingFailed) as caught:
        run.result()
    assert caught.value.reason == "LOSS_NOT_FINITE"
    assert caught.value.epoch is not None
    assert "learning rate" in caught.value.hint


def test_a_run_is_cancelled_while_it_trains(client):
    run = client.train(*POINTS, model=epochd.Linear(), optimizer=epochd.SGD(lr=1e-6), epochs=10_000_000)
    run.cancel()
    with pytest.raises(epochd.TrainingCancelled):
        run.result(timeout=60)


def test_a_watch_goes_on_over_a_restart_of_the_server(start_server):
    first = start_server()
    with epochd.connect(first.address, wait=60) as client:
        run = client.train(
            *POINTS, model=epochd.Linear(), optimizer=epochd.SGD(lr=1e-6), epochs=2_000_000, log_every=20_000
        )
        seen: list[events.Event] = []
        following = threading.Thread(target=lambda: seen.extend(run.events()))
        following.start()
        next(run.logs())
        first.kill()
        start_server("--listen", first.address, data_dir=first.data_dir)
        following.join(100)
        assert not following.is_alive()
    assert [event.sequence for event in seen] == list(range(1, len(seen) + 1))
    assert isinstance(seen[-1], events.Succeeded)
    logged = [event.epoch for event in seen if isinstance(event, events.EpochLog)]
    assert logged == sorted(set(logged))
    assert logged[-1] == 1_999_999


async def test_the_asyncio_client_does_the_same(server, people):
    async with epochd.aio.connect(server.address) as client:
        run = await client.train(
            people, target="churned", model=epochd.Linear(), loss="bce_with_logits", optimizer=epochd.Adam(lr=0.1),
            epochs=50, seed=7,
        )  # fmt: skip
        logs = [log async for log in run.logs()]
        model = await run.result()
        assert logs[-1].loss < logs[0].loss
        assert await run.state == "SUCCEEDED"
        assert ((await model.predict(people)) == people.churned).mean() > 0.95
        with pytest.raises(epochd.OutOfRange, match=r"index \[0\]"):
            await client.activation("log", -np.ones(2_000_000), strict=True)
