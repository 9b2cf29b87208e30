"""Runs that were interrupted go on where they were saved last, to the bits of those that were not."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from sqlalchemy import func, select, update

from epochd_server.domain.runs import EpochLog, FleetProgress, Succeeded, Warned
from epochd_server.executor.local import LocalExecutor
from epochd_server.storage import Answers, ModelChanges, SqlModelStore
from epochd_server.storage.local_artifacts import LocalArtifacts
from epochd_server.storage.schema import checkpoints as rows
from epochd_server.storage.schema import runs

pytestmark = pytest.mark.alone

LONG = {"epochs": 1_500_000, "every": 60_000}
"""About two seconds of training."""
OFTEN = {"checkpoint_seconds": 0.05}


@pytest.fixture
def make_server(make_service):
    async def make(workers=1, **settings):
        executor = LocalExecutor(workers)
        return await make_service(executor, **OFTEN, **settings), executor

    return make


@pytest.fixture
def end_of(database, tmp_path):
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
def saved(database):
    """Waits until a run was saved at least so many times; how many checkpoints are kept of it."""

    async def wait(run_id, number=1):
        statement = select(func.max(rows.c.number), func.count()).where(rows.c.run_id == run_id)
        async with asyncio.timeout(20):
            while True:
                newest, kept = await database.read(lambda connection: connection.execute(statement).one())
                if (newest or 0) >= number:
                    return kept
                await asyncio.sleep(0.01)

    return wait


@pytest.fixture
def deaths(database):
    """Waits until so many workers are known to have died of a run."""

    async def wait(run_id, number):
        statement = select(runs.c.worker_deaths).where(runs.c.run_id == run_id)
        async with asyncio.timeout(20):
            while await database.read(lambda connection: connection.scalar(statement)) < number:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    return wait


def logs(events):
    return [(event.body.epoch, event.body.loss) for event in events if isinstance(event.body, EpochLog)]


def warnings(events):
    return [(event.body.reason, event.body.message) for event in events if isinstance(event.body, Warned)]


async def kept(database):
    return await database.read(lambda connection: connection.scalar(select(func.count()).select_from(rows)))


async def test_a_restart_goes_on_where_the_run_was_saved_last(
    make_server, plan, watch_all, end_of, saved, database
):
    service, _ = await make_server()
    control = await watch_all(service, (await service.submit(plan(**LONG), "me")).run_id)
    accepted = await service.submit(plan(**LONG), "me")
    assert await saved(accepted.run_id, 3) == 2
    await service.close()

    service, _ = await make_server()
    events = await watch_all(service, accepted.run_id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert logs(events) == logs(control)
    assert await end_of(events) == await end_of(control)
    ((reason, message),) = warnings(events)
    assert reason == "RUN_RESUMED"
    assert message.startswith("The server was restarted. It goes on with epoch ")
    assert int(message.split("epoch ")[1].split(",")[0]) > 1000
    assert events[-1].body.training_seconds > 0.2 * control[-1].body.training_seconds
    await service.close()
    assert await kept(database) == 0  # an ended run has nothing to go on with


@pytest.mark.parametrize(
    ("damaged", "goes_on"), [(1, "It goes on with epoch"), (2, "trained again from its first epoch")]
)
async def test_damaged_checkpoints_are_passed_over_and_told_of(
    make_server, plan, watch_all, end_of, saved, database, damaged, goes_on
):
    service, _ = await make_server()
    control = await watch_all(service, (await service.submit(plan(**LONG), "me")).run_id)
    accepted = await service.submit(plan(**LONG), "me")
    await saved(accepted.run_id, 2)
    await service.close()
    numbers = select(rows.c.number).where(rows.c.run_id == accepted.run_id).order_by(rows.c.number.desc())
    damage = update(rows).values(data=b"not what it was")
    newest = damage.where(rows.c.number.in_(numbers.limit(damaged)))
    await database.write(lambda connection: connection.execute(newest))

    service, _ = await make_server()
    events = await watch_all(service, accepted.run_id)
    assert logs(events) == logs(control)
    assert await end_of(events) == await end_of(control)
    (reason, message), (_, resumed) = warnings(events)
    assert reason == "CHECKPOINT_DAMAGED"
    assert f"newest {damaged} of" in message
    assert goes_on in resumed


async def test_a_killed_worker_costs_what_came_after_the_last_checkpoint_only(
    make_server, plan, watch_all, end_of, saved
):
    service, executor = await make_server()
    control = await watch_all(service, (await service.submit(plan(**LONG), "me")).run_id)
    accepted = await service.submit(plan(**LONG), "me")
    await saved(accepted.run_id, 2)
    os.kill(executor.worker_pids[0], signal.SIGKILL)
    events = await watch_all(service, accepted.run_id)
    assert logs(events) == logs(control)
    assert await end_of(events) == await end_of(control)
    assert "It goes on with epoch" in warnings(events)[0][1]


async def test_a_run_fails_after_three_deaths_also_across_restarts_with_the_memory_at_death(
    make_server, plan, watch_all, deaths
):
    service, executor = await make_server()
    accepted = await service.submit(plan(epochs=10_000_000, every=1_000_000), "me")
    for count in range(1, 4):
        if count > 1:
            service, executor = await make_server()
        await kill_its_worker(service, executor, accepted.run_id)
        if count < 3:
            await deaths(accepted.run_id, count)
            await service.close()
    failure = (await watch_all(service, accepted.run_id))[-1].body
    assert failure.reason == "WORKER_DIED"
    assert "3 times" in failure.message
    assert "was killed by SIGKILL, with " in failure.message
    assert " MiB of memory " in failure.message


async def kill_its_worker(service, executor, run_id):
    """Kills the worker that trains a run, once its memory was looked at."""
    async with asyncio.timeout(20):
        while run_id not in executor._assignments or not executor._assignments[run_id].workers:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        (worker,) = executor._assignments[run_id].workers
        while not worker._memory.describe():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    os.kill(worker.pid, signal.SIGKILL)


async def test_a_server_that_is_stopped_saves_where_its_runs_are(make_service, plan, watch_all, end_of):
    service = await make_service(LocalExecutor(1))
    control = await watch_all(service, (await service.submit(plan(**LONG), "me")).run_id)
    accepted = await service.submit(plan(**LONG), "me")
    async for page in service.watch(accepted.run_id):
        if isinstance(page[-1].body, EpochLog) and page[-1].body.epoch:
            break
    assert not await service.drain(0.0)
    await service.close()

    service = await make_service(LocalExecutor(1))
    events = await watch_all(service, accepted.run_id)
    assert "It goes on with epoch" in warnings(events)[0][1]
    assert logs(events) == logs(control)
    assert await end_of(events) == await end_of(control)


async def test_a_fleet_goes_on_with_the_members_that_are_left(make_server, plan, watch_all, end_of, saved):
    fleet = {"members": 60, "epochs": 1_000_000, "every": 200_000}
    service, _ = await make_server(2)
    control = await watch_all(service, (await service.submit(plan(**fleet), "me")).run_id)
    accepted = await service.submit(plan(**fleet), "me")
    await saved(accepted.run_id, 2)
    await service.close()

    service, _ = await make_server(1)
    events = await watch_all(service, accepted.run_id)
    assert await end_of(events) == await end_of(control)
    assert events[-1].body.failed_members == control[-1].body.failed_members == 2
    assert events[-1].body.final_loss == control[-1].body.final_loss
    assert "where its members were saved last" in warnings(events)[0][1]
    progress = [event.body for event in events if isinstance(event.body, FleetProgress)]
    assert progress[-1].members_done == 60
