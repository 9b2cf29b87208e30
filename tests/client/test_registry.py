"""The registry through both clients, against real servers: labels, aliases, canaries, files, warm starts."""

from __future__ import annotations

import asyncio
import json
import uuid

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import safetensors.numpy

import epochd

X = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
Y = X @ np.float32([1, -2]) + 0.5


@pytest.fixture(scope="module")
def client(server):
    with epochd.connect(server.address) as connected:
        yield connected


@pytest.fixture
def name():
    return f"registered-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def models(client, name):
    """Two versions of one model, of one and of two epochs."""
    return [train(client, name, epochs) for epochs in (1, 2)]


def train(client, name, epochs, **options):
    defaults = {"model": epochd.Linear(init="zeros"), "optimizer": epochd.SGD(lr=0.1)}
    return client.train(X, Y, epochs=epochs, name=name, **{**defaults, **options}).result()


def test_labels_are_put_on_run_and_version_and_lists_find_them(client, name):
    model = train(client, name, 1, labels={"team": "blue"})
    assert model.labels == {"team": "blue"}
    assert [found.version for found in client.versions(name, labels={"team": "blue"})] == [1]
    assert [run.name for run in client.runs(labels={"team": "blue"}, model=name)] == [model.run]
    assert model.label({"stage": "live"}, remove=["team"]) == {"stage": "live"}
    assert client.label(name, {"kept": "yes"}) == {"kept": "yes"}
    assert [found.name for found in client.models(labels={"kept": "yes"})] == [f"models/{name}"]
    assert client.label(model.run, {"seen": "1"}) == {"seen": "1", "team": "blue"}
    assert "labels    stage=live" in str(client.model(name))


def test_an_alias_moves_only_from_where_it_was_seen(client, name, models):
    etag = models[0].set_alias("best", etag="absent").etags["best"]
    models[1].set_alias("best", etag=etag)
    with pytest.raises(epochd.Aborted, match="was moved"):
        models[0].set_alias("best", etag=etag)
    assert client.model(f"{name}@best").version == 2


def test_a_rollback_points_where_the_alias_pointed_before(client, name, models):
    for model in models:
        model.set_alias("best")
    assert client.rollback(f"{name}@best").aliases == {"best": models[0].resource_name}
    assert [move.version for move in client.alias_moves(f"{name}@best")] == [
        models[n].resource_name for n in (0, 1, 0)
    ]
    models[1].set_alias("only")
    with pytest.raises(epochd.FailedPrecondition, match="nowhere else"):
        client.rollback(f"{name}@only")


def test_a_canary_predicts_its_rows_and_says_which(client, name, models):
    canary = epochd.Canary(version=models[1].resource_name, percent=30.0)
    assert models[0].set_alias("best", canary=canary).canaries == {"best": canary}
    prediction = client.predict(f"{name}@best", X)
    whole = [model.predict(X) for model in models]
    said = np.flatnonzero(prediction == whole[1])
    assert 0 < len(said) < 40
    expected = whole[0].copy()
    expected[said] = whole[1][said]
    np.testing.assert_array_equal(prediction, expected)
    one = client.predict(f"{name}@best", X, routing_key="customer-1")
    assert one.tolist() in [values.tolist() for values in whole]


def test_classifiers_say_which_rows_a_canary_predicted(client, name):
    labels = np.where(Y > 0, "yes", "no")
    made = [
        client.train(
            X,
            labels,
            model=epochd.Linear(),
            loss="cross_entropy",
            optimizer=epochd.SGD(lr=0.1),
            epochs=n,
            name=name,
        ).result()
        for n in (1, 2)
    ]
    made[0].set_alias("best", canary=epochd.Canary(version=made[1].resource_name, percent=40.0))
    prediction = client.predict(f"{name}@best", X, probabilities=True)
    assert (prediction.model_version, prediction.canary_version) == tuple(m.resource_name for m in made)
    theirs = made[1].predict_proba(X)[prediction.canary_rows]
    np.testing.assert_array_equal(prediction.probabilities[prediction.canary_rows], theirs)


def test_two_versions_are_compared(client, models):
    comparison = client.diff(models[0].resource_name, models[1].resource_name)
    assert (comparison["epochs"].base, comparison["epochs"].other) == (1, 2)
    assert comparison["final_loss"].base == models[0].final_loss
    assert not comparison["gradient.epochs"].same
    with pytest.raises(KeyError):
        comparison["seed.nobody"]
    lines = str(models[0].diff(models[1])).splitlines()
    assert lines[0].split() == [model.resource_name.removeprefix("models/") for model in models]
    assert any(line.split() == ["epochs", "1", "2"] for line in lines)


