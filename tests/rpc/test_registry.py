"""Labels, etags, canaries, lineage and comparisons over real sockets."""

from __future__ import annotations

import hashlib
import platform
import uuid

import numpy as np
import pytest
import torch

from epochd.v1 import models_pb2 as pb
from epochd.v1 import run_pb2, runs_pb2, spec_pb2, tensor_pb2, trainer_pb2


@pytest.fixture
async def model(api, linear) -> str:
    """A model with two versions of other seeds, labelled."""
    name = f"labelled-{uuid.uuid4().hex[:8]}"
    for seed in (1, 2):
        await api.train(linear(model_name=name, seed=seed, labels={"seed": str(seed), "team": "blue"}))
    return f"models/{name}"


async def version_of(api, name):
    return (await api.models.GetVersion(pb.GetVersionRequest(name=name))).version


async def test_labels_go_from_the_request_to_run_and_version_and_lists_find_them(api, model):
    listed = await api.models.ListVersions(pb.ListVersionsRequest(model=model, labels={"seed": "1"}))
    assert [version.name for version in listed.versions] == [f"{model}/versions/1"]
    assert dict(listed.versions[0].labels) == {"seed": "1", "team": "blue"}
    runs = await api.runs.ListRuns(runs_pb2.ListRunsRequest(model=model, labels={"seed": "2"}))
    assert [run.labels["team"] for run in runs.runs] == ["blue"]


async def test_labels_of_a_model_a_version_and_a_run_are_updated(api, model):
    for name in (model, f"{model}/versions/1"):
        request = pb.UpdateLabelsRequest(name=name, labels={"stage": "live"}, removed=["team"])
        assert (await api.models.UpdateLabels(request)).labels["stage"] == "live"
    found = await api.models.ListModels(pb.ListModelsRequest(labels={"stage": "live"}))
    assert [shown.name for shown in found.models] == [model]
    run = (await version_of(api, model)).run
    changed = runs_pb2.UpdateRunLabelsRequest(name=run, removed=["seed"])
    assert dict((await api.runs.UpdateRunLabels(changed)).run.labels) == {"team": "blue"}


async def test_labels_that_cannot_be_are_all_named(api, model):
    request = pb.UpdateLabelsRequest(
        name=f"{model}@x", labels={"Upper": "a", "fine": "x" * 256}, removed=["fine", "1"]
    )
    refusal = await api.refused(api.models.UpdateLabels(request))
    assert set(refusal.fields) == {"labels['Upper']", "labels['fine']", "removed[0]", "removed[1]", "name"}


async def test_a_stale_etag_is_aborted(api, model):
    request = pb.SetAliasRequest(model=model, alias="best", version=f"{model}/versions/1", etag="absent")
    alias = (await api.models.SetAlias(request)).model.aliases[0]
    refusal = await api.refused(api.models.SetAlias(request))
    assert (refusal.code, refusal.reason) == ("ABORTED", "ETAG_MISMATCH")
    assert refusal.metadata["etag"] == alias.etag
    stale = pb.DeleteAliasRequest(model=model, alias="best", etag="other")
    assert (await api.refused(api.models.DeleteAlias(stale))).code == "ABORTED"


async def test_rolling_back_is_pointing_at_the_version_before(api, model):
    for number in (1, 2):
        version = f"{model}/versions/{number}"
        await api.models.SetAlias(pb.SetAliasRequest(model=model, alias="best", version=version))
    pages = [pb.ListAliasMovesRequest(model=model, alias="best", page_size=1)]
    first = await api.models.ListAliasMoves(pages[0])
    second = await api.models.ListAliasMoves(
        pb.ListAliasMovesRequest(model=model, alias="best", page_token=first.next_page_token)
    )
    moves = [*first.moves, *second.moves]
    assert [move.version for move in moves] == [f"{model}/versions/2", f"{model}/versions/1"]
    back = pb.SetAliasRequest(model=model, alias="best", version=moves[1].version)
    assert (await api.models.SetAlias(back)).model.aliases[0].version == f"{model}/versions/1"


