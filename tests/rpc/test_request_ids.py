"""Every request that changes something is made once, over real sockets, through crashes too."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message import Message

from epochd.v1 import datasets_pb2, models_pb2, runs_pb2

READS = (
    "Get",
    "List",
    "Watch",
    "Describe",
    "Preview",
    "Diff",
    "Export",
    "Predict",
    "Activation",
    "Differentiate",
)
"""Beginnings of the methods that change nothing."""
BY_CONTENT = {"BeginUpload", "UploadDataset"}
"""Methods whose requests say what they are by the digest of the content: the same content is there once."""


def services() -> list[Any]:
    files = ("trainer", "runs", "models", "datasets")
    pool = descriptor_pool.Default()
    return [pool.FindServiceByName(f"epochd.v1.{name.title()}") for name in files]


@pytest.mark.parametrize("service", services(), ids=lambda service: service.name)
def test_every_method_that_changes_something_has_a_request_id(service) -> None:
    for method in service.methods:
        request = method.input_type
        if "header" in request.fields_by_name:
            request = request.fields_by_name["header"].message_type
        reads = method.name.startswith(READS) or method.name in BY_CONTENT
        assert ("request_id" in request.fields_by_name) != reads, method.name


class Scene:
    """A model with two versions, an alias and a run, and a dataset's file; and every call that changes them.

    Attributes:
        calls: What is called, by method, in an order in which all succeed.
        others: By method, a request that differs from that in ``calls``, and in which field.
    """

    def __init__(self, api: Any, name: str, runs: list[str]) -> None:
        self.api = api
        model, version = f"models/{name}", f"models/{name}/versions/1"
        self.model = model
        pb, runs_pb = models_pb2, runs_pb2
        self.calls: dict[str, Message] = {
            "UpdateRunLabels": runs_pb.UpdateRunLabelsRequest(name=runs[0], labels={"a": "b"}),
            "PauseRun": runs_pb.PauseRunRequest(name=runs[0]),
            "ResumeRun": runs_pb.ResumeRunRequest(name=runs[0]),
            "CancelRun": runs_pb.CancelRunRequest(name=runs[0]),
            "DeleteRun": runs_pb.DeleteRunRequest(name=runs[0]),
            "UpdateLabels": pb.UpdateLabelsRequest(name=version, labels={"a": "b"}),
            "SetAlias": pb.SetAliasRequest(model=model, alias="best", version=version, etag="absent"),
            "DeleteAlias": pb.DeleteAliasRequest(model=model, alias="best"),
            "DeleteVersion": pb.DeleteVersionRequest(name=version),
            "DeleteModel": pb.DeleteModelRequest(name=model),
        }
        self.others: dict[str, tuple[str, Callable[[Any], object]]] = {
            "UpdateRunLabels": ("labels['a']", lambda r: r.labels.update(a="c")),
            "PauseRun": ("name", lambda r: setattr(r, "name", runs[1])),
            "ResumeRun": ("name", lambda r: setattr(r, "name", runs[1])),
            "CancelRun": ("name", lambda r: setattr(r, "name", runs[1])),
            "DeleteRun": ("name", lambda r: setattr(r, "name", runs[1])),
            "UpdateLabels": ("removed", lambda r: r.removed.append("z")),
            "SetAlias": ("etag", lambda r: setattr(r, "etag", "")),
            "DeleteAlias": ("alias", lambda r: setattr(r, "alias", "other")),
            "DeleteVersion": ("name", lambda r: setattr(r, "name", f"{model}/versions/2")),
            "DeleteModel": ("name", lambda r: setattr(r, "name", f"{model}x")),
        }

    @classmethod
    async def make(cls, api: Any, linear: Any) -> Scene:
        """Trains it."""
        name = f"once-{uuid.uuid4().hex[:8]}"
        for seed in (1, 2):
            await api.train(linear(model_name=name, seed=seed))
        listed = await api.runs.ListRuns(runs_pb2.ListRunsRequest(model=f"models/{name}"))
        return cls(api, name, [run.name for run in listed.runs])

    def call(self, method: str, request: Message, api: Any = None) -> Awaitable[Any]:
        """Calls a method."""
        stubs = [(api or self.api).runs, (api or self.api).models, (api or self.api).datasets]
        return next(getattr(stub, method) for stub in stubs if hasattr(stub, method))(request)

    def request(self, method: str, prefix: str) -> Message:
        """A method's request with an id."""
        request = type(self.calls[method])()
        request.CopyFrom(self.calls[method])
        request.request_id = f"{prefix}-{method}"
        return request


@pytest.fixture
async def scene(api, linear) -> Scene:
    """On the shared server."""
    return await Scene.make(api, linear)


async def test_a_repeated_request_is_answered_as_the_first_was_and_changes_nothing(scene):
    prefix = uuid.uuid4().hex
    first = {name: await scene.call(name, scene.request(name, prefix)) for name in scene.calls}
    again = {name: await scene.call(name, scene.request(name, prefix)) for name in scene.calls}
    assert again == first
    assert first["SetAlias"].model.aliases[0].alias == "best"
    assert dict(first["UpdateLabels"].labels) == {"a": "b"}
    refusal = await scene.api.refused(scene.api.models.GetModel(models_pb2.GetModelRequest(name=scene.model)))
    assert refusal.reason == "MODEL_NOT_FOUND"


async def test_without_a_request_id_every_request_is_made(scene):
    await scene.call("DeleteRun", scene.calls["DeleteRun"])
    refusal = await scene.api.refused(scene.call("DeleteRun", scene.calls["DeleteRun"]))
    assert (refusal.code, refusal.reason) == ("NOT_FOUND", "RUN_NOT_FOUND")