def test_files_give_what_predict_gives_and_come_back_bit_by_bit(client, name, models, tmp_path):
    expected = models[1].predict(X)
    models[1].export(tmp_path / "m.onnx")
    values = onnxruntime.InferenceSession((tmp_path / "m.onnx").read_bytes()).run(
        ["values"], {"features": X}
    )[0]
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-6)
    models[1].export(tmp_path / "m.json")
    card = json.loads((tmp_path / "m.json").read_text())
    assert card["version"]["name"] == models[1].resource_name
    models[1].export(tmp_path / "m.bin", format="safetensors")
    tensors = safetensors.numpy.load_file(tmp_path / "m.bin")
    np.testing.assert_array_equal(tensors["linear.weight"], models[1].parameters()["linear.weight"])
    back = client.import_model(tmp_path / "m.bin", f"{name}-back", labels={"from": "file"})
    assert back.predict(X).tobytes() == expected.tobytes()
    assert back.labels == {"from": "file"}
    assert (back.lineage.parent, back.lineage.parent_kind) == (models[1].resource_name, "IMPORT")
    assert f"imported  {models[1].resource_name}" in str(back)


def test_a_file_without_a_known_suffix_needs_a_format(models, tmp_path):
    with pytest.raises(epochd.InvalidArgument, match="give format"):
        models[0].export(tmp_path / "m.bin")


def test_a_damaged_file_is_refused(client, models, tmp_path):
    path = tmp_path / "m.safetensors"
    models[0].export(path)
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(epochd.DataLoss, match="digest"):
        client.import_model(path)


def test_training_goes_on_from_a_version(client, name):
    begun = train(client, name, 2, dtype="float64")
    continued = train(client, name, 3, initial=begun, dtype="float64")
    longer = train(client, name, 5, dtype="float64").parameters()
    assert continued.parameters()["linear.weight"].tobytes() == longer["linear.weight"].tobytes()
    lineage = continued.lineage
    assert (lineage.parent, lineage.parent_kind) == (begun.resource_name, "WARM_START")


def test_a_table_may_keep_targets_and_weights(client):
    frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "y": Y, "w": np.ones(40)})
    model = client.train(
        frame, target="y", weight="w", model=epochd.Linear(), optimizer=epochd.SGD(lr=0.1), epochs=3
    ).result()
    assert model.weight == "w"
    assert client.predict(model.resource_name, frame).tobytes() == model.predict(frame).tobytes()


def test_a_fleet_and_its_members_leave_and_return(client, name, tmp_path):
    frame = pd.DataFrame({"store": ["a"] * 20 + ["b"] * 20, "x": X[:, 0], "y": Y})
    options = {"model": epochd.Linear(), "optimizer": epochd.SGD(lr=0.1), "epochs": 3}
    fleet = client.train(frame, target="y", group_by="store", **options).result()
    expected = fleet.predict(frame)
    fleet.export(tmp_path / "fleet.safetensors")
    back = client.import_model(tmp_path / "fleet.safetensors", name)
    assert isinstance(back, epochd.Fleet)
    assert back.predict(frame).tobytes() == expected.tobytes()
    fleet.member("b").export(tmp_path / "b.safetensors")
    one = client.import_model(tmp_path / "b.safetensors", name)
    assert one.predict(frame[["x"]][20:]).tobytes() == expected[20:].tobytes()
    fleet.export(tmp_path / "fleet.onnx")
    session = onnxruntime.InferenceSession((tmp_path / "fleet.onnx").read_bytes())
    inputs = {"features": X[:, :1], "member": np.repeat(np.int64([0, 1]), 20)}
    np.testing.assert_allclose(session.run(["values"], inputs)[0], expected, rtol=1e-6, atol=1e-6)


def test_the_asyncio_client_does_the_same(server, name, tmp_path):
    async def use():
        async with epochd.aio.connect(server.address) as client:
            made = []
            for epochs in (1, 2):
                run = await client.train(
                    X, Y, model=epochd.Linear(init="zeros"), optimizer=epochd.SGD(lr=0.1), epochs=epochs, name=name,
                    labels={"epochs": str(epochs)},
                )  # fmt: skip
                made.append(await run.result())
            for model in made:
                await model.set_alias("best")
            assert (await client.rollback(f"{name}@best")).aliases == {"best": made[0].resource_name}
            assert len(await client.alias_moves(f"{name}@best")) == 3
            assert (await client.diff(name, made[0].resource_name))["epochs"].base == 2
            assert (await made[0].diff(made[1]))["epochs"].base == 1
            assert [found.version async for found in client.versions(name, labels={"epochs": "1"})] == [1]
            assert await client.label(name, {"a": "b"}) == {"a": "b"}
            assert await made[0].label(remove=["epochs"]) == {}
            await made[1].export(tmp_path / "m.safetensors")
            back = await client.import_model(tmp_path / "m.safetensors", f"{name}-back")
            assert (await back.predict(X)).tobytes() == (await made[1].predict(X)).tobytes()
            canary = epochd.Canary(version=made[1].resource_name, percent=10.0)
            registered = await made[0].set_alias("best", canary=canary)
            assert registered.canaries == {"best": canary}
            await made[0].delete_alias("best", etag=registered.etags["best"])

    asyncio.run(use())
