"""Runs that are paused, resumed, cancelled with what they have reached, or stopped by a limit."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from epochd_server.domain.runs import (
    Cancelled,
    EpochLog,
    FleetProgress,
    Paused,
    Resumed,
    RunState,
    Started,
    Succeeded,
    Warned,
)
from epochd_server.domain.stopping import RunLimits, Wish
from epochd_server.executor.local import LocalExecutor
from epochd_server.storage import Answers, ModelChanges, SqlModelStore
from epochd_server.storage.local_artifacts import LocalArtifacts

pytestmark = pytest.mark.alone

LONG = {"epochs": 1_000_000, "every": 50_000}
ENDLESS = {"epochs": 10_000_000, "every": 1_000_000}
"""Some ten seconds of training."""


@pytest.fixture
def make_server(make_service):
    async def make(workers=1, **settings):
        return await make_service(LocalExecutor(workers), **settings)

    return make


@pytest.fixture
def models(database, tmp_path):
    artifacts, answers = LocalArtifacts(tmp_path / "artifacts"), Answers(database, 86_400.0)
    return SqlModelStore(database, artifacts, ModelChanges(), answers)


@pytest.fixture
def bits_of(models):
    async def load(model, version):
        parameters = await models.load_parameters(model, version)
        return {name: array.tobytes() for name, array in parameters.items()}

    return load


async def until(service, run_id, kind, after=0):
    """The events up to the first of a kind after a sequence number."""
    events = []
    async with asyncio.timeout(20):
        async for page in service.watch(run_id, after):
            for event in page:
                events.append(event)
                if isinstance(event.body, kind):
                    return events
    raise AssertionError(f"the run ended without {kind}")


def logs(events):
    return [(event.body.epoch, event.body.loss) for event in events if isinstance(event.body, EpochLog)]


async def test_a_paused_run_goes_on_from_there_to_the_same_log_and_bits(
    make_server, plan, watch_all, bits_of
):
    service = await make_server()
    control = await watch_all(service, (await service.submit(plan(**LONG), "me")).run_id)
    accepted = await service.submit(plan(**LONG), "me")
    await until(service, accepted.run_id, EpochLog)
    await service.pause(accepted.run_id)
    paused = (await until(service, accepted.run_id, Paused))[-1].body
    assert 0 < paused.epochs < LONG["epochs"]
    assert (await service.get(accepted.run_id)).state is RunState.PAUSED

    other = await watch_all(service, (await service.submit(plan(epochs=10), "me")).run_id)
    assert isinstance(other[-1].body, Succeeded)  # the worker is free

    await service.resume(accepted.run_id)
    events = await watch_all(service, accepted.run_id)
    kinds = [
        type(event.body) for event in events if isinstance(event.body, Paused | Resumed | Warned | Started)
    ]
    assert kinds == [Started, Paused, Resumed, Warned]
    assert f"It goes on with epoch {paused.epochs}," in next(
        event.body.message for event in events if isinstance(event.body, Warned)
    )
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert logs(events) == logs(control)
    assert await bits_of("line", events[-1].body.version) == await bits_of("line", control[-1].body.version)
    assert (await service.get(accepted.run_id)).state is RunState.SUCCEEDED


async def test_a_paused_run_stays_so_over_a_restart_and_goes_on_after_it(
    make_server, plan, watch_all, bits_of
):
    service = await make_server()
    control = await watch_all(service, (await service.submit(plan(**LONG), "me")).run_id)
    accepted = await service.submit(plan(**LONG), "me")
    await until(service, accepted.run_id, EpochLog)
    await service.pause(accepted.run_id)
    paused = await until(service, accepted.run_id, Paused)
    await service.close()

    service = await make_server()
    assert (await service.get(accepted.run_id)).state is RunState.PAUSED
    await service.pause(accepted.run_id)  # again changes nothing
    watching = asyncio.create_task(watch_all(service, accepted.run_id, paused[-1].sequence))
    await asyncio.sleep(0.1)
    assert not watching.done()
    await service.resume(accepted.run_id)
    await service.resume(accepted.run_id)
    after = await watching
    assert logs(paused + after) == logs(control)
    assert await bits_of("line", after[-1].body.version) == await bits_of("line", control[-1].body.version)


async def test_what_was_wished_and_not_done_is_done_when_it_is_asked_for_again(
    make_service, executor, plan, claims
):
    service = await make_service(cohorts=False)
    executor.begin.clear()
    await service.submit(plan(), "me")
    waiting = await service.submit(plan(seed=2), "me")
    await claims.wish(waiting.run_id, Wish.PAUSE)  # by a call that was cut off there
    assert (await service.get(waiting.run_id)).state is RunState.QUEUED
    await service.heed(waiting.run_id)
    assert (await service.get(waiting.run_id)).state is RunState.PAUSED
    await service.resume(waiting.run_id)
    await service.heed(waiting.run_id)  # nothing is wished any more
    assert (await service.get(waiting.run_id)).state is RunState.QUEUED
    executor.begin.set()


async def test_a_waiting_run_is_paused_at_once(make_service, executor, plan, watch_all):
    service = await make_service(cohorts=False)
    executor.begin.clear()
    await service.submit(plan(), "me")
    waiting = await service.submit(plan(seed=2), "me")
    assert (await service.pause(waiting.run_id)).state is RunState.PAUSED
    executor.begin.set()
    assert (await service.resume(waiting.run_id)).state in (RunState.QUEUED, RunState.RUNNING)
    events = await watch_all(service, waiting.run_id)
    assert [type(event.body) for event in events[:4]][1:3] == [Paused, Resumed]
    assert isinstance(events[-1].body, Succeeded)


async def test_resumed_before_it_stopped_it_just_goes_on(make_server, plan, watch_all):
    service = await make_server()
    accepted = await service.submit(plan(**LONG), "me")
    await until(service, accepted.run_id, EpochLog)
    await asyncio.gather(service.pause(accepted.run_id), service.resume(accepted.run_id))
    events = await watch_all(service, accepted.run_id)
    assert isinstance(events[-1].body, Succeeded)
    assert [epoch for epoch, _ in logs(events)] == list(range(0, LONG["epochs"], LONG["every"]))


async def test_a_paused_run_can_be_cancelled(make_server, plan, watch_all):
    service = await make_server()
    accepted = await service.submit(plan(**ENDLESS), "me")
    await until(service, accepted.run_id, EpochLog)
    await service.pause(accepted.run_id)
    await until(service, accepted.run_id, Paused)
    assert (await service.cancel(accepted.run_id)).state is RunState.CANCELLED
    for ask in (service.pause, service.resume):
        assert (await ask(accepted.run_id)).state is RunState.CANCELLED


@pytest.mark.parametrize("paused", [False, True])
async def test_what_a_cancelled_run_has_reached_is_kept_if_asked(
    make_server, plan, watch_all, models, paused
):
    service = await make_server()
    accepted = await service.submit(plan(**ENDLESS), "me")
    await until(service, accepted.run_id, EpochLog)
    if paused:
        await service.pause(accepted.run_id)
        await until(service, accepted.run_id, Paused)
    await service.cancel(accepted.run_id, keep_weights=True)
    events = await watch_all(service, accepted.run_id)
    end = events[-1].body
    assert isinstance(end, Cancelled)
    assert (end.model, end.version) == ("line", 1)
    run = await service.get(accepted.run_id)
    assert (run.state, run.version) == (RunState.CANCELLED, 1)
    weight = (await models.load_parameters("line", 1))["linear.weight"]
    assert weight.item() == pytest.approx(2, abs=0.1)  # well on its way


async def test_nothing_is_kept_of_a_run_that_has_not_begun(make_service, executor, plan):
    service = await make_service(cohorts=False)
    executor.begin.clear()
    await service.submit(plan(), "me")
    waiting = await service.submit(plan(seed=2), "me")
    run = await service.cancel(waiting.run_id, keep_weights=True)
    assert (run.state, run.version) == (RunState.CANCELLED, None)
    executor.begin.set()


async def test_a_fleet_keeps_the_members_that_had_ended(make_server, plan, watch_all, models):
    service = await make_server(1)
    accepted = await service.submit(plan(members=60, epochs=400_000, every=200_000), "me")
    async for page in service.watch(accepted.run_id):
        if any(isinstance(event.body, FleetProgress) and 10 < event.body.members_done < 60 for event in page):
            break
    await service.cancel(accepted.run_id, keep_weights=True)
    end = (await watch_all(service, accepted.run_id))[-1].body
    if isinstance(end, Cancelled):  # and not done already
        members = await models.load_members(end.model, end.version)
        assert 10 < (members.states == 1).sum() < 60
        assert "CANCELLED" in set(members.reasons.values())


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("kind", ["deadline", "training"])
async def test_limits_end_a_run_and_say_which(make_server, plan, watch_all, keep, kind):
    service = await make_server()
    limits = {
        "deadline": RunLimits(deadline=datetime.now(UTC) + timedelta(seconds=1), keep_weights=keep),
        "training": RunLimits(training_seconds=0.5, keep_weights=keep),
    }[kind]
    accepted = await service.submit(plan(limits=limits, **ENDLESS), "me")
    end = (await watch_all(service, accepted.run_id))[-1].body
    assert isinstance(end, Cancelled)
    assert end.reason == {"deadline": "DEADLINE_REACHED", "training": "TRAINING_TIME_SPENT"}[kind]
    assert bool(end.version) is keep


async def test_time_in_training_is_counted_over_restarts(make_server, plan, watch_all):
    limits = RunLimits(training_seconds=1.5)
    service = await make_server(checkpoint_seconds=0.1)
    accepted = await service.submit(plan(limits=limits, **ENDLESS), "me")
    await until(service, accepted.run_id, EpochLog)
    await asyncio.sleep(1.0)
    await service.close()
    service = await make_server(checkpoint_seconds=0.1)
    events = await watch_all(service, accepted.run_id)
    assert events[-1].body.reason == "TRAINING_TIME_SPENT"
    (resumed,) = (event for event in events if isinstance(event.body, Warned))
    assert events[-1].time - resumed.time < timedelta(seconds=1.4)  # what was left of 1.5


async def test_a_deadline_holds_for_a_paused_run_also_after_a_restart(make_server, plan, watch_all):
    service = await make_server()
    limits = RunLimits(deadline=datetime.now(UTC) + timedelta(seconds=3))
    accepted = await service.submit(plan(limits=limits, **ENDLESS), "me")
    await until(service, accepted.run_id, EpochLog)
    await service.pause(accepted.run_id)
    await until(service, accepted.run_id, Paused)
    await service.close()
    service = await make_server()
    end = (await watch_all(service, accepted.run_id))[-1].body
    assert isinstance(end, Cancelled)
    assert end.reason == "DEADLINE_REACHED"
