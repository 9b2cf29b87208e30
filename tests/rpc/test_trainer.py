"""Trainer.Train and Trainer.Predict over real sockets."""

from __future__ import annotations

import asyncio
import uuid

import grpc
import numpy as np
import pytest

from epochd.v1 import run_pb2, runs_pb2, spec_pb2, tensor_pb2, trainer_pb2

KINDS = ("queued", "started", "epoch_log", "succeeded")


def kinds(events: list[run_pb2.Event]) -> list[str]:
    return [event.WhichOneof("kind") for event in events]


async def test_a_training_streams_its_whole_log_numbered_from_one(api, linear):
    events = await api.train(linear(epochs=20))
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert kinds(events) == ["queued", "started", *["epoch_log"] * 10, "succeeded"]
    assert [e.epoch_log.epoch for e in events[2:-1]] == [*range(0, 20, 2)]
    assert events[-1].succeeded.model_version.startswith(events[0].queued.model)


async def test_the_start_reports_everything_that_was_left_open(api, linear):
    request = linear(model=spec_pb2.ModelSpec(linear=spec_pb2.LinearSpec()))
    request.ClearField("seed")
    started = (await api.train(request))[1].started
    assert (started.model.linear.in_features, started.model.linear.out_features) == (1, 1)
    assert (started.rows, started.parameters, started.batch_size, started.epochs) == (3, 2, 3, 20)
    assert list(started.feature_columns) == ["x0"]
    assert started.device == "cpu"


async def test_the_tutorials_last_line_is_the_plain_loops(api, linear, array):
    """W 1.997, b 0.008 and cost 0.000008 at epoch 1900, as PyTorch's own loop prints."""
    logging = spec_pb2.Logging(every=100, parameters=True)
    events = await api.train(linear(epochs=2000, logging=logging))
    log = next(e.epoch_log for e in events if e.epoch_log.epoch == 1900)
    weight, bias = (array(p.tensor).item() for p in log.parameters)
    assert f"{weight:.3f} {bias:.3f} {log.loss:.6f}" == "1.997 0.008 0.000008"


async def test_validate_only_estimates_and_leaves_nothing_behind(api, linear):
    before = await api.runs.ListRuns(runs_pb2.ListRunsRequest(page_size=1))
    messages = [m async for m in api.trainer.Train(linear(epochs=20, validate_only=True))]
    (message,) = messages
    assert not message.events
    assert (message.estimate.steps, message.estimate.started.rows) == (20, 3)
    assert message.estimate.memory_bytes > 0
    assert await api.runs.ListRuns(runs_pb2.ListRunsRequest(page_size=1)) == before


async def test_everything_wrong_with_a_request_is_told_at_once(api, linear):
    request = linear(seed=-1, model_name="Not/A/Name", loss=spec_pb2.Loss())
    request.gradient.epochs = 0
    request.gradient.optimizer.sgd.lr = -1
    refusal = await api.refused(api.train(request))
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_FIELDS")
    assert set(refusal.fields) >= {"seed", "model_name", "gradient.epochs", "gradient.optimizer.sgd.lr"}
    assert any(field.startswith("loss") for field in refusal.fields)


async def test_after_a_refusal_the_next_request_on_the_channel_succeeds(api, linear):
    await api.refused(api.train(linear(seed=-1)))
    assert kinds(await api.train(linear()))[-1] == "succeeded"


async def test_a_repeated_request_id_attaches_from_the_first_event(api, linear):
    request = linear(request_id=str(uuid.uuid4()))
    first, second = await api.train(request), await api.train(request)
    assert second == first


async def test_simultaneous_requests_of_one_id_train_once(api, linear):
    request = linear(request_id=str(uuid.uuid4()), epochs=500)
    logs = await asyncio.gather(*(api.train(request) for _ in range(8)))
    assert {log[0].queued.run for log in logs} == {logs[0][0].queued.run}
    assert all(log == logs[0] for log in logs)


async def test_a_request_id_with_another_request_is_refused(api, linear):
    request_id = str(uuid.uuid4())
    await api.train(linear(request_id=request_id))
    refusal = await api.refused(api.train(linear(request_id=request_id, epochs=21)))
    assert (refusal.code, refusal.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")


async def test_a_client_that_leaves_does_not_stop_its_run(api, linear):
    call = api.trainer.Train(linear(epochs=200_000, logging=spec_pb2.Logging(every=10_000)))
    run = (await call.read()).events[0].queued.run
    call.cancel()
    events = await api.events(api.runs.WatchRun(runs_pb2.WatchRunRequest(run=run)))
    assert kinds(events)[-1] == "succeeded"
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))


async def test_a_loss_that_is_not_finite_fails_the_run_and_keeps_its_log(api, linear):
    request = linear(epochs=5_000, logging=spec_pb2.Logging(every=1))
    request.gradient.optimizer.sgd.lr = 1e6
    events = await api.train(request)
    failure = events[-1].failed
    assert failure.reason == "LOSS_NOT_FINITE"
    assert failure.hint
    assert failure.HasField("epoch")
    assert kinds(events)[:3] == ["queued", "started", "epoch_log"]


