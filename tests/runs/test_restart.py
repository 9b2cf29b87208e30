"""What a stop, a kill and a start in the middle leave behind: every acknowledged run ends, as if undisturbed."""

from __future__ import annotations

import asyncio

import pytest

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.runs import Cancelled, EpochLog, Queued, RunState, Started, Succeeded, Warned


def kinds(events):
    return [type(event.body) for event in events]


async def collect_until_stopped(service, run_id):
    """Events that a watcher saw before the service stopped."""
    seen = []

    async def collect():
        async for page in service.watch(run_id):
            seen.extend(page)

    with pytest.raises(EpochdError) as caught:
        await collect()
    assert caught.value.reason is Reason.SERVER_STOPPING
    return seen


async def test_a_stopping_service_refuses_new_runs(service, plan):
    await service.drain(1.0)
    with pytest.raises(EpochdError) as caught:
        await service.submit(plan(), "me")
    assert caught.value.reason is Reason.SERVER_STOPPING


async def test_drain_lets_running_runs_finish_and_leaves_waiting_ones(
    make_service, executor, plan, watch_all
):
    service = await make_service(cohorts=False)
    executor.go.clear()
    running = await service.submit(plan(), "me")
    waiting = await service.submit(plan(seed=2), "me")
    stopped = asyncio.create_task(collect_until_stopped(service, waiting.run_id))
    drained = asyncio.create_task(service.drain(5.0))
    await asyncio.sleep(0.02)
    executor.go.set()
    assert await drained
    assert kinds(await stopped) == [Queued]
    assert kinds(await watch_all(service, running.run_id))[-1] is Succeeded
    await service.close()

    again = await make_service()
    events = await watch_all(again, waiting.run_id)
    assert kinds(events) == [Queued, Started, *[EpochLog] * 4, Succeeded]


async def test_drain_gives_up_after_the_grace_and_the_run_goes_on_after_the_next_start(
    make_service, executor, plan, watch_all
):
    service = await make_service()
    executor.go.clear()
    accepted = await service.submit(plan(), "me")
    watcher = asyncio.create_task(collect_until_stopped(service, accepted.run_id))
    await asyncio.sleep(0.05)
    assert not await service.drain(0.01)
    await service.close()
    before = await watcher
    assert executor.closed

    executor.go.set()
    again = await make_service()
    assert (await again.get(accepted.run_id)).state in {RunState.RUNNING, RunState.SUCCEEDED}
    after = await watch_all(again, accepted.run_id, before[-1].sequence)
    events = before + after
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [e.body.epoch for e in events if isinstance(e.body, EpochLog)] == [0, 5, 10, 15]
    assert kinds(events).count(Started) == 1
    assert [e.body.reason for e in events if isinstance(e.body, Warned)] == ["RUN_RESUMED"]
    replayed = await watch_all(again, accepted.run_id)
    assert [(e.sequence, e.time) for e in replayed] == [(e.sequence, e.time) for e in events]


@pytest.mark.parametrize("deliveries", range(1, 7))
async def test_a_run_stopped_after_any_event_ends_with_the_log_of_an_undisturbed_one(
    make_service, executor, plan, watch_all, deliveries
):
    service = await make_service()
    control = await watch_all(service, (await service.submit(plan(), "me")).run_id)
    executor.go.clear()
    accepted = await service.submit(plan(), "me")
    async for page in service.watch(accepted.run_id):
        if page[-1].sequence >= deliveries:
            break
    await service.close()

    executor.go.set()
    events = await watch_all(await make_service(), accepted.run_id)
    logs = [(e.body.epoch, e.body.loss) for e in events if isinstance(e.body, EpochLog)]
    assert logs == [(e.body.epoch, e.body.loss) for e in control if isinstance(e.body, EpochLog)]
    assert (events[-1].body.final_loss, events[-1].body.epochs) == (control[-1].body.final_loss, 20)


async def test_runs_that_wait_for_recovery_can_be_cancelled_and_watched(
    make_service, executor, planner, plan, watch_all
):
    service = await make_service(cohorts=False)
    executor.go.clear()
    runs = [await service.submit(plan(seed=seed), "me") for seed in range(3)]
    await service.close()

    again = await make_service()
    watcher = asyncio.create_task(watch_all(again, runs[2].run_id))
    await again.cancel(runs[2].run_id)
    executor.go.set()
    assert kinds(await watcher) == [Queued, Cancelled]
    assert kinds(await watch_all(again, runs[1].run_id))[-1] is Succeeded


async def test_a_run_whose_acceptance_was_stored_but_reported_as_failed_is_adopted(
    make_service, store, plan, watch_all
):
    class Lost:
        """Accepts, and then says that it could not."""

        def __getattr__(self, name):
            return getattr(store, name)

        async def accept(self, new, first):
            await store.accept(new, first)
            raise EpochdError(Reason.STORAGE_UNAVAILABLE)

    service = await make_service()
    service._store = Lost()
    with pytest.raises(EpochdError):
        await service.submit(plan("order-1"), "me")
    service._store = store
    accepted = await service.submit(plan("order-1"), "me")
    assert not accepted.created
    assert kinds(await watch_all(service, accepted.run_id))[-1] is Succeeded


async def test_a_recovered_run_that_can_no_longer_be_planned_fails(
    make_service, executor, planner, plan, watch_all
):
    service = await make_service()
    executor.begin.clear()
    accepted = await service.submit(plan(), "me")
    await service.close()
    planner.refusal = EpochdError(Reason.MODULE_NOT_FOUND, "No module 'Net' is registered.")
    events = await watch_all(await make_service(), accepted.run_id)
    assert (events[-1].body.reason, events[-1].body.message) == (
        "MODULE_NOT_FOUND",
        "No module 'Net' is registered.",
    )


async def test_cancelling_while_a_run_is_on_its_way_to_the_worker_reaches_the_worker(
    make_service, executor, plan, watch_all
):
    service = await make_service()
    executor.begin.clear()
    accepted = await service.submit(plan(), "me")
    await asyncio.sleep(0)
    await service.cancel(accepted.run_id)
    executor.stops.clear()  # as if the executor had not known the run yet
    executor.begin.set()
    assert kinds(await watch_all(service, accepted.run_id))[-1] is Cancelled
