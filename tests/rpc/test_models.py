"""The Models service over real sockets."""

from __future__ import annotations

import uuid

import numpy as np
import pytest
import safetensors.numpy

from epochd.v1 import models_pb2 as pb
from epochd.v1 import spec_pb2, trainer_pb2


@pytest.fixture
async def model(api, linear) -> str:
    """A model with three versions."""
    name = f"registered-{uuid.uuid4().hex[:8]}"
    for seed in (1, 2, 3):
        await api.train(linear(model_name=name, seed=seed))
    return f"models/{name}"


async def test_a_model_shows_its_newest_version(api, model):
    shown = (await api.models.GetModel(pb.GetModelRequest(name=model))).model
    assert (shown.name, shown.latest_version) == (model, f"{model}/versions/3")
    assert shown.create_time.ToNanoseconds() < shown.update_time.ToNanoseconds()


async def test_a_version_is_found_in_three_ways(api, model):
    await api.models.SetAlias(pb.SetAliasRequest(model=model, alias="best", version=f"{model}/versions/2"))
    found = {
        name: (await api.models.GetVersion(pb.GetVersionRequest(name=name))).version.name
        for name in (model, f"{model}/versions/1", f"{model}@best")
    }
    numbers = [int(name.rpartition("/")[2]) for name in found.values()]
    assert numbers == [3, 1, 2]


async def test_a_version_tells_how_it_was_trained(api, model):
    version = (await api.models.GetVersion(pb.GetVersionRequest(name=f"{model}/versions/2"))).version
    assert (version.seed, version.rows, version.epochs, version.parameters) == (2, 3, 20, 2)
    assert version.model.linear.in_features == 1
    assert version.run.startswith("runs/")


async def test_versions_are_listed_newest_first_page_by_page(api, model):
    first = await api.models.ListVersions(pb.ListVersionsRequest(model=model, page_size=2))
    token = first.next_page_token
    second = await api.models.ListVersions(pb.ListVersionsRequest(model=model, page_size=2, page_token=token))
    listed = [version.name for page in (first, second) for version in page.versions]
    assert listed == [f"{model}/versions/{number}" for number in (3, 2, 1)]
    assert second.next_page_token == ""


async def test_models_are_listed_by_name_page_by_page(api, model):
    listed, token = [], ""
    while True:
        page = await api.models.ListModels(pb.ListModelsRequest(page_size=2, page_token=token))
        listed += [shown.name for shown in page.models]
        token = page.next_page_token
        if not token:
            break
    assert listed == sorted(listed)
    assert model in listed


async def test_parameters_are_those_of_the_last_epoch(api, linear, array):
    logging = spec_pb2.Logging(every=1, parameters=True)
    events = await api.train(linear(logging=logging))
    name = events[-1].succeeded.model_version
    answer = await api.models.GetParameters(pb.GetParametersRequest(name=name))
    assert answer.parameters == events[-2].epoch_log.parameters
    assert [p.name for p in answer.parameters] == ["linear.weight", "linear.bias"]


async def test_an_export_is_a_safetensors_file_of_the_parameters(api, model, array):
    chunks = [m.data async for m in api.models.ExportVersion(pb.ExportVersionRequest(name=model))]
    exported = safetensors.numpy.load(b"".join(chunks))
    answer = await api.models.GetParameters(pb.GetParametersRequest(name=model))
    assert set(exported) == {p.name for p in answer.parameters}
    for parameter in answer.parameters:
        np.testing.assert_array_equal(exported[parameter.name], array(parameter.tensor))


async def test_parameters_over_a_message_are_refused_and_exported_instead(api, linear):
    layers = [
        spec_pb2.LayerSpec(linear=spec_pb2.LinearSpec(out_features=600_000)),
        spec_pb2.LayerSpec(linear=spec_pb2.LinearSpec()),
    ]
    spec = spec_pb2.ModelSpec(sequential=spec_pb2.SequentialSpec(layers=layers))
    events = await api.train(linear(model=spec, epochs=1))
    name = events[-1].succeeded.model_version
    refusal = await api.refused(api.models.GetParameters(pb.GetParametersRequest(name=name)))
    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")
    chunks = [m.data async for m in api.models.ExportVersion(pb.ExportVersionRequest(name=name))]
    assert max(map(len, chunks)) <= 2**20
    exported = safetensors.numpy.load(b"".join(chunks))
    assert exported["0.weight"].shape == (600_000, 1)


