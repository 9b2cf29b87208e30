"""Held-out rows as a client without any library sees them."""

from __future__ import annotations

import numpy as np
import pytest

from epochd.v1 import models_pb2, runs_pb2, spec_pb2, validation_pb2


@pytest.fixture
def request_of(linear, tensor):
    """A regression on twenty rows, of which a quarter is held out."""

    def make(**fields):
        features = np.linspace(0, 1, 40).reshape(20, 2)
        request = linear(epochs=10, **fields)
        request.data.tensors.features.CopyFrom(tensor(features))
        request.data.tensors.targets.CopyFrom(tensor(features.sum(1)))
        request.model.CopyFrom(spec_pb2.ModelSpec(linear=spec_pb2.LinearSpec()))
        request.logging.CopyFrom(spec_pb2.Logging(every=5))
        request.seed = 3
        if not request.HasField("sweep"):
            request.validation.fraction = 0.25
        request.validation.metrics.append(validation_pb2.METRIC_MAE)
        return request

    return make


async def test_every_log_has_the_loss_and_the_metrics_of_the_rows_held_out(api, request_of):
    events = await api.train(request_of())
    started, logs, end = events[1].started, [e.epoch_log for e in events[2:-1]], events[-1].succeeded
    assert (started.rows, started.validation.fraction) == (15, 0.25)
    assert started.validation.split.random
    assert [log.epoch for log in logs] == [0, 5]
    assert all(log.HasField("validation_loss") and log.metrics[0].value > 0 for log in logs)
    assert end.evaluation.rows == 5
    assert end.evaluation.metrics[0].metric == validation_pb2.METRIC_MAE
    assert not end.evaluation.HasField("best_epoch")


async def test_the_run_and_the_version_say_what_was_held_out(api, request_of):
    events = await api.train(request_of())
    run = (await api.runs.GetRun(runs_pb2.GetRunRequest(name=events[0].queued.run))).run
    name = events[-1].succeeded.model_version
    version = (await api.models.GetVersion(models_pb2.GetVersionRequest(name=name))).version
    assert run.validation == version.validation == events[1].started.validation
    assert version.evaluation == events[-1].succeeded.evaluation


async def test_a_watcher_reads_the_same_events_from_the_store(api, request_of):
    events = await api.train(request_of())
    watched = [
        event
        async for page in api.runs.WatchRun(runs_pb2.WatchRunRequest(run=events[0].queued.run))
        for event in page.events
    ]
    assert watched == events


async def test_a_training_without_validation_says_nothing_of_it(api, linear):
    events = await api.train(linear(epochs=4))
    assert not events[1].started.HasField("validation")
    assert not any(event.epoch_log.HasField("validation_loss") for event in events)
    assert not events[-1].succeeded.HasField("evaluation")


async def test_members_are_listed_by_their_loss_on_the_rows_held_out(api, request_of):
    events = await api.train(request_of(sweep=spec_pb2.Sweep(lr=[0.3, 0.001, 0.03], folds=2)))
    name = events[-1].succeeded.model_version
    by_loss = models_pb2.ListMembersRequest(
        name=name, order=models_pb2.MEMBER_ORDER_BY_VALIDATION_LOSS, page_size=4
    )
    first = await api.models.ListMembers(by_loss)
    by_loss.page_token = first.next_page_token
    second = await api.models.ListMembers(by_loss)
    losses = [member.evaluation.loss for page in (first, second) for member in page.members]
    assert losses == sorted(losses)
    assert [len(page.members) for page in (first, second)] == [4, 2]
    best = events[-1].succeeded.evaluation
    assert [value.number for value in best.best.values] == [0.3]
    assert best.rows == 20
    assert best.loss_deviation > 0
    assert best.metrics[0].deviation > 0
    by_loss.order = models_pb2.MEMBER_ORDER_BY_LOSS
    assert set((await api.refused(api.models.ListMembers(by_loss))).fields) == {"page_token"}


async def test_members_without_held_out_rows_have_no_such_order(api, request_of):
    request = request_of(sweep=spec_pb2.Sweep(lr=[0.3, 0.1]))
    request.ClearField("validation")
    name = (await api.train(request))[-1].succeeded.model_version
    order = models_pb2.MEMBER_ORDER_BY_VALIDATION_LOSS
    request = models_pb2.ListMembersRequest(name=name, order=order)
    assert set((await api.refused(api.models.ListMembers(request))).fields) == {"order"}


async def test_what_is_wrong_is_named_by_its_path(api, request_of):
    request = request_of()
    request.validation.metrics.append(validation_pb2.METRIC_F1)
    request.validation.early_stopping.min_delta = -1
    refusal = await api.refused(api.train(request))
    assert set(refusal.fields) == {"validation.metrics[1]", "validation.early_stopping.min_delta"}
