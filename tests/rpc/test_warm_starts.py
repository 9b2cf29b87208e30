"""Trainings that continue a version, over real sockets."""

from __future__ import annotations

import uuid

import numpy as np
import pytest

from epochd.v1 import fits_pb2, run_pb2, spec_pb2, tensor_pb2, trainer_pb2
from epochd.v1 import models_pb2 as pb


@pytest.fixture
def name() -> str:
    return f"warm-{uuid.uuid4().hex[:8]}"


async def trained(api, request) -> str:
    return (await api.train(request))[-1].succeeded.model_version


async def parameters(api, version) -> list[bytes]:
    answer = await api.models.GetParameters(pb.GetParametersRequest(name=version))
    return [parameter.tensor.data for parameter in answer.parameters]


def fleet_request(linear, stores, **fields):
    rows = {store: ([1.0, 2.0, 3.0], [2.0 + n, 4.0, 6.0 - n]) for n, store in enumerate(stores)}
    columns = {
        "x": tensor_pb2.Numbers(values=[x for xs, _ in rows.values() for x in xs]),
        "y": tensor_pb2.Numbers(values=[y for _, ys in rows.values() for y in ys]),
    }
    table = tensor_pb2.Table(
        columns=[
            tensor_pb2.Column(name="store", strings=tensor_pb2.Strings(values=np.repeat(stores, 3).tolist())),
            *(tensor_pb2.Column(name=name, numbers=values) for name, values in columns.items()),
        ]
    )
    data = spec_pb2.TrainingData(table=table, target_columns=["y"], group_columns=["store"])
    model = spec_pb2.ModelSpec(linear=spec_pb2.LinearSpec())
    return linear(data=data, model=model, **fields)


async def test_continuing_is_training_longer_bit_by_bit(api, linear, name):
    double = {"dtype": tensor_pb2.DATA_TYPE_FLOAT64}
    first = await trained(api, linear(epochs=30, model_name=name, **double))
    continued = await trained(api, linear(epochs=20, initial_version=f"models/{name}", **double))
    longer = await trained(api, linear(epochs=50, **double))
    assert await parameters(api, continued) == await parameters(api, longer)
    lineage = (await api.models.GetVersion(pb.GetVersionRequest(name=continued))).version.lineage
    assert (lineage.parent, lineage.parent_kind) == (first, run_pb2.PARENT_KIND_WARM_START)


async def test_a_fleet_continues_each_member_by_its_key_and_new_ones_start_afresh(api, linear):
    double = {"dtype": tensor_pb2.DATA_TYPE_FLOAT64}
    first = await trained(api, fleet_request(linear, ["a", "c"], epochs=30, **double))
    request = fleet_request(linear, ["a", "b", "c"], epochs=20, initial_version=first, **double)
    for column in request.data.table.columns:  # the same rows for a and c as before
        if column.name == "y":
            column.numbers.values[:] = [2, 4, 6, 9, 9, 9, 3, 4, 5]
    continued = await trained(api, request)
    longer = await trained(api, fleet_request(linear, ["a", "c"], epochs=50, **double))
    weights = {
        version: np.frombuffer((await parameters(api, version))[0], np.float64)
        for version in (continued, longer)
    }
    assert weights[continued][[0, 2]].tolist() == weights[longer].tolist()
    request.ClearField("initial_version")
    afresh = np.frombuffer((await parameters(api, await trained(api, request)))[0], np.float64)
    assert weights[continued][1] == afresh[1]


async def test_a_single_model_starts_every_member_and_every_combination(api, linear):
    single = await trained(api, linear(epochs=30))
    sweep = spec_pb2.Sweep(lr=[0.001, 0.01])
    swept = await trained(api, linear(epochs=20, sweep=sweep, initial_version=single))
    alone = await trained(api, linear(epochs=20, initial_version=single))
    weights = np.frombuffer((await parameters(api, swept))[0], np.float32)
    assert weights[1:].tobytes() == (await parameters(api, alone))[0]
    fleet = await trained(api, fleet_request(linear, ["a", "b"], epochs=1, initial_version=single))
    started = np.frombuffer((await parameters(api, single))[0], np.float32)[0]
    moved = np.frombuffer((await parameters(api, fleet))[0], np.float32)
    assert np.abs(moved - started).max() < 0.2


async def test_what_does_not_fit_is_refused_with_all_reasons(api, linear):
    fleet = await trained(api, fleet_request(linear, ["a", "b"]))
    wide = linear([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]], initial_version=fleet)
    refusal = await api.refused(api.trainer.Train(wide).read())
    assert set(refusal.fields) == {"initial_version"}
    assert "promote" in refusal.message
    assert "same model" in refusal.message
    missing = linear(initial_version="models/nobody")
    refusal = await api.refused(api.trainer.Train(missing).read())
    assert (refusal.code, refusal.reason) == ("NOT_FOUND", "MODEL_NOT_FOUND")
    malformed = linear(initial_version="nobody", epochs=0)
    refusal = await api.refused(api.trainer.Train(malformed).read())
    assert {"initial_version", "gradient.epochs"} <= set(refusal.fields)


async def test_an_alias_is_resolved_when_the_run_is_accepted(api, linear, name):
    for _ in range(2):
        await trained(api, linear(model_name=name))
    alias = pb.SetAliasRequest(model=f"models/{name}", alias="best", version=f"models/{name}/versions/1")
    await api.models.SetAlias(alias)
    events = await api.train(linear(initial_version=f"models/{name}@best"))
    started = next(event.started for event in events if event.HasField("started"))
    assert started.lineage.parent == f"models/{name}/versions/1"


async def test_only_gradient_fits_begin_anywhere(api, linear):
    version = await trained(api, linear())
    request = linear(initial_version=version)
    exact = trainer_pb2.TrainRequest()
    exact.CopyFrom(request)
    exact.least_squares.CopyFrom(fits_pb2.LeastSquaresFit())
    refusal = await api.refused(api.trainer.Train(exact).read())
    assert "gradient fits" in refusal.fields["initial_version"]
