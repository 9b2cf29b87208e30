"""The whole life of fleets with real worker processes: what is logged, stored, and not told twice."""

from __future__ import annotations

import asyncio
import os
import signal

import numpy as np
import pytest

from epochd_server.domain.fleets import MemberState
from epochd_server.domain.runs import (
    Cancelled,
    EpochLog,
    Failure,
    FleetProgress,
    MemberLog,
    Started,
    Succeeded,
)
from epochd_server.executor.local import LocalExecutor
from epochd_server.storage import Answers, ModelChanges, SqlModelStore
from epochd_server.storage.local_artifacts import LocalArtifacts

FLEET = {"members": 60, "epochs": 200, "every": 50, "lr": 0.1}
LONG = FLEET | {"members": 400, "epochs": 100_000, "every": 20_000}
"""Seconds of training, in several parts."""
FOREVER = FLEET | {"epochs": 10_000_000, "every": 10_000_000}


@pytest.fixture
def models(database, tmp_path):
    return SqlModelStore(
        database, LocalArtifacts(tmp_path / "artifacts"), ModelChanges(), Answers(database, 86_400.0)
    )


@pytest.fixture
def make_server(make_service):
    """Starts a service with its own worker processes; ``make_service`` closes both."""

    async def make(workers=1, **settings):
        executor = LocalExecutor(workers)
        return await make_service(executor, **settings), executor

    return make


def of_kind(events, kind):
    return [event.body for event in events if isinstance(event.body, kind)]


def logs(events):
    """Epochs of members, by key."""
    told = {}
    for body in of_kind(events, MemberLog):
        told.setdefault(body.key, []).append((body.log.epoch, body.log.loss))
    return told


def assert_whole(events):
    """Gapless from 1 to the end, with one Started, no epochs but those of members, and none of these twice."""
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert len(of_kind(events, Started)) == 1
    assert not of_kind(events, EpochLog)
    for told in logs(events).values():
        epochs = [epoch for epoch, _ in told]
        assert epochs == sorted(set(epochs))


async def first(service, run_id, kind):
    """A run's events up to the first of a kind."""
    seen = []
    async for page in service.watch(run_id):
        seen += page
        if of_kind(page, kind):
            return seen
    raise AssertionError("the run has ended")


async def test_a_fleet_ends_with_a_version_that_tells_what_became_of_its_members(
    make_server, plan, watch_all, models
):
    service, _ = await make_server()
    accepted = await service.submit(plan(**FLEET), "me")
    events = await watch_all(service, accepted.run_id)
    assert_whole(events)
    started, succeeded = events[1].body, events[-1].body
    assert (started.members, started.key_columns) == (60, ("store",))
    assert isinstance(succeeded, Succeeded)
    assert (succeeded.members, succeeded.failed_members, succeeded.epochs) == (60, 2, 200)
    progress = of_kind(events, FleetProgress)[-1]
    assert (progress.members_done, progress.members_failed, progress.members_total) == (60, 2, 60)
    assert progress.loss_quantiles[2] == succeeded.final_loss
    assert {key: [epoch for epoch, _ in told] for key, told in logs(events).items()} == {
        (key,): [0, 50, 100, 150] for key in (0, 20)
    }
    (version,) = await models.list_versions(succeeded.model, 10)
    assert (version.card.members, version.card.failed_members) == (60, 2)
    assert version.card.key_columns == ("store",)
    members = await models.load_members(succeeded.model, succeeded.version)
    assert members.reasons == {7: "TARGET_NOT_FINITE", 8: "LOSS_NOT_FINITE"}
    assert np.flatnonzero(members.states == MemberState.FAILED).tolist() == [7, 8]
    parameters = await models.load_parameters(succeeded.model, succeeded.version)
    assert parameters["linear.weight"].shape == (60, 1, 2)


async def test_a_fleet_of_which_nothing_becomes_fails(make_server, plan, watch_all):
    service, _ = await make_server()
    accepted = await service.submit(plan(**FLEET | {"lr": 1e20}), "me")
    events = await watch_all(service, accepted.run_id)
    assert_whole(events)
    assert events[-1].body.reason == "ALL_MEMBERS_FAILED"
    assert events[-1].body.hint


async def test_a_fleet_never_shares_a_cohort(service, executor, plan, watch_all):
    executor.begin.clear()
    first_runs = [await service.submit(plan(seed=seed), "me") for seed in range(2)]
    fleets = [await service.submit(plan(**FLEET, seed=seed), "me") for seed in range(2)]
    executor.begin.set()
    await asyncio.gather(*(watch_all(service, run.run_id) for run in first_runs + fleets))
    cohorts = [cohort for cohort in executor.cohorts if {run.run_id for run in fleets} & set(cohort)]
    assert [len(cohort) for cohort in cohorts] == [1, 1]
    work = next(work for work in executor.works if work.runs[0].run_id == fleets[0].run_id)
    assert work.runs[0].members == 60
    assert work.runs[0].seconds > 0


async def test_a_restart_in_the_middle_of_a_fleet_tells_no_epoch_twice_and_ends_in_the_same_bits(
    make_server, plan, watch_all, models
):
    service, _ = await make_server(2)
    control = await watch_all(service, (await service.submit(plan(**LONG), "me")).run_id)
    accepted = await service.submit(plan(**LONG), "me")
    before = await first(service, accepted.run_id, MemberLog)
    await service.close()

    service, _ = await make_server(1)
    after = await watch_all(service, accepted.run_id, before[-1].sequence)
    assert_whole(before + after)
    assert logs(before + after) == logs(control)
    one, two = [
        await models.load_parameters(events[-1].body.model, events[-1].body.version)
        for events in (control, after)
    ]
    assert {name: array.tobytes() for name, array in one.items()} == {
        name: array.tobytes() for name, array in two.items()
    }


async def test_a_fleet_goes_on_after_the_only_worker_was_killed(make_server, plan, watch_all):
    service, executor = await make_server(1)
    control = await watch_all(service, (await service.submit(plan(**LONG), "me")).run_id)
    accepted = await service.submit(plan(**LONG), "me")
    await first(service, accepted.run_id, MemberLog)
    os.kill(executor.worker_pids[0], signal.SIGKILL)
    events = await watch_all(service, accepted.run_id)
    assert_whole(events)
    assert logs(events) == logs(control)
    assert events[-1].body.final_loss == control[-1].body.final_loss


async def test_a_cancelled_fleet_ends_soon(make_server, plan, watch_all):
    service, _ = await make_server(2)
    accepted = await service.submit(plan(**FOREVER), "me")
    await first(service, accepted.run_id, FleetProgress)
    async with asyncio.timeout(10):
        await service.cancel(accepted.run_id)
        events = await watch_all(service, accepted.run_id)
    assert_whole(events)
    assert isinstance(events[-1].body, Cancelled)
    assert not of_kind(events, Failure)


async def test_a_run_began_about_as_long_before_its_end_as_it_trained(make_server, plan, watch_all):
    service, _ = await make_server()
    accepted = await service.submit(plan(epochs=500_000, every=10_000), "me")
    events = await watch_all(service, accepted.run_id)
    started, end = events[1], events[-1]
    assert isinstance(end.body, Succeeded)
    assert (end.time - started.time).total_seconds() >= 0.5 * end.body.training_seconds > 0
    assert [event.time for event in events] == sorted(event.time for event in events)
