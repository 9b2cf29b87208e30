"""The life of runs over a real SQLite store, with an executor whose steps the test decides."""

from __future__ import annotations

import asyncio

import pytest

from epochd_server.domain.errors import Code, EpochdError, Reason
from epochd_server.domain.runs import (
    Cancelled,
    EpochLog,
    Failure,
    Queued,
    RunState,
    Started,
    Succeeded,
    Warned,
)
from epochd_server.domain.work import WorkerDied
from epochd_server.runs.signature import estimated_seconds


def kinds(events):
    return [type(event.body) for event in events]


def assert_gapless(events, after=0):
    assert [event.sequence for event in events] == list(range(after + 1, after + 1 + len(events)))


async def test_a_run_is_queued_started_logged_and_succeeds(service, plan, watch_all):
    accepted = await service.submit(plan(), "me")
    events = await watch_all(service, accepted.run_id)
    assert accepted.created
    assert kinds(events) == [Queued, Started, *[EpochLog] * 4, Succeeded]
    assert_gapless(events)
    assert [event.body.epoch for event in events[2:6]] == [0, 5, 10, 15]
    assert events[-1].body == Succeeded(
        model="line", version=1, epochs=20, final_loss=events[-1].body.final_loss, training_seconds=0.5
    )
    run = await service.get(accepted.run_id)
    assert (run.state, run.version, run.latest_sequence) == (RunState.SUCCEEDED, 1, 7)


async def test_a_model_without_a_name_is_named_after_its_run(service, plan):
    accepted = await service.submit(plan(model=None), "me")
    assert (await service.get(accepted.run_id)).model == f"run-{accepted.run_id.lower()}"


async def test_submit_returns_before_training_began(service, executor, plan):
    executor.begin.clear()
    accepted = await service.submit(plan(), "me")
    assert (await service.get(accepted.run_id)).state is RunState.QUEUED


async def test_started_and_the_first_logs_are_seen_while_the_run_goes_on(service, executor, plan):
    executor.go.clear()
    accepted = await service.submit(plan(), "me")
    seen = []
    async for page in service.watch(accepted.run_id):
        seen += page
        if len(seen) == 6:
            break
    assert (await service.get(accepted.run_id)).state is RunState.RUNNING


@pytest.mark.parametrize("after", range(8))
async def test_a_watch_of_an_ended_run_replays_what_follows_a_sequence(service, plan, watch_all, after):
    accepted = await service.submit(plan(), "me")
    await watch_all(service, accepted.run_id)
    events = await watch_all(service, accepted.run_id, after)
    assert_gapless(events, after)
    assert len(events) == 7 - after


@pytest.mark.parametrize("after", range(8))
async def test_a_watch_of_a_live_run_starts_after_any_sequence(service, executor, plan, watch_all, after):
    executor.go.clear()
    accepted = await service.submit(plan(), "me")
    watcher = asyncio.create_task(watch_all(service, accepted.run_id, after))
    await asyncio.sleep(0.02)
    executor.go.set()
    events = await watcher
    assert_gapless(events, after)
    assert len(events) == 7 - after


async def test_a_watch_that_nobody_reads_holds_nobody_back(make_service, plan, watch_all):
    service = await make_service(tail_events=2)
    accepted = await service.submit(plan(epochs=500, every=1), "me")
    lazy = service.watch(accepted.run_id)
    first = await anext(lazy)
    assert len(await watch_all(service, accepted.run_id)) == 503
    rest = [event async for page in lazy for event in page]
    assert_gapless([*first, *rest])


async def test_pages_of_a_watch_are_bounded(service, plan):
    accepted = await service.submit(plan(epochs=2_000, every=1), "me")
    async for page in service.watch(accepted.run_id):
        assert 1 <= len(page) <= 256