async def test_an_unregistered_module_is_not_found(api, linear):
    model = spec_pb2.ModelSpec(module=spec_pb2.ModuleSpec(name="NobodyRegisteredThis"))
    refusal = await api.refused(api.train(linear(model=model)))
    assert (refusal.code, refusal.reason) == ("NOT_FOUND", "MODULE_NOT_FOUND")


async def test_a_model_over_the_limit_is_refused(api, linear):
    layer = spec_pb2.LinearSpec(out_features=10**9)
    layers = [spec_pb2.LayerSpec(linear=layer), spec_pb2.LayerSpec(linear=spec_pb2.LinearSpec())]
    model = spec_pb2.ModelSpec(sequential=spec_pb2.SequentialSpec(layers=layers))
    refusal = await api.refused(api.train(linear(model=model)))
    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "MODEL_TOO_LARGE")


@pytest.fixture
async def house(api, linear) -> str:
    """A trained regression: models/house…, y = 2 x."""
    name = f"house-{uuid.uuid4().hex[:8]}"
    await api.train(linear(epochs=2000, model_name=name))
    return f"models/{name}"


async def test_predict_answers_by_model_version_and_tensor_row(api, house, tensor, array):
    rows = tensor([[4.0], [5.0]])
    response = await api.trainer.Predict(trainer_pb2.PredictRequest(model=house, tensor=rows))
    assert response.model_version == f"{house}/versions/1"
    np.testing.assert_allclose(array(response.values), [8, 10], atol=0.02)
    again = trainer_pb2.PredictRequest(model=response.model_version, tensor=rows)
    assert (await api.trainer.Predict(again)) == response


async def test_predict_takes_a_table_and_plain_numbers(api, house, array):
    column = tensor_pb2.Column(name="x0", numbers=tensor_pb2.Numbers(values=[4.0]))
    request = trainer_pb2.PredictRequest(model=house, table=tensor_pb2.Table(columns=[column]))
    response = await api.trainer.Predict(request)
    np.testing.assert_allclose(array(response.values), [8], atol=0.02)


async def test_columns_that_are_missing_or_too_many_are_named(api, house):
    column = tensor_pb2.Column(name="price", numbers=tensor_pb2.Numbers(values=[4.0]))
    request = trainer_pb2.PredictRequest(model=house, table=tensor_pb2.Table(columns=[column]))
    refusal = await api.refused(api.trainer.Predict(request))
    assert refusal.code == "INVALID_ARGUMENT"
    assert "x0" in refusal.message
    assert "price" in refusal.message


async def test_predict_with_a_model_that_is_not_there(api, tensor):
    request = trainer_pb2.PredictRequest(model="models/nobody", tensor=tensor([[1.0]]))
    refusal = await api.refused(api.trainer.Predict(request))
    assert (refusal.code, refusal.reason) == ("NOT_FOUND", "MODEL_NOT_FOUND")


async def test_predict_with_a_malformed_name_and_no_rows_names_both(api):
    refusal = await api.refused(api.trainer.Predict(trainer_pb2.PredictRequest(model="nobody")))
    assert set(refusal.fields) == {"model", "rows"}


async def test_a_message_over_four_mebibytes_is_refused_by_grpc_and_the_channel_goes_on(api, house, tensor):
    request = trainer_pb2.PredictRequest(model=house, tensor=tensor(np.zeros((2_000_000, 1))))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await api.trainer.Predict(request)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await api.trainer.Predict(trainer_pb2.PredictRequest(model=house, tensor=tensor([[1.0]])))


async def test_classes_come_back_as_labels_with_probabilities(api, array):
    columns = [
        tensor_pb2.Column(name="size", numbers=tensor_pb2.Numbers(values=[1, 2, 8, 9])),
        tensor_pb2.Column(name="kind", strings=tensor_pb2.Strings(values=["cat", "cat", "cow", "cow"])),
    ]
    adam = spec_pb2.Optimizer(adam=spec_pb2.Adam(lr=0.1))
    name = f"animal-{uuid.uuid4().hex[:8]}"
    await api.train(
        trainer_pb2.TrainRequest(
            model_name=name,
            data=spec_pb2.TrainingData(table=tensor_pb2.Table(columns=columns), target_columns=["kind"]),
            model=spec_pb2.ModelSpec(linear=spec_pb2.LinearSpec()),
            loss=spec_pb2.Loss(cross_entropy=spec_pb2.CrossEntropyLoss()),
            gradient=spec_pb2.GradientFit(optimizer=adam, epochs=500),
            seed=1,
        )
    )
    table = tensor_pb2.Table(columns=[tensor_pb2.Column(name="size", numbers=columns[0].numbers)])
    request = trainer_pb2.PredictRequest(model=f"models/{name}", table=table, probabilities=True, logits=True)
    response = await api.trainer.Predict(request)
    assert list(response.labels.strings.values) == ["cat", "cat", "cow", "cow"]
    assert list(response.classes.strings.values) == ["cat", "cow"]
    np.testing.assert_allclose(array(response.probabilities).sum(axis=1), 1, rtol=1e-6)
    assert array(response.logits).shape == (4, 2)
