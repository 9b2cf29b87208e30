"""Exports and imports over real sockets, between two servers."""

from __future__ import annotations

import hashlib
import io
import json

import numpy as np
import onnxruntime
import pytest
import torch

from epochd.v1 import models_pb2 as pb
from epochd.v1 import run_pb2, spec_pb2, tensor_pb2, trainer_pb2

ROWS = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)


@pytest.fixture
async def version(api, linear, tensor) -> str:
    """A classifier of three classes with a hidden layer."""
    x = np.random.default_rng(1).normal(size=(30, 2))
    labels = tensor(np.arange(30) % 3, "int64")
    layers = [
        spec_pb2.LayerSpec(linear=spec_pb2.LinearSpec(out_features=4)),
        spec_pb2.LayerSpec(activation=spec_pb2.ActivationSpec(function=1)),
        spec_pb2.LayerSpec(linear=spec_pb2.LinearSpec()),
    ]
    request = linear(
        data=spec_pb2.TrainingData(tensors=spec_pb2.TensorData(features=tensor(x), targets=labels)),
        model=spec_pb2.ModelSpec(sequential=spec_pb2.SequentialSpec(layers=layers)),
        loss=spec_pb2.Loss(cross_entropy=spec_pb2.CrossEntropyLoss()),
        labels={"team": "blue"},
    )
    return (await api.train(request))[-1].succeeded.model_version


async def exported(api, name, form=pb.EXPORT_FORMAT_SAFETENSORS, **fields) -> bytes:
    request = pb.ExportVersionRequest(name=name, format=form, **fields)
    return b"".join([message.data async for message in api.models.ExportVersion(request)])


async def imported(api, file: bytes, **fields) -> pb.ModelVersion:
    header = {"sha256": hashlib.sha256(file).hexdigest(), "size_bytes": len(file), **fields}
    parts = [file[start : start + 1_000] for start in range(0, len(file), 1_000)]
    messages = [pb.ImportVersionRequest(header=pb.ImportHeader(**header))]
    messages += [pb.ImportVersionRequest(data=part) for part in parts]
    return (await api.models.ImportVersion(iter(messages))).version


async def predicted(api, name, tensor) -> trainer_pb2.PredictResponse:
    request = trainer_pb2.PredictRequest(model=name, tensor=tensor(ROWS), probabilities=True, logits=True)
    return await api.trainer.Predict(request)


async def test_a_version_moves_to_another_server_bit_by_bit(api, version, tensor, start_server, connect):
    before = await predicted(api, version, tensor)
    file = await exported(api, version)
    async with connect(start_server().address) as other:
        there = await imported(other, file, model_name="moved", labels={"stage": "test"})
        after = await predicted(other, there.name, tensor)
        assert there.name == "models/moved/versions/1"
        assert (there.lineage.parent, there.lineage.parent_kind) == (version, run_pb2.PARENT_KIND_IMPORT)
        assert dict(there.labels) == {"team": "blue", "stage": "test"}
        again = await imported(other, await exported(other, there.name))
        assert again.name == "models/moved/versions/2"
        assert again.lineage.parent == there.name
        assert again.weights_digest == there.weights_digest
    assert (after.logits, after.probabilities, after.labels) == (
        before.logits,
        before.probabilities,
        before.labels,
    )


async def test_a_fleet_moves_with_its_members(api, linear, tensor):
    table = tensor_pb2.Table(
        columns=[
            tensor_pb2.Column(name="store", strings=tensor_pb2.Strings(values=["a", "a", "b", "b"])),
            tensor_pb2.Column(name="x", numbers=tensor_pb2.Numbers(values=[1, 2, 1, 2])),
            tensor_pb2.Column(name="y", numbers=tensor_pb2.Numbers(values=[2, 4, 3, 6])),
        ]
    )
    data = spec_pb2.TrainingData(table=table, target_columns=["y"], group_columns=["store"])
    fleet = (await api.train(linear(data=data)))[-1].succeeded.model_version
    there = await imported(api, await exported(api, fleet), model_name="moved-fleet")
    answers = [
        await api.trainer.Predict(trainer_pb2.PredictRequest(model=name, table=table))
        for name in (fleet, there.name)
    ]
    assert answers[0].values == answers[1].values
    members = [await api.models.ListMembers(pb.ListMembersRequest(name=name)) for name in (fleet, there.name)]
    assert members[0].members == members[1].members
    key = spec_pb2.MemberKey(values=[spec_pb2.KeyValue(text="b")])
    one = await imported(api, await exported(api, fleet, member=key), model_name="moved-member")
    alone = trainer_pb2.PredictRequest(model=one.name, tensor=tensor([[1.0], [2.0]]))
    values = np.frombuffer((await api.trainer.Predict(alone)).values.data, np.float32)
    assert values.tolist() == np.frombuffer(answers[0].values.data, np.float32)[2:].tolist()
    refusal = await api.refused(exported(api, fleet, pb.EXPORT_FORMAT_PT2))
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "EXPORT_NOT_POSSIBLE")


async def test_a_repeated_import_makes_one_version(api, version):
    file = await exported(api, version)
    made = [await imported(api, file, model_name="once", request_id="import-once") for _ in range(2)]
    assert made[0] == made[1]
    refusal = await api.refused(imported(api, file, model_name="other", request_id="import-once"))
    assert refusal.reason == "REQUEST_ID_REUSED"


async def test_files_that_are_not_as_announced_are_data_loss(api, version):
    file = await exported(api, version)
    for fields in ({"sha256": "0" * 64}, {"size_bytes": len(file) + 1}):
        refusal = await api.refused(imported(api, file, **fields))
        assert (refusal.code, refusal.reason) == ("DATA_LOSS", "DIGEST_MISMATCH")
    refusal = await api.refused(imported(api, file, size_bytes=len(file) - 1))
    assert "data" in refusal.fields
    refusal = await api.refused(
        imported(api, file, sha256="x", size_bytes=0, model_name="Bad", request_id="-")
    )
    assert set(refusal.fields) == {
        f"header.{name}" for name in ("sha256", "size_bytes", "model_name", "request_id")
    }


async def test_a_card_is_json(api, version):
    card = json.loads(await exported(api, version, pb.EXPORT_FORMAT_CARD))
    assert card["version"]["name"] == version
    assert card["version"]["labels"] == {"team": "blue"}


async def test_onnx_and_pt2_give_what_predict_gives(api, version, tensor, array):
    answer = await predicted(api, version, tensor)
    session = onnxruntime.InferenceSession(await exported(api, version, pb.EXPORT_FORMAT_ONNX))
    logits, probabilities, labels = session.run(["logits", "probabilities", "labels"], {"features": ROWS})
    np.testing.assert_allclose(logits, array(answer.logits), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(probabilities, array(answer.probabilities), rtol=1e-6, atol=1e-6)
    assert labels.tolist() == list(answer.labels.integers.values)
    program = torch.export.load(io.BytesIO(await exported(api, version, pb.EXPORT_FORMAT_PT2)))
    outputs = program.module()(torch.from_numpy(ROWS)).detach().numpy()
    np.testing.assert_allclose(outputs, array(answer.logits), rtol=1e-6, atol=1e-6)


async def test_a_member_of_a_single_model_cannot_be_exported(api, version):
    key = spec_pb2.MemberKey(values=[spec_pb2.KeyValue(text="b")])
    refusal = await api.refused(exported(api, version, member=key))
    assert "name" in refusal.fields
    assert set((await api.refused(exported(api, version, 99))).fields) == {"format"}
