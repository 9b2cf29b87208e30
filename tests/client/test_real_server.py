"""Both clients against the real server: what a user does, from training to a restart in the middle of it."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

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


@pytest.fixture(scope="module")
def panel():
    """2,000 stores of 40 rows each, with three features, and the slopes that each store has."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(80_000, 3))
    slopes = rng.normal(size=(2_000, 3)).round(3)
    frame = pd.DataFrame(x, columns=["a", "b", "c"])
    frame["sales"] = (x * slopes.repeat(40, axis=0)).sum(axis=1)
    frame["store"] = [f"store-{index:04d}" for index in range(2_000) for _ in range(40)]
    return frame.sample(frac=1, random_state=4), slopes


FLEET = {
    "target": "sales", "group_by": "store", "model": epochd.Linear(), "optimizer": epochd.SGD(lr=0.1, momentum=0.9),
    "epochs": 300, "seed": 5, "dtype": "float64",
}  # fmt: skip


def test_a_fleet_of_an_uploaded_frame_learns_every_stores_slopes(client, panel):
    frame, slopes = panel
    fleet = client.train(frame, name="stores", **FLEET).result()
    assert (len(fleet), fleet.failed_members) == (2_000, 0)
    np.testing.assert_allclose(fleet.parameters()["linear.weight"][:, 0], slopes, atol=1e-6)
    np.testing.assert_allclose(fleet.predict(frame), frame.sales, atol=1e-5)
    table = pd.DataFrame(fleet.to_table())
    assert table.store.is_monotonic_increasing
    np.testing.assert_allclose(table["linear.weight[0,2]"], slopes[:, 2], atol=1e-6)


def test_a_member_has_the_bits_that_it_has_alone_and_promoted(client, panel):
    frame, _ = panel
    some = frame[frame.store < "store-0100"]
    fleet = client.train(some, **FLEET).result()
    rows = some[some.store == "store-0017"].drop(columns="store")
    alone = client.train(rows, **(FLEET | {"group_by": None})).result()
    promoted = fleet.promote("store-0017")
    for name, value in alone.parameters().items():
        np.testing.assert_array_equal(value, fleet.member("store-0017").parameters()[name])
        np.testing.assert_array_equal(value, promoted.parameters()[name])
    np.testing.assert_array_equal(promoted.predict(rows), fleet.predict(rows, member="store-0017"))


def test_unknown_keys_are_named_and_counted(client, panel):
    frame, _ = panel
    fleet = client.train(frame[frame.store < "store-0010"], **FLEET).result()
    strangers = frame[frame.store >= "store-0010"]
    with pytest.raises(epochd.InvalidArgument, match=r"1,000 rows have keys of no member.*'store-\d{4}'"):
        fleet.predict(strangers[:1_000])
    assert np.isnan(fleet.predict(frame, unknown="nan")).sum() == len(strangers)
    with pytest.raises(epochd.NotFound):
        fleet.member("nowhere")
    with pytest.raises(epochd.InvalidArgument, match="nowhere"):
        client.train(frame, log_members=["nowhere"], **FLEET)


async def test_the_asyncio_client_trains_a_sweep(server, people):
    async with epochd.aio.connect(server.address) as client:
        run = await client.train(
            people, target="churned", model=epochd.Linear(), loss="cross_entropy", optimizer=epochd.SGD(lr=1.0),
            sweep=epochd.Sweep(lr=[0.5, 0.001], seed=[1, 2]), epochs=30, log_members=[(0.5, 1)],
        )  # fmt: skip
        logs = [log async for log in run.logs()]
        sweep = await run.result()
        best = await sweep.best
        assert {log.key for log in logs if isinstance(log, epochd.MemberLog)} == {(0.5, 1)}
        assert logs[-1].members_done == len(sweep) == 4
        assert best.keys_by_column["lr"] == 0.5
        assert [member.key async for member in sweep.members()] == [
            (0.001, 1),
            (0.001, 2),
            (0.5, 1),
            (0.5, 2),
        ]
        assert ((await best.predict(people)) == people.churned).mean() > 0.9
        assert (await (await best.promote()).predict_proba(people)).shape == (500, 2)


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
    assert [dataset.rows for dataset in client.datasets()].count(100_000) == 1


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


def test_a_run_reaches_a_limit_and_keeps_what_it_had(client):
    endless = {"model": epochd.Linear(), "optimizer": epochd.SGD(lr=1e-6), "epochs": 10_000_000}
    limits = epochd.Limits(training_time=0.3, keep_weights=True)
    run = client.train(*POINTS, **endless, limits=limits, name="limited")
    with pytest.raises(epochd.TrainingCancelled) as caught:
        run.result(timeout=60)
    assert caught.value.reason == "TRAINING_TIME_SPENT"
    assert client.model(caught.value.model_version).parameters()["linear.weight"].shape == (1, 1)


def test_limits_that_make_no_sense_are_refused_by_field(client):
    past = epochd.Limits(deadline=timedelta(seconds=-1))
    with pytest.raises(epochd.InvalidArgument, match=r"limits\.deadline: must be in the future"):
        client.train(*POINTS, model=epochd.Linear(), optimizer=epochd.SGD(lr=1e-6), epochs=1, limits=past)
    with pytest.raises(epochd.InvalidArgument) as caught:
        client.train(
            *POINTS,
            model=epochd.Linear(),
            optimizer=epochd.SGD(lr=-1.0),
            epochs=1,
            limits=epochd.Limits(training_time=0.0),
        )
    fields = {violation.field for violation in caught.value.violations}
    assert fields == {"limits.training_time", "gradient.optimizer.sgd.lr"}
    with pytest.raises(epochd.InvalidArgument, match="time zone"):
        epochd.Limits(deadline=datetime(2030, 1, 1))  # noqa: DTZ001 - that is the point


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
    assert logged[-1] == 1_980_000


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
