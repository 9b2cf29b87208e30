"""The Runs service over real sockets."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from epochd.v1 import run_pb2, runs_pb2

UNKNOWN = "runs/01ARZ3NDEKTSV4RRFFQ69G5FAV"


async def begin(api, request) -> str:
    """Starts a training, leaves its stream, and returns the run's name."""
    call = api.trainer.Train(request)
    run = (await call.read()).events[0].queued.run
    call.cancel()
    return run


async def begin_training(api, request) -> str:
    """Starts a training, waits until it has logged an epoch, and leaves its stream."""
    call = api.trainer.Train(request)
    events = list((await call.read()).events)
    while events[-1].WhichOneof("kind") != "epoch_log":
        events += (await call.read()).events
    call.cancel()
    return events[0].queued.run


async def state_of(api, run: str) -> int:
    return (await api.runs.GetRun(runs_pb2.GetRunRequest(name=run))).run.state


async def watch(api, run: str, after: int = 0) -> list[run_pb2.Event]:
    return await api.events(api.runs.WatchRun(runs_pb2.WatchRunRequest(run=run, after_sequence=after)))


async def test_a_finished_run_can_be_looked_at(api, linear):
    events = await api.train(linear(epochs=20))
    run = (await api.runs.GetRun(runs_pb2.GetRunRequest(name=events[0].queued.run))).run
    assert run.state == run_pb2.RUN_STATE_SUCCEEDED
    assert run.model_version == events[-1].succeeded.model_version
    assert (run.latest_sequence, run.epochs) == (events[-1].sequence, 20)
    assert (run.latest_log.epoch, run.latest_log.loss) == (19, events[-1].succeeded.final_loss)
    times = [t.ToNanoseconds() for t in (run.create_time, run.start_time, run.end_time)]
    assert times == sorted(times)


@pytest.mark.parametrize("after", [0, 1, 5, 13, 99])
async def test_a_watch_goes_on_after_any_sequence_without_gap_or_repeat(api, linear, after):
    events = await api.train(linear(epochs=20))
    assert await watch(api, events[0].queued.run, after) == events[after:]


async def test_a_watch_that_broke_off_is_resumed_while_the_run_goes_on(api, linear):
    run = await begin(api, linear(epochs=20_000))
    seen: list[run_pb2.Event] = []
    while not seen or seen[-1].WhichOneof("kind") != "succeeded":
        after = seen[-1].sequence if seen else 0
        call = api.runs.WatchRun(runs_pb2.WatchRunRequest(run=run, after_sequence=after))
        seen += (await call.read()).events
        call.cancel()
    assert [event.sequence for event in seen] == list(range(1, len(seen) + 1))
    assert seen == await watch(api, run)


async def test_several_watchers_see_the_same_log(api, linear):
    run = await begin(api, linear(epochs=5_000))
    logs = await asyncio.gather(*(watch(api, run) for _ in range(5)))
    assert all(log == logs[0] for log in logs)


async def test_cancel_stops_a_run_at_its_next_epoch(api, endless):
    run = await begin_training(api, endless())
    assert await state_of(api, run) == run_pb2.RUN_STATE_RUNNING
    following = asyncio.create_task(watch(api, run))
    await api.runs.CancelRun(runs_pb2.CancelRunRequest(name=run))
    events = await asyncio.wait_for(following, 20)
    assert events[-1].WhichOneof("kind") == "cancelled"
    assert await state_of(api, run) == run_pb2.RUN_STATE_CANCELLED


async def test_a_waiting_run_is_cancelled_at_once(api, endless):
    busy = await begin_training(api, endless())
    waiting = await begin(api, endless(seed=2))
    cancelled = (await api.runs.CancelRun(runs_pb2.CancelRunRequest(name=waiting))).run
    assert cancelled.state == run_pb2.RUN_STATE_CANCELLED
    await api.runs.CancelRun(runs_pb2.CancelRunRequest(name=busy))
    assert (await watch(api, busy))[-1].WhichOneof("kind") == "cancelled"


