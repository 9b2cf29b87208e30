"""The whole life of runs with real worker processes: crowds, killed workers, restarts in the middle."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from epochd_server.domain.runs import Cancelled, EpochLog, Failure, RunState, Started, Succeeded, Warned
from epochd_server.executor.local import LocalExecutor
from epochd_server.storage import Answers, ModelChanges, SqlModelStore
from epochd_server.storage.local_artifacts import LocalArtifacts

LONG = {"epochs": 400_000, "every": 20_000}
"""About half a second of training, with twenty-one logs."""


@pytest.fixture
def bits_of(database, tmp_path):
    """The parameters of the version that a run's last event names, as bytes."""
    models = SqlModelStore(
        database, LocalArtifacts(tmp_path / "artifacts"), ModelChanges(), Answers(database, 86_400.0)
    )

    async def load(events):
        last = events[-1].body
        assert isinstance(last, Succeeded)
        parameters = await models.load_parameters(last.model, last.version)
        return {name: array.tobytes() for name, array in parameters.items()}

    return load


@pytest.fixture
def make_server(make_service):
    """Starts a service with its own worker processes; ``make_service`` closes both."""

    async def make(workers=1, **settings):
        executor = LocalExecutor(workers)
        return await make_service(executor, **settings), executor

    return make


def logs(events):
    return [(event.body.epoch, event.body.loss) for event in events if isinstance(event.body, EpochLog)]


def assert_whole(events):
    """Gapless from 1 to the end, with one Started and no epoch twice."""
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    epochs = [epoch for epoch, _ in logs(events)]
    assert epochs == sorted(set(epochs))
    assert [type(event.body) for event in events].count(Started) == 1


async def test_a_thousand_simultaneous_runs_all_end_with_their_own_result(
    make_server, plan, watch_all, bits_of
):
    service, _ = await make_server(2)

    async def one(seed):
        accepted = await service.submit(plan(seed=seed, epochs=100, model=None), f"client-{seed % 7}")
        return await watch_all(service, accepted.run_id)

    crowd = await asyncio.gather(*(one(seed) for seed in range(1_000)))
    for events in crowd:
        assert_whole(events)
        assert isinstance(events[-1].body, Succeeded)
    for seed in (0, 499, 999):
        alone = await one(seed)
        assert logs(alone) == logs(crowd[seed])
        assert await bits_of(alone) == await bits_of(crowd[seed])


async def test_a_killed_worker_costs_no_run_its_result(make_server, plan, watch_all, bits_of):
    service, executor = await make_server(1)
    control = await watch_all(service, (await service.submit(plan(**LONG), "me")).run_id)
    accepted = [await service.submit(plan(**LONG, seed=seed), "me") for seed in (1, 2)]
    watchers = [asyncio.create_task(watch_all(service, run.run_id)) for run in accepted]
    async for page in service.watch(accepted[0].run_id):
        if isinstance(page[-1].body, EpochLog):
            break
    os.kill(executor.worker_pids[0], signal.SIGKILL)
    disturbed = await asyncio.gather(*watchers)
    for events in disturbed:
        assert_whole(events)
    assert any(isinstance(event.body, Warned) for event in disturbed[0])
    assert logs(disturbed[0]) == logs(control)
    assert await bits_of(disturbed[0]) == await bits_of(control)


async def test_a_run_whose_worker_is_killed_again_and_again_fails_with_the_evidence(
    make_server, plan, watch_all
):
    service, executor = await make_server(1)
    accepted = await service.submit(plan(epochs=10_000_000, every=1_000_000), "me")
    events = []
    async for page in service.watch(accepted.run_id):
        events += page
        if any(isinstance(event.body, Started | Warned) for event in page):
            os.kill(executor._assignments[accepted.run_id].workers[0].pid, signal.SIGKILL)
    assert_whole(events)
    assert isinstance(events[-1].body, Failure)
    assert events[-1].body.reason == "WORKER_DIED"
    assert "was killed by SIGKILL" in events[-1].body.message


async def test_a_restart_in_the_middle_gives_the_same_log_and_the_same_bits(
    make_server, plan, watch_all, bits_of
):
    service, _ = await make_server(1)
    control = await watch_all(service, (await service.submit(plan(**LONG), "me")).run_id)
    accepted = await service.submit(plan(**LONG), "me")
    before = []
    async for page in service.watch(accepted.run_id):
        before += page
        if isinstance(page[-1].body, EpochLog):
            break
    await service.close()

    service, _ = await make_server(1)
    after = await watch_all(service, accepted.run_id, before[-1].sequence)
    assert_whole(before + after)
    assert logs(before + after) == logs(control)
    assert await bits_of(after) == await bits_of(control)


async def test_a_cancelled_run_ends_soon_and_keeps_its_log(make_server, plan, watch_all):
    service, _ = await make_server(1)
    accepted = await service.submit(plan(epochs=10_000_000, every=100_000), "me")
    async for page in service.watch(accepted.run_id):
        if isinstance(page[-1].body, EpochLog):
            break
    async with asyncio.timeout(5):
        await service.cancel(accepted.run_id)
        events = await watch_all(service, accepted.run_id)
    assert_whole(events)
    assert isinstance(events[-1].body, Cancelled)
    assert 0 < events[-1].body.epochs < 10_000_000
    assert (await service.get(accepted.run_id)).state is RunState.CANCELLED