async def test_an_abandoned_watch_disturbs_neither_run_nor_other_watchers(service, executor, plan, watch_all):
    executor.go.clear()
    accepted = await service.submit(plan(), "me")
    watchers = [asyncio.create_task(watch_all(service, accepted.run_id)) for _ in range(3)]
    await asyncio.sleep(0.02)
    watchers[0].cancel()
    executor.go.set()
    assert len(await watchers[1]) == len(await watchers[2]) == 7


async def test_the_same_request_id_attaches_to_the_first_run(service, executor, plan, watch_all):
    first = await service.submit(plan("order-1"), "me")
    second = await service.submit(plan("order-1"), "me")
    assert second.run_id == first.run_id
    assert not second.created
    await watch_all(service, first.run_id)
    third = await service.submit(plan("order-1"), "me")
    assert (third.run_id, third.created) == (first.run_id, False)
    assert executor.cohorts == [[first.run_id]]


async def test_simultaneous_requests_with_one_id_train_once(service, executor, plan, watch_all):
    accepted = await asyncio.gather(*(service.submit(plan("order-1"), "me") for _ in range(20)))
    assert len({answer.run_id for answer in accepted}) == 1
    assert [answer.created for answer in accepted].count(True) == 1
    await watch_all(service, accepted[0].run_id)
    assert len(executor.cohorts) == 1


async def test_another_request_with_the_same_id_is_refused(service, plan):
    await service.submit(plan("order-1"), "me")
    with pytest.raises(EpochdError) as caught:
        await service.submit(plan("order-1", seed=2), "me")
    assert caught.value.reason is Reason.REQUEST_ID_REUSED


async def test_unknown_runs_are_not_found(service):
    unknown = "01J" + "0" * 23
    for call in (service.get, service.cancel, service.delete):
        with pytest.raises(EpochdError) as caught:
            await call(unknown)
        assert caught.value.reason is Reason.RUN_NOT_FOUND
    with pytest.raises(EpochdError) as caught:
        await anext(service.watch(unknown))
    assert caught.value.reason is Reason.RUN_NOT_FOUND


async def test_a_diverged_run_fails_with_its_reason_and_keeps_its_log(service, plan, watch_all):
    accepted = await service.submit(plan(lr=1e6), "me")
    events = await watch_all(service, accepted.run_id)
    assert kinds(events) == [Queued, Started, *[EpochLog] * 4, Failure]
    assert events[-1].body.reason == "LOSS_NOT_FINITE"
    run = await service.get(accepted.run_id)
    assert (run.state, run.failure.epoch) == (RunState.FAILED, 3)


async def test_a_queued_run_is_cancelled_at_once(service, executor, plan, watch_all):
    executor.go.clear()
    running = await service.submit(plan(), "me")
    queued = await service.submit(plan(), "me")
    run = await service.cancel(queued.run_id)
    assert run.state is RunState.CANCELLED
    assert kinds(await watch_all(service, queued.run_id)) == [Queued, Cancelled]
    executor.go.set()
    await watch_all(service, running.run_id)
    assert executor.cohorts == [[running.run_id]]


async def test_a_running_run_is_cancelled_when_its_worker_says_so(service, executor, plan, watch_all):
    executor.go.clear()
    accepted = await service.submit(plan(), "me")
    await executor.until(1)
    assert (await service.cancel(accepted.run_id)).state in {RunState.QUEUED, RunState.RUNNING}
    executor.go.set()
    events = await watch_all(service, accepted.run_id)
    assert events[-1].body == Cancelled(epochs=7)
    assert (await service.get(accepted.run_id)).state is RunState.CANCELLED


async def test_an_ended_run_is_left_as_it_is_by_cancel(service, plan, watch_all):
    accepted = await service.submit(plan(), "me")
    await watch_all(service, accepted.run_id)
    before = await service.get(accepted.run_id)
    after = await service.cancel(accepted.run_id)
    assert (after.state, after.latest_sequence) == (before.state, before.latest_sequence)