async def test_an_alias_moves_and_predict_follows(api, model, tensor):
    for number in (1, 2):
        version = f"{model}/versions/{number}"
        answer = await api.models.SetAlias(pb.SetAliasRequest(model=model, alias="best", version=version))
        assert [(a.alias, a.version) for a in answer.model.aliases] == [("best", version)]
        request = trainer_pb2.PredictRequest(model=f"{model}@best", tensor=tensor([[1.0]]))
        assert (await api.trainer.Predict(request)).model_version == version


async def test_an_alias_keeps_its_version_from_being_deleted(api, model):
    version = f"{model}/versions/2"
    await api.models.SetAlias(pb.SetAliasRequest(model=model, alias="best", version=version))
    refusal = await api.refused(api.models.DeleteVersion(pb.DeleteVersionRequest(name=version)))
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "ALIAS_IN_USE")
    answer = await api.models.DeleteAlias(pb.DeleteAliasRequest(model=model, alias="best"))
    assert not answer.model.aliases
    await api.models.DeleteVersion(pb.DeleteVersionRequest(name=version))
    refusal = await api.refused(api.models.GetVersion(pb.GetVersionRequest(name=version)))
    assert (refusal.code, refusal.reason) == ("NOT_FOUND", "VERSION_NOT_FOUND")


async def test_a_deleted_model_is_gone_with_all_its_versions(api, model, tensor):
    await api.trainer.Predict(trainer_pb2.PredictRequest(model=model, tensor=tensor([[1.0]])))
    await api.models.DeleteModel(pb.DeleteModelRequest(name=model))
    refusal = await api.refused(api.models.GetModel(pb.GetModelRequest(name=model)))
    assert refusal.reason == "MODEL_NOT_FOUND"
    request = trainer_pb2.PredictRequest(model=model, tensor=tensor([[1.0]]))
    assert (await api.refused(api.trainer.Predict(request))).reason == "MODEL_NOT_FOUND"


async def test_everything_wrong_with_an_alias_is_told_at_once(api):
    request = pb.SetAliasRequest(model="nobody", alias="No Name", version="models/b/versions/x")
    refusal = await api.refused(api.models.SetAlias(request))
    assert set(refusal.fields) == {"model", "alias", "version"}


async def test_an_alias_points_at_a_version_of_its_own_model(api, model):
    request = pb.SetAliasRequest(model=model, alias="best", version="models/other/versions/1")
    assert set((await api.refused(api.models.SetAlias(request))).fields) == {"version"}


NOT_THERE = {
    "GetModel": (lambda api: api.models.GetModel(pb.GetModelRequest(name="models/nobody")), "MODEL"),
    "DeleteModel": (lambda api: api.models.DeleteModel(pb.DeleteModelRequest(name="models/nobody")), "MODEL"),
    "ListVersions": (
        lambda api: api.models.ListVersions(pb.ListVersionsRequest(model="models/nobody")),
        "MODEL",
    ),
    "GetParameters": (
        lambda api: api.models.GetParameters(pb.GetParametersRequest(name="models/nobody")),
        "MODEL",
    ),
    "SetAlias": (
        lambda api: api.models.SetAlias(
            pb.SetAliasRequest(model="models/nobody", alias="a", version="models/nobody/versions/1")
        ),
        "MODEL",
    ),
    "ExportVersion": (
        lambda api: drain(api.models.ExportVersion(pb.ExportVersionRequest(name="models/nobody"))),
        "MODEL",
    ),
}


async def drain(stream) -> None:
    async for _ in stream:
        pass


@pytest.mark.parametrize("method", NOT_THERE)
async def test_what_is_not_there_is_not_found(api, method):
    call, what = NOT_THERE[method]
    refusal = await api.refused(call(api))
    assert (refusal.code, refusal.reason) == ("NOT_FOUND", f"{what}_NOT_FOUND")


@pytest.mark.parametrize("name", ["", "house", "models/House", "models/a/versions/0", "models/a@B"])
async def test_a_malformed_name_is_invalid(api, name):
    refusal = await api.refused(api.models.GetVersion(pb.GetVersionRequest(name=name)))
    assert set(refusal.fields) == {"name"}
