"""What every RunStore does, on every database."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.records import Accepted, Append, Success
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
from epochd_server.storage import SequenceConflictError, Storage

START = datetime(2026, 1, 2, tzinfo=UTC)


def log(epoch: int, loss: float = 0.5) -> EpochLog:
    return EpochLog(epoch=epoch, loss=loss, lr=0.01, rows_per_second=1e6)


def started(make) -> Started:
    return Started(
        spec=make.run().spec,
        parameters=5,
        rows=3,
        feature_columns=("a", "b", "c", "d"),
        target_columns=("y",),
        classes=None,
        device="cpu",
    )


async def accepted(storage: Storage, make, **changed):
    run = make.run(**changed)
    await storage.runs.accept(run, make.queued(run))
    return run


async def running(storage: Storage, make, **changed):
    run = await accepted(storage, make, **changed)
    await make.append(storage.runs, run.run_id, [make.event(2, started(make))], state=RunState.RUNNING)
    return run


async def unfinished(storage: Storage):
    return await storage.runs.page(
        limit=99, before=None, states=[RunState.QUEUED, RunState.RUNNING], model=None
    )


class TestAccept:
    async def test_stores_the_run_with_its_first_event(self, storage, make):
        run = make.run(request=b"\x00all the data\xff")
        answer = await storage.runs.accept(run, make.queued(run))
        stored = await storage.runs.get(run.run_id)
        assert answer == Accepted(run.run_id, created=True)
        assert await storage.runs.request(run.run_id) == b"\x00all the data\xff"
        assert (stored.claim, stored.wish) == (1, None)
        assert stored.client == "tests"
        assert stored.run.state is RunState.QUEUED
        assert stored.run.create_time == run.create_time
        assert stored.run.spec == run.spec
        assert stored.run.latest_sequence == 1
        assert stored.run.start_time is stored.run.end_time is stored.run.version is None
        [event] = await storage.runs.events(run.run_id, 0, 10)
        assert event.body == Queued(run_id=run.run_id, model=run.model)
        assert event.time == make.queued(run).time

    async def test_a_repeated_request_id_finds_the_first_run(self, storage, make):
        first = await accepted(storage, make, asked=make.asked("abc"))
        again = make.run(asked=make.asked("abc"))
        answer = await storage.runs.accept(again, make.queued(again))
        assert answer == Accepted(first.run_id, created=False)
        assert await storage.runs.get(again.run_id) is None

    async def test_a_request_id_with_another_request_is_refused(self, storage, make):
        await accepted(storage, make, asked=make.asked("abc"))
        other = make.run(asked=make.asked("abc", "other"))
        with pytest.raises(EpochdError) as caught:
            await storage.runs.accept(other, make.queued(other))
        assert caught.value.reason is Reason.REQUEST_ID_REUSED
        assert caught.value.metadata == {"request_id": "abc", "field": "model_name"}
        assert await storage.runs.get(other.run_id) is None

    async def test_runs_without_a_request_id_are_all_new(self, storage, make):
        runs = [make.run() for _ in range(3)]
        answers = [await storage.runs.accept(run, make.queued(run)) for run in runs]
        assert all(answer.created for answer in answers)

    async def test_of_a_hundred_at_once_with_one_request_id_one_is_created(self, storage, make):
        runs = [make.run(asked=make.asked("same")) for _ in range(100)]
        answers = await asyncio.gather(*(storage.runs.accept(run, make.queued(run)) for run in runs))
        [created] = [answer for answer in answers if answer.created]
        assert {answer.run_id for answer in answers} == {created.run_id}
        assert len(await unfinished(storage)) == 1

    async def test_a_bad_one_among_many_at_once_fails_alone(self, storage, make):
        await accepted(storage, make, asked=make.asked("taken"))
        other = make.asked("taken", "other")
        runs = [make.run(asked=other if n == 7 else make.asked(f"n-{n}")) for n in range(20)]
        answers = await asyncio.gather(
            *(storage.runs.accept(run, make.queued(run)) for run in runs), return_exceptions=True
        )
        assert [n for n, answer in enumerate(answers) if isinstance(answer, EpochdError)] == [7]
        assert len(await unfinished(storage)) == 20

    async def test_repeating_an_acceptance_changes_nothing(self, storage, make):
        """After a lost connection nobody knows whether the first was committed."""
        run = await accepted(storage, make)
        assert (await storage.runs.accept(run, make.queued(run))).created
        assert len(await storage.runs.events(run.run_id, 0, 10)) == 1

    async def test_repeating_one_with_a_request_id_changes_nothing(self, storage, make):
        run = await accepted(storage, make, asked=make.asked("abc"))
        assert (await storage.runs.accept(run, make.queued(run))).created
        assert len(await storage.runs.events(run.run_id, 0, 10)) == 1

    async def test_a_run_on_a_missing_dataset_is_refused_and_leaves_nothing(self, storage, make):
        run = make.run(dataset="0" * 64)
        with pytest.raises(EpochdError) as caught:
            await storage.runs.accept(run, make.queued(run))
        assert caught.value.reason is Reason.DATASET_NOT_FOUND
        assert await storage.runs.get(run.run_id) is None

    async def test_the_run_that_a_request_made_is_found(self, storage, make):
        run = await accepted(storage, make, asked=make.asked("abc"))
        assert await storage.runs.find_made(make.asked("abc")) == run.run_id
        assert await storage.runs.find_made(make.asked("abcd")) is None
        with pytest.raises(EpochdError, match="model_name differs"):
            await storage.runs.find_made(make.asked("abc", "other"))


class TestAppend:
    async def test_running_sets_the_start_time_once(self, storage, make):
        run = await running(storage, make)
        await make.append(storage.runs, run.run_id, [make.event(3, started(make))], state=RunState.RUNNING)
        found = (await storage.runs.get(run.run_id)).run
        assert found.state is RunState.RUNNING
        assert found.start_time == make.event(2, log(0)).time

    async def test_keeps_the_latest_log(self, storage, make):
        run = await running(storage, make)
        bodies = [log(0, 2.5), log(100, 1.5), Warned(reason="SLOW", message="…")]
        await make.append(
            storage.runs, run.run_id, [make.event(3 + n, body) for n, body in enumerate(bodies)]
        )
        found = (await storage.runs.get(run.run_id)).run
        assert (found.latest_log.epoch, found.latest_log.loss, found.latest_log.lr) == (100, 1.5, 0.01)
        assert found.latest_sequence == 5

    @pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, 5e-324, 1.7976931348623157e308])
    async def test_any_loss_comes_back(self, storage, make, loss):
        run = await running(storage, make)
        await make.append(storage.runs, run.run_id, [make.event(3, log(0, loss))])
        found = (await storage.runs.get(run.run_id)).run.latest_log.loss
        assert found == loss or (math.isnan(found) and math.isnan(loss))
        [event] = await storage.runs.events(run.run_id, 2, 1)
        assert event.body.loss == loss or math.isnan(loss)

    async def test_a_gap_is_refused(self, storage, make):
        run = await running(storage, make)
        with pytest.raises(SequenceConflictError):
            await make.append(storage.runs, run.run_id, [make.event(4, log(0))])
        assert len(await storage.runs.events(run.run_id, 0, 10)) == 2

    async def test_other_events_in_place_of_stored_ones_are_refused(self, storage, make):
        run = await running(storage, make)
        with pytest.raises(SequenceConflictError):
            await make.append(storage.runs, run.run_id, [make.event(2, log(0))])

    async def test_repeating_an_append_changes_nothing(self, storage, make):
        run = await running(storage, make)
        events = [make.event(3, log(0)), make.event(4, log(100))]
        await make.append(storage.runs, run.run_id, events)
        await make.append(storage.runs, run.run_id, events)
        assert [event.sequence for event in await storage.runs.events(run.run_id, 0, 10)] == [1, 2, 3, 4]

    async def test_of_two_at_once_for_the_same_sequence_one_is_stored(self, storage, make):
        run = await running(storage, make)
        both = [make.append(storage.runs, run.run_id, [make.event(3, log(n))]) for n in range(2)]
        answers = await asyncio.gather(*both, return_exceptions=True)
        assert sum(isinstance(answer, SequenceConflictError) for answer in answers) == 1
        assert len(await storage.runs.events(run.run_id, 0, 10)) == 3

    async def test_an_unknown_run_is_named(self, storage, make):
        with pytest.raises(EpochdError) as caught:
            await make.append(storage.runs, make.run_id(), [make.event(1, log(0))])
        assert caught.value.reason is Reason.RUN_NOT_FOUND
        assert caught.value.metadata["name"].startswith("runs/")

    @pytest.mark.parametrize("epoch", [None, 37])
    async def test_failure_ends_the_run_and_is_kept(self, storage, make, epoch):
        run = await running(storage, make)
        failure = Failure(reason="LOSS_NOT_FINITE", message="The loss is NaN.", hint="Lower lr.", epoch=epoch)
        await make.append(storage.runs, run.run_id, [make.event(3, failure)], state=RunState.FAILED)
        found = (await storage.runs.get(run.run_id)).run
        assert (found.state, found.failure) == (RunState.FAILED, failure)
        assert found.end_time == make.event(3, failure).time

    async def test_nothing_follows_the_end(self, storage, make):
        run = await running(storage, make)
        await make.append(
            storage.runs, run.run_id, [make.event(3, Cancelled(epochs=5))], state=RunState.CANCELLED
        )
        with pytest.raises(SequenceConflictError):
            await make.append(storage.runs, run.run_id, [make.event(4, log(0))])
        assert (await storage.runs.get(run.run_id)).run.state is RunState.CANCELLED

    async def test_a_state_may_change_without_an_event(self, storage, make):
        run = await running(storage, make)
        await make.append(storage.runs, run.run_id, [], state=RunState.QUEUED)
        assert (await storage.runs.get(run.run_id)).run.state is RunState.QUEUED


class TestEvents:
    async def test_a_page_of_events_is_bounded_in_bytes_but_never_empty(self, storage, make):
        run = make.run()
        await storage.runs.accept(run, make.queued(run))
        logs = [EpochLog(epoch=n, loss=1.0, lr=0.1, parameters={"w": np.zeros(2_500)}) for n in range(10)]
        await make.append(storage.runs, run.run_id, [make.event(2 + n, log) for n, log in enumerate(logs)])
        for nbytes, expected in (
            (1, [1]),
            (30_000, [1, 2]),
            (50_000, [1, 2, 3]),
            (10**9, list(range(1, 12))),
        ):
            found = await storage.runs.events(run.run_id, 0, 100, nbytes)
            assert [event.sequence for event in found] == expected
        assert len(await storage.runs.events(run.run_id, 5, 100, 1)) == 1
        assert len(await storage.runs.events(run.run_id, 11, 100, 1)) == 0

    async def test_come_in_order_after_a_sequence_and_at_most_so_many(self, storage, make):
        run = await running(storage, make)
        await make.append(storage.runs, run.run_id, [make.event(n, log(n)) for n in range(3, 500)])
        found = await storage.runs.events(run.run_id, 250, 100)
        assert [event.sequence for event in found] == list(range(251, 351))
        assert [event.body.epoch for event in found] == list(range(251, 351))

    async def test_of_an_unknown_run_are_none(self, storage, make):
        assert not await storage.runs.events(make.run_id(), 0, 10)


class TestSucceed:
    async def test_makes_a_version_and_ends_the_run(self, storage, make):
        run = await running(storage, make)
        time = make.event(3, log(0)).time
        event = await make.succeed(storage.runs, run.run_id, 3, time, make.trained(run.run_id), 0.25)
        assert event.body == Succeeded(
            model="house-price", version=1, epochs=2000, final_loss=8e-06, training_seconds=0.25
        )
        found = (await storage.runs.get(run.run_id)).run
        assert (found.state, found.version, found.end_time) == (RunState.SUCCEEDED, 1, time)
        assert found.latest_sequence == 3
        [last] = await storage.runs.events(run.run_id, 2, 10)
        assert (last.body, last.time) == (event.body, time)

    async def test_logs_the_events_that_came_with_it(self, storage, make):
        new = make.run()
        await storage.runs.accept(new, make.queued(new))
        before = [make.event(2, started(make)), *(make.event(n, log(n)) for n in range(3, 6))]
        arguments = (new.run_id, 6, make.event(6, log(0)).time, make.trained(new.run_id), 0.25, before)
        events = [await make.succeed(storage.runs, *arguments) for _ in range(2)]
        assert events[0] == events[1]
        found = (await storage.runs.get(new.run_id)).run
        assert (found.state, found.latest_sequence) == (RunState.SUCCEEDED, 6)
        assert found.start_time == before[0].time
        stored = await storage.runs.events(new.run_id, 1, 10)
        assert [event.sequence for event in stored] == [2, 3, 4, 5, 6]
        assert [event.body.epoch for event in stored[1:4]] == [3, 4, 5]

    async def test_versions_count_up_for_each_model(self, storage, make):
        for model, expected in [("a", 1), ("b", 1), ("a", 2), ("a", 3)]:
            run = await running(storage, make, model=model)
            event = await make.succeed(
                storage.runs, run.run_id, 3, run.create_time, make.trained(run.run_id), 1.0
            )
            assert (event.body.model, event.body.version) == (model, expected)

    async def test_many_at_once_get_versions_without_gaps(self, storage, make):
        runs = [await running(storage, make) for _ in range(30)]
        events = await asyncio.gather(
            *(
                make.succeed(storage.runs, r.run_id, 3, r.create_time, make.trained(r.run_id), 1.0)
                for r in runs
            )
        )
        assert sorted(event.body.version for event in events) == list(range(1, 31))

    async def test_a_conflict_leaves_no_version(self, storage, make):
        run = await running(storage, make)
        with pytest.raises(SequenceConflictError):
            await make.succeed(storage.runs, run.run_id, 9, run.create_time, make.trained(run.run_id), 1.0)
        assert await storage.models.list_models(10) == []
        assert (await storage.runs.get(run.run_id)).run.state is RunState.RUNNING

    async def test_a_cancelled_run_gets_no_version(self, storage, make):
        run = await running(storage, make)
        await make.append(
            storage.runs, run.run_id, [make.event(3, Cancelled(epochs=5))], state=RunState.CANCELLED
        )
        with pytest.raises(SequenceConflictError):
            await make.succeed(storage.runs, run.run_id, 4, run.create_time, make.trained(run.run_id), 1.0)
        assert await storage.models.list_models(10) == []

    async def test_repeating_it_gives_the_same_event_and_no_second_version(self, storage, make):
        run = await running(storage, make)
        ends = [
            await make.succeed(storage.runs, run.run_id, 3, run.create_time, make.trained(run.run_id), 1.0)
            for _ in range(2)
        ]
        assert ends[0].body == ends[1].body
        assert len(await storage.models.list_versions("house-price", 10)) == 1

    async def test_an_unknown_run_is_named(self, storage, make):
        run_id = make.run_id()
        with pytest.raises(EpochdError) as caught:
            await make.succeed(storage.runs, run_id, 3, make.run().create_time, make.trained(run_id), 1.0)
        assert caught.value.reason is Reason.RUN_NOT_FOUND


class TestPage:
    async def test_is_newest_first_and_goes_on_before_an_id(self, storage, make):
        ids = [(await accepted(storage, make)).run_id for _ in range(7)]
        first = await storage.runs.page(limit=3, before=None, states=[], model=None)
        rest = await storage.runs.page(limit=9, before=first[-1].run_id, states=[], model=None)
        assert [run.run_id for run in first + rest] == ids[::-1]

    async def test_filters_by_state_and_model(self, storage, make):
        queued = await accepted(storage, make, model="a")
        busy = await running(storage, make, model="a")
        await running(storage, make, model="b")
        both = [RunState.QUEUED, RunState.RUNNING]
        found = await storage.runs.page(limit=9, before=None, states=both, model="a")
        assert [run.run_id for run in found] == [busy.run_id, queued.run_id]
        found = await storage.runs.page(limit=9, before=None, states=[RunState.QUEUED], model=None)
        assert [run.run_id for run in found] == [queued.run_id]


class TestDelete:
    async def test_deletes_run_and_log_but_not_the_version(self, storage, make):
        run = await running(storage, make)
        await make.succeed(storage.runs, run.run_id, 3, run.create_time, make.trained(run.run_id), 1.0)
        await storage.runs.delete(run.run_id)
        assert await storage.runs.get(run.run_id) is None
        assert not await storage.runs.events(run.run_id, 0, 10)
        assert len(await storage.models.list_versions("house-price", 10)) == 1

    async def test_of_an_unknown_run_is_refused(self, storage, make):
        with pytest.raises(EpochdError) as caught:
            await storage.runs.delete(make.run_id())
        assert caught.value.reason is Reason.RUN_NOT_FOUND

    async def test_a_run_that_has_not_ended_stays(self, storage, make):
        run = await accepted(storage, make)
        with pytest.raises(EpochdError) as caught:
            await storage.runs.delete(run.run_id)
        assert caught.value.reason is Reason.RUN_NOT_TERMINAL
        assert await storage.runs.get(run.run_id) is not None


async def test_times_keep_their_microseconds(storage, make):
    run = make.run(create_time=make.run().create_time + timedelta(microseconds=1))
    await storage.runs.accept(run, make.queued(run))
    assert (await storage.runs.get(run.run_id)).run.create_time == run.create_time


class TestRecordMany:
    async def test_what_cannot_be_written_fails_alone_and_says_why(self, storage, make):
        """A good append, a gap, an unknown run, a success and the same run's success once more."""
        runs = [await running(storage, make) for _ in range(3)]
        success = Success(
            claim=1,
            run_id=runs[2].run_id,
            sequence=3,
            time=runs[2].create_time,
            trained=make.trained(runs[2].run_id),
            training_seconds=1.0,
        )
        writes = [
            Append(claim=1, run_id=runs[0].run_id, events=[make.event(3, log(0))]),
            Append(claim=1, run_id=runs[1].run_id, events=[make.event(9, log(0))]),
            Append(claim=1, run_id=make.run_id(), events=[make.event(2, log(0))]),
            success,
            success,
        ]
        nothing, gap, unknown, end, again = await storage.runs.record(writes)
        assert nothing is None
        assert isinstance(gap, SequenceConflictError)
        assert unknown.reason is Reason.RUN_NOT_FOUND
        assert end == again
        assert end.body.version == 1
        found = [(await storage.runs.get(run.run_id)).run for run in runs]
        assert [run.latest_sequence for run in found] == [3, 2, 3]
        assert [run.state.name for run in found] == ["RUNNING", "RUNNING", "SUCCEEDED"]

    async def test_a_thousand_ends_of_all_kinds_are_as_if_each_had_come_alone(self, storage, make):
        """More rows than go into one statement; half of the models have two versions from this one write."""
        new = [make.run(model=f"m{n % 300}") for n in range(400)]
        await asyncio.gather(*(storage.runs.accept(run, make.queued(run)) for run in new))
        before = [make.event(2, started(make)), *(make.event(n, log(n)) for n in range(3, 23))]
        writes = [
            Append(
                claim=1,
                run_id=run.run_id,
                events=[*before, make.event(23, Cancelled(epochs=n))],
                state=RunState.CANCELLED,
            )
            if n % 4 == 0
            else Success(
                claim=1,
                run_id=run.run_id,
                sequence=23,
                time=START,
                trained=make.trained(run.run_id),
                training_seconds=1.0,
                before=before,
            )
            for n, run in enumerate(new)
        ]
        results = await storage.runs.record(writes)
        given = [(r.body.model, r.body.version) for r in results if r is not None]
        assert len(given) == len(set(given)) == 300
        assert {version for _, version in given} == {1, 2}
        for n in (0, 1, 399):
            found = (await storage.runs.get(new[n].run_id)).run
            assert found.state is (RunState.SUCCEEDED if n % 4 else RunState.CANCELLED)
            assert (found.latest_sequence, found.start_time) == (23, before[0].time)
            assert [e.sequence for e in await storage.runs.events(new[n].run_id, 0, 99)] == list(range(1, 24))