async def test_only_ended_runs_can_be_deleted(service, executor, plan, watch_all):
    executor.go.clear()
    accepted = await service.submit(plan(), "me")
    with pytest.raises(EpochdError) as caught:
        await service.delete(accepted.run_id)
    assert caught.value.reason is Reason.RUN_NOT_TERMINAL
    executor.go.set()
    await watch_all(service, accepted.run_id)
    await service.delete(accepted.run_id)
    with pytest.raises(EpochdError) as caught:
        await service.get(accepted.run_id)
    assert caught.value.reason is Reason.RUN_NOT_FOUND


async def test_a_full_queue_refuses_new_runs_but_not_known_requests(make_service, executor, plan):
    service = await make_service(max_queued=2, cohorts=False)
    executor.go.clear()
    await service.submit(plan(), "me")
    known = await service.submit(plan("order-1"), "me")
    await service.submit(plan(), "me")
    with pytest.raises(EpochdError) as caught:
        await service.submit(plan(), "me")
    assert caught.value.reason is Reason.QUEUE_FULL
    assert (await service.submit(plan("order-1"), "me")).run_id == known.run_id
    with pytest.raises(EpochdError) as caught:
        await service.submit(plan("order-1", seed=5), "me")
    assert caught.value.reason is Reason.REQUEST_ID_REUSED


async def test_a_client_with_its_share_of_the_queue_is_refused_and_others_are_not(
    make_service, executor, plan
):
    service = await make_service(max_queued_per_client=2, cohorts=False)
    executor.go.clear()
    known = await service.submit(plan("order-1"), "greedy")
    await executor.until(1)
    for _ in range(2):
        await service.submit(plan(), "greedy")
    with pytest.raises(EpochdError) as caught:
        await service.submit(plan(), "greedy")
    assert (caught.value.reason, caught.value.code) == (Reason.CLIENT_QUEUE_FULL, Code.RESOURCE_EXHAUSTED)
    assert (await service.submit(plan("order-1"), "greedy")).run_id == known.run_id
    await service.submit(plan(), "modest")


async def test_who_is_refused_is_told_to_come_back_when_a_tenth_of_the_queue_has_gone(
    make_service, executor, plan
):
    service = await make_service(max_queued=2, cohorts=False)
    executor.go.clear()
    await service.submit(plan(), "me")
    await executor.until(1)
    delays = []
    for epochs in (20, 10_000_000):
        waiting = [(await service.submit(plan(epochs=epochs), "me")).run_id for _ in range(2)]
        with pytest.raises(EpochdError) as caught:
            await service.submit(plan(), "me")
        delays.append(caught.value.retry_after_seconds)
        for run_id in waiting:
            await service.cancel(run_id)
    assert delays[0] == 1
    assert delays[1] == pytest.approx(2 * estimated_seconds(plan(epochs=10_000_000).started) / 10)


async def test_rows_beyond_the_memory_for_queued_runs_are_decoded_again(
    make_service, executor, planner, plan, watch_all
):
    service = await make_service(queued_bytes=30)
    executor.go.clear()
    accepted = [await service.submit(plan(), "me") for _ in range(4)]
    executor.go.set()
    for answer in accepted:
        assert kinds(await watch_all(service, answer.run_id))[-1] is Succeeded
    assert planner.replanned == 2


async def test_a_dataset_that_went_away_fails_the_run_with_its_reason(
    make_service, executor, planner, plan, watch_all
):
    service = await make_service(queued_bytes=0)
    planner.refusal = EpochdError(Reason.DATASET_NOT_FOUND)
    accepted = await service.submit(plan(), "me")
    events = await watch_all(service, accepted.run_id)
    assert events[-1].body.reason == "DATASET_NOT_FOUND"
    assert not executor.cohorts