async def test_cancel_leaves_a_run_that_has_ended_as_it_is(api, linear):
    run = (await api.train(linear()))[0].queued.run
    answer = await api.runs.CancelRun(runs_pb2.CancelRunRequest(name=run))
    assert answer.run.state == run_pb2.RUN_STATE_SUCCEEDED


async def test_a_run_that_goes_on_cannot_be_deleted_but_an_ended_one_can(api, endless):
    run = await begin(api, endless())
    refusal = await api.refused(api.runs.DeleteRun(runs_pb2.DeleteRunRequest(name=run)))
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "RUN_NOT_TERMINAL")
    await api.runs.CancelRun(runs_pb2.CancelRunRequest(name=run))
    await watch(api, run)
    await api.runs.DeleteRun(runs_pb2.DeleteRunRequest(name=run))
    refusal = await api.refused(api.runs.GetRun(runs_pb2.GetRunRequest(name=run)))
    assert refusal.reason == "RUN_NOT_FOUND"


async def test_runs_are_listed_newest_first_page_by_page(api, linear):
    model = f"list-{uuid.uuid4().hex[:8]}"
    made = [(await api.train(linear(model_name=model)))[0].queued.run for _ in range(5)]
    listed, token = [], ""
    while True:
        request = runs_pb2.ListRunsRequest(page_size=2, page_token=token, model=f"models/{model}")
        page = await api.runs.ListRuns(request)
        listed += [run.name for run in page.runs]
        assert len(page.runs) <= 2
        token = page.next_page_token
        if not token:
            break
    assert listed == made[::-1]


async def test_runs_are_listed_by_state(api, linear):
    model = f"list-{uuid.uuid4().hex[:8]}"
    await api.train(linear(model_name=model))
    request = runs_pb2.ListRunsRequest(model=f"models/{model}", states=[run_pb2.RUN_STATE_FAILED])
    assert not (await api.runs.ListRuns(request)).runs
    request.states.append(run_pb2.RUN_STATE_SUCCEEDED)
    assert len((await api.runs.ListRuns(request)).runs) == 1


async def test_everything_wrong_with_a_list_is_told_at_once(api):
    request = runs_pb2.ListRunsRequest(page_size=-1, page_token="?", states=[99], model="x")
    refusal = await api.refused(api.runs.ListRuns(request))
    assert set(refusal.fields) == {"page_size", "page_token", "states[0]", "model"}


@pytest.mark.parametrize("token", ["cnVucy94", "////", "é", "bW9kZWxzL2E="])
async def test_a_token_of_something_else_is_refused(api, token):
    refusal = await api.refused(api.runs.ListRuns(runs_pb2.ListRunsRequest(page_token=token)))
    assert set(refusal.fields) == {"page_token"}


def calls(api, name: str) -> dict[str, object]:
    return {
        "GetRun": lambda: api.runs.GetRun(runs_pb2.GetRunRequest(name=name)),
        "CancelRun": lambda: api.runs.CancelRun(runs_pb2.CancelRunRequest(name=name)),
        "DeleteRun": lambda: api.runs.DeleteRun(runs_pb2.DeleteRunRequest(name=name)),
        "WatchRun": lambda: watch(api, name),
    }


METHODS = ["GetRun", "CancelRun", "DeleteRun", "WatchRun"]


@pytest.mark.parametrize("method", METHODS)
async def test_a_run_that_is_not_there_is_not_found(api, method):
    refusal = await api.refused(calls(api, UNKNOWN)[method]())
    assert (refusal.code, refusal.reason) == ("NOT_FOUND", "RUN_NOT_FOUND")


@pytest.mark.parametrize("name", ["", "runs/", "runs/../x", "models/a", "runs/01arz3ndektsv4rrffq69g5fav"])
@pytest.mark.parametrize("method", METHODS)
async def test_a_malformed_name_is_invalid(api, method, name):
    refusal = await api.refused(calls(api, name)[method]())
    assert set(refusal.fields) == {"run" if method == "WatchRun" else "name"}


async def test_a_negative_sequence_is_invalid(api):
    refusal = await api.refused(watch(api, UNKNOWN, -1))
    assert set(refusal.fields) == {"after_sequence"}