async def test_a_canary_predicts_its_rows_and_is_named(api, model, tensor, array):
    canary = pb.Canary(version=f"{model}/versions/2", percent=40)
    request = pb.SetAliasRequest(model=model, alias="best", version=f"{model}/versions/1", canary=canary)
    assert (await api.models.SetAlias(request)).model.aliases[0].canary == canary
    rows = tensor(np.arange(50.0).reshape(50, 1))
    asked = trainer_pb2.PredictRequest(model=f"{model}@best", tensor=rows)
    answer = await api.trainer.Predict(asked)
    assert (answer.model_version, answer.canary_version) == (f"{model}/versions/1", f"{model}/versions/2")
    chosen = list(answer.canary_rows)
    assert 5 < len(chosen) < 40
    both = [
        await api.trainer.Predict(trainer_pb2.PredictRequest(model=f"{model}/versions/{n}", tensor=rows))
        for n in (1, 2)
    ]
    expected = array(both[0].values).copy()
    expected[chosen] = array(both[1].values)[chosen]
    np.testing.assert_array_equal(array(answer.values), expected)


async def test_a_canary_that_cannot_be_is_refused_with_all_faults(api, model):
    canary = pb.Canary(version=f"{model}/versions/1", percent=100)
    request = pb.SetAliasRequest(model=model, alias="best", version=f"{model}/versions/1", canary=canary)
    refusal = await api.refused(api.models.SetAlias(request))
    assert set(refusal.fields) == {"canary.version", "canary.percent"}


async def test_lineage_names_the_data_and_the_libraries(api, model, linear):
    lineage = (await version_of(api, model)).lineage
    rows = linear().data.tensors.SerializeToString(deterministic=True)
    assert (lineage.data_digest, lineage.dataset) == (hashlib.sha256(rows).hexdigest(), "")
    assert dict(lineage.libraries) == {
        "epochd": "0.1.0",
        "numpy": np.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    assert lineage.parent_kind == run_pb2.PARENT_KIND_UNSPECIFIED


async def test_two_versions_are_compared_results_first(api, model):
    request = pb.DiffVersionsRequest(base=f"{model}/versions/1", other=model)
    answer = await api.models.DiffVersions(request)
    fields = {field.field: field for field in answer.fields}
    assert answer.fields[0].field == "final_loss"
    assert fields["final_loss"].base.number == answer.base.final_loss
    assert fields["rows"].same
    assert (fields["seed"].base.number, fields["seed"].other.number) == (1, 2)
    assert (fields["labels.seed"].base.text, fields["labels.seed"].other.text) == ("1", "2")
    assert "labels.team" not in fields
    assert not {"name", "create_time", "run"} & set(fields)


async def test_a_table_to_predict_may_still_have_target_and_weights(api):
    columns = {"x": [1.0, 2, 3], "y": [2.0, 4, 6], "w": [1.0, 1, 2]}
    table = tensor_pb2.Table(
        columns=[
            tensor_pb2.Column(name=name, numbers=tensor_pb2.Numbers(values=values))
            for name, values in columns.items()
        ]
    )
    data = spec_pb2.TrainingData(table=table, target_columns=["y"], weight_column="w")
    fit = spec_pb2.GradientFit(optimizer=spec_pb2.Optimizer(sgd=spec_pb2.Sgd(lr=0.01)), epochs=1)
    request = trainer_pb2.TrainRequest(
        data=data,
        model=spec_pb2.ModelSpec(linear=spec_pb2.LinearSpec()),
        loss=spec_pb2.Loss(mse=spec_pb2.MseLoss()),
        gradient=fit,
    )
    name = (await api.train(request))[-1].succeeded.model_version
    assert (await version_of(api, name)).weight_column == "w"
    answer = await api.trainer.Predict(trainer_pb2.PredictRequest(model=name, table=table))
    assert list(answer.values.shape) == [3]
    other = tensor_pb2.Column(name="z", numbers=tensor_pb2.Numbers(values=[1, 2, 3]))
    table.columns.append(other)
    refusal = await api.refused(api.trainer.Predict(trainer_pb2.PredictRequest(model=name, table=table)))
    assert set(refusal.fields) == {"table.columns[3]"}