async def test_a_run_whose_worker_died_once_is_trained_again_alone_and_logs_nothing_twice(
    service, executor, plan, watch_all
):
    executor.begin.clear()
    blocker = await service.submit(plan(epochs=1), "me")
    runs = [await service.submit(plan(seed=seed), "me") for seed in (1, 2, 3)]
    executor.deadly = {2: 12}
    watchers = [asyncio.create_task(watch_all(service, run.run_id)) for run in runs]
    executor.begin.set()
    await executor.until(3)
    executor.deadly = {}
    for events in await asyncio.gather(*watchers):
        assert_gapless(events)
        assert [e.body.epoch for e in events if isinstance(e.body, EpochLog)] == [0, 5, 10, 15]
        assert kinds(events).count(Started) == 1
        assert [e.body.reason for e in events if isinstance(e.body, Warned)] == ["RUN_RESUMED"]
        assert isinstance(events[-1].body, Succeeded)
    ids = [run.run_id for run in runs]
    assert executor.cohorts == [[blocker.run_id], ids, *([run] for run in ids)]


async def test_a_run_that_kills_its_worker_twice_fails_with_the_evidence_and_its_neighbours_succeed(
    service, executor, plan, watch_all
):
    executor.begin.clear()
    await service.submit(plan(epochs=1), "me")
    good, bad, also_good = [await service.submit(plan(seed=seed), "me") for seed in (1, 2, 3)]
    executor.deadly = {2: 12}
    executor.begin.set()
    failure = (await watch_all(service, bad.run_id))[-1].body
    assert failure.reason == "WORKER_DIED"
    assert "SIGKILL" in failure.message
    assert failure.hint
    for run in (good, also_good):
        assert isinstance((await watch_all(service, run.run_id))[-1].body, Succeeded)


async def test_a_cancelled_run_whose_worker_dies_is_cancelled(service, executor, plan, watch_all):
    executor.go.clear()
    executor.error = WorkerDied("was killed by SIGKILL")
    accepted = await service.submit(plan(), "me")
    await executor.until(1)
    await service.cancel(accepted.run_id)
    executor.go.set()
    assert isinstance((await watch_all(service, accepted.run_id))[-1].body, Cancelled)


async def test_an_executor_that_breaks_fails_its_runs_as_internal(service, executor, plan, watch_all):
    executor.error = RuntimeError("secret path /etc")
    accepted = await service.submit(plan(), "me")
    failure = (await watch_all(service, accepted.run_id))[-1].body
    assert failure.reason == "INTERNAL"
    assert "secret" not in failure.message + failure.hint
    executor.error = None
    again = await service.submit(plan(), "me")
    assert isinstance((await watch_all(service, again.run_id))[-1].body, Succeeded)


async def test_a_store_that_is_away_for_a_while_loses_and_repeats_nothing(service, store, plan, watch_all):
    accepted = [await service.submit(plan(seed=seed), "me") for seed in range(4)]
    store.failures = 9
    for answer in accepted:
        events = await watch_all(service, answer.run_id)
        assert kinds(events) == [Queued, Started, *[EpochLog] * 4, Succeeded]
        assert_gapless(events)
    assert store.failures == 0


async def test_a_run_whose_log_cannot_be_written_is_given_up_and_its_neighbours_succeed(
    make_service, executor, store, plan, watch_all
):
    service = await make_service()
    executor.begin.clear()
    await service.submit(plan(epochs=1), "me")
    good, bad, also_good = [await service.submit(plan(seed=seed), "me") for seed in (1, 2, 3)]
    store.broken = bad.run_id
    watcher = asyncio.create_task(watch_all(service, bad.run_id))
    executor.begin.set()
    for run in (good, also_good):
        assert isinstance((await watch_all(service, run.run_id))[-1].body, Succeeded)
    with pytest.raises(EpochdError) as caught:
        await watcher
    assert caught.value.reason is Reason.INTERNAL
    assert bad.run_id in executor.stops
    assert len(executor.cohorts[1]) == 3


async def test_runs_that_are_being_accepted_count_as_queued(make_service, executor, plan):
    service = await make_service(max_queued=3)
    executor.begin.clear()
    answers = await asyncio.gather(*(service.submit(plan(), "me") for _ in range(10)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, EpochdError)]
    assert len(refused) == 7
    assert {answer.reason for answer in refused} == {Reason.QUEUE_FULL}