async def test_another_request_with_the_id_is_refused_by_the_field_that_differs(scene):
    prefix = uuid.uuid4().hex
    for method in scene.calls:
        await scene.call(method, scene.request(method, prefix))
        other = scene.request(method, prefix)
        field, change = scene.others[method]
        change(other)
        refusal = await scene.api.refused(scene.call(method, other))
        assert (refusal.code, refusal.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
        assert refusal.metadata["field"] == field
        assert f": {field} differs." in refusal.message


async def test_an_id_of_another_method_is_refused_and_named(scene, api, linear):
    request_id = uuid.uuid4().hex
    await api.train(linear(request_id=request_id))
    request = models_pb2.DeleteModelRequest(name=scene.model, request_id=request_id)
    refusal = await api.refused(api.models.DeleteModel(request))
    assert (refusal.code, refusal.metadata["method"]) == ("ALREADY_EXISTS", "Train")
    assert (await api.models.GetModel(models_pb2.GetModelRequest(name=scene.model))).model.latest_version


async def test_a_malformed_id_is_told_with_all_else_that_is_wrong(api):
    for method, request in Scene(api, "m", ["runs/x", "runs/y"]).calls.items():
        empty = type(request)(request_id="a b")
        refusal = await api.refused(Scene(api, "m", ["", ""]).call(method, empty))
        assert refusal.code == "INVALID_ARGUMENT"
        assert {"request_id"} < set(refusal.fields)


async def test_a_request_that_failed_may_be_made_with_the_same_id(scene, api):
    version = f"{scene.model}/versions/2"
    move = models_pb2.SetAliasRequest(model=scene.model, alias="best", version=version)
    await api.models.SetAlias(move)
    delete = models_pb2.DeleteVersionRequest(name=version, request_id=uuid.uuid4().hex)
    assert (await api.refused(api.models.DeleteVersion(delete))).reason == "ALIAS_IN_USE"
    await api.models.DeleteAlias(models_pb2.DeleteAliasRequest(model=scene.model, alias="best"))
    for _ in range(2):
        assert await api.models.DeleteVersion(delete) == models_pb2.DeleteVersionResponse()


async def test_of_many_at_once_one_acts_and_all_get_its_answer(scene, api):
    delete = models_pb2.DeleteModelRequest(name=scene.model, request_id=uuid.uuid4().hex)
    answers = await asyncio.gather(*(api.models.DeleteModel(delete) for _ in range(30)))
    assert answers == [models_pb2.DeleteModelResponse()] * 30


async def test_a_repeated_cancellation_is_answered_as_the_first_was(api, endless):
    stream = api.trainer.Train(endless())
    run = (await anext(aiter(stream))).events[0].queued.run
    request = runs_pb2.CancelRunRequest(name=run, request_id=uuid.uuid4().hex)
    first = await api.runs.CancelRun(request)
    events = [event async for message in stream for event in message.events]
    assert events[-1].HasField("cancelled")
    assert await api.runs.CancelRun(request) == first
    request.name = "runs/" + "0" * 26
    assert (await api.refused(api.runs.CancelRun(request))).metadata["field"] == "name"


async def test_a_training_with_the_id_of_another_is_refused_by_the_field_that_differs(api, linear, tensor):
    request_id = uuid.uuid4().hex
    await api.train(linear(request_id=request_id))
    other = linear(request_id=request_id)
    other.data.tensors.targets.CopyFrom(tensor([2.0, 4.0, 7.0]))
    refusal = await api.refused(api.train(other))
    assert refusal.metadata["field"] == "data.tensors.targets.data"
    assert (await api.refused(api.train(linear(request_id=request_id, epochs=21)))).metadata["field"] == (
        "gradient.epochs"
    )


async def test_a_training_is_not_made_again_after_its_run_was_deleted(api, linear):
    request = linear(request_id=uuid.uuid4().hex)
    run = (await api.train(request))[0].queued.run
    await api.runs.DeleteRun(runs_pb2.DeleteRunRequest(name=run))
    refusal = await api.refused(api.train(request))
    assert (refusal.code, refusal.metadata["run"]) == ("NOT_FOUND", run)


async def test_everything_is_remembered_by_a_server_that_was_killed(start_server, connect, linear, tmp_path):
    (tmp_path / "files").mkdir()
    file = tmp_path / "files" / "rows.csv"
    file.write_text("x,y\n1,2\n2,4\n")
    flags = ("--data-root", str(tmp_path / "files"))
    server = start_server(*flags)
    load = datasets_pb2.ImportDatasetRequest(
        path=str(file), format=datasets_pb2.DATASET_FORMAT_CSV, request_id="import"
    )
    train = linear(model_name="other", request_id="train")
    async with connect(server.address) as api:
        scene = await Scene.make(api, linear)
        first = {name: await scene.call(name, scene.request(name, "r")) for name in scene.calls}
        trained = await api.train(train)
        dataset = (await api.datasets.ImportDataset(load)).dataset
    server.kill()
    file.write_text("x,y\n1,3\n")
    async with connect(start_server(*flags, data_dir=server.data_dir).address) as api:
        again = {name: await scene.call(name, scene.request(name, "r"), api) for name in scene.calls}
        assert again == first
        assert await api.train(train) == trained
        assert (await api.datasets.ImportDataset(load)).dataset == dataset
        delete = datasets_pb2.DeleteDatasetRequest(name=dataset.name, request_id="delete")
        assert [await api.datasets.DeleteDataset(delete) for _ in range(2)]
        load.path += "x"
        assert (await api.refused(api.datasets.ImportDataset(load))).metadata["field"] == "path"
        versions = await api.models.ListVersions(models_pb2.ListVersionsRequest(model="models/other"))
        assert len(versions.versions) == 1
