"""Servers that share a PostgreSQL, each a service with an executor inside the loop: who trains what, and who sees it.

A server is *silenced* by ending its beats: to the others it looks dead, while its training goes on as that of one that
was paused, or whose network was cut.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from sqlalchemy import update

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.runs import Cancelled, EpochLog, Queued, RunState, Started, Succeeded, Warned
from epochd_server.runs import held
from epochd_server.runs.service import RunService
from epochd_server.runs.settings import RunSettings
from epochd_server.storage import Answers, Database, ModelChanges, SqlCheckpoints, SqlClaims
from epochd_server.storage.schema import servers

pytestmark = pytest.mark.alone

_numbers = itertools.count()


@dataclass
class Replica:
    """One server."""

    service: RunService
    executor: object
    claims: SqlClaims
    database: Database

    async def silence(self) -> None:
        """Others find that it is dead; it does not know."""
        await self.service._keeper.close()
        gone = update(servers).where(servers.c.server_id == self.database.server).values(renewed=0)
        await self.database.write(lambda connection: connection.execute(gone).rowcount)

    async def wake(self) -> None:
        """It beats again."""
        self.service._keeper._tasks = [asyncio.create_task(self.service._keeper._beat_on())]


class DeafClaims(SqlClaims):
    """Claims of a server that hears no notice."""

    async def notices(self):
        await asyncio.Event().wait()
        yield


@pytest.fixture
def shared_url(postgres) -> str:
    return postgres.new_database(f"sharing_{next(_numbers)}")


@pytest.fixture
async def make_replica(shared_url, store, planner, executor, tmp_path):
    replicas: list[Replica] = []

    async def make(kind: type[SqlClaims] = SqlClaims, lease_s: float = 30.0, **settings) -> Replica:
        database = Database(shared_url)
        answers = Answers(database, 86_400.0)
        claims = kind(database, ModelChanges(), answers, lease_s=lease_s)
        own_store = type(store)(database, store._artifacts, ModelChanges(), answers)
        own_executor = type(executor)()
        own_executor.begin.set()
        own_executor.go.set()
        # Nothing becomes long by a slow machine: a brief run behind it would have a slot, and not wait.
        bounds = RunSettings(cohorts=False, max_cohort_seconds=3_600.0, **settings)
        checkpoints = SqlCheckpoints(database, store._artifacts)
        service = RunService(own_store, planner, own_executor, bounds, NoVersions(), claims, checkpoints)
        await service.start()
        replicas.append(Replica(service, own_executor, claims, database))
        return replicas[-1]

    yield make
    for replica in replicas:
        await replica.service.close()
        replica.database.close()


class NoVersions:
    """A registry that nobody asks."""


@pytest.fixture
def until() -> Callable:
    """Waits until something holds."""

    async def wait(holds, seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while not await holds():  # noqa: ASYNC110 - it is in a database
                await asyncio.sleep(0.02)

    return wait


def kinds(events):
    return [type(event.body) for event in events]


def told(events):
    return [(event.sequence, event.time, type(event.body)) for event in events]


def assert_whole(events) -> None:
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [event.body.epoch for event in events if isinstance(event.body, EpochLog)] == [0, 5, 10, 15]
    assert kinds(events).count(Started) == 1
    assert kinds(events)[-1] is Succeeded


async def test_any_server_shows_what_another_trains_as_it_happens(make_replica, plan, watch_all):
    one, other = await make_replica(), await make_replica()
    one.executor.go.clear()
    accepted = await one.service.submit(plan(), "me")
    seen = []
    async for page in other.service.watch(accepted.run_id):
        seen += page
        if len(seen) == 6:  # all but the end, which waits for ``go``
            one.executor.go.set()
    assert_whole(seen)
    assert told(seen) == told(await watch_all(one.service, accepted.run_id))
    assert (await other.service.get(accepted.run_id)).state is RunState.SUCCEEDED
    assert other.service._mirrors.watched == []
    assert not other.executor.cohorts


async def test_a_server_that_hears_nothing_finds_out_all_the_same(make_replica, plan, watch_all):
    one, other = await make_replica(DeafClaims), await make_replica(DeafClaims)
    one.executor.begin.clear()
    first, second = [await one.service.submit(plan(seed=seed), "me") for seed in (1, 2)]
    watchers = [asyncio.create_task(watch_all(other.service, run.run_id)) for run in (first, second)]
    await other.service.cancel(second.run_id)
    one.executor.begin.set()
    async with asyncio.timeout(60):
        assert_whole(await watchers[0])
        assert kinds(await watchers[1])[-1] in {Cancelled, Succeeded}


async def test_the_runs_of_a_silent_server_move_and_it_writes_nothing_more(
    make_replica, plan, watch_all, until
):
    one, other = await make_replica(), await make_replica()
    one.executor.go.clear()
    training, waiting = [await one.service.submit(plan(seed=seed), "me") for seed in (1, 2)]
    watchers = [
        asyncio.create_task(watch_all(replica.service, run.run_id))
        for replica in (one, other)
        for run in (training, waiting)
    ]
    await one.executor.until(cohorts=1)
    await one.silence()
    await until(lambda: _has_ended(other, training.run_id))
    one.executor.go.set()  # the old owner ends its training, too, and is refused
    await until(lambda: _knows_nothing(one))
    await one.wake()
    async with asyncio.timeout(60):
        logs = await asyncio.gather(*watchers)
    assert [told(log) for log in logs[:2]] == [told(log) for log in logs[2:]]
    for events in logs:
        assert_whole(events)
    assert [event.body.reason for event in logs[0] if isinstance(event.body, Warned)] == ["RUN_RESUMED"]
    assert training.run_id in one.executor.stops
    assert one.service._held.living() == []


async def _has_ended(replica: Replica, run_id: str) -> bool:
    return (await replica.service.get(run_id)).state.is_terminal


async def test_a_server_that_wakes_up_leaves_what_was_taken_before_it_has_anything_to_say(
    make_replica, plan, until
):
    one, other = await make_replica(), await make_replica()
    one.executor.begin.clear()
    other.executor.begin.clear()
    accepted = await one.service.submit(plan(), "me")
    await one.executor.until(cohorts=1)
    await one.silence()
    await other.executor.until(cohorts=1)
    await one.wake()
    await until(lambda: _knows_nothing(one))
    assert one.executor.stops == {accepted.run_id}
    assert [run.run_id for run in other.service._held.living()] == [accepted.run_id]


async def _knows_nothing(replica: Replica) -> bool:
    return not replica.service._held.living()


async def test_a_server_that_was_silent_but_not_missed_goes_on(make_replica, plan, watch_all):
    one = await make_replica(lease_s=1.0)
    one.executor.go.clear()
    accepted = await one.service.submit(plan(), "me")
    await one.silence()
    await one.wake()
    await asyncio.sleep(0.5)
    one.executor.go.set()
    events = await watch_all(one.service, accepted.run_id)
    assert_whole(events)
    assert Warned not in kinds(events)


async def test_a_waiting_run_of_another_server_is_cancelled_before_the_answer(make_replica, plan):
    one, other = await make_replica(), await make_replica()
    one.executor.go.clear()
    _, waiting = [await one.service.submit(plan(seed=seed), "me") for seed in (1, 2)]
    assert (await other.service.cancel(waiting.run_id)).state is RunState.CANCELLED


async def test_a_repeated_request_id_finds_the_run_of_another_server(make_replica, plan, watch_all):
    one, other = await make_replica(), await make_replica()
    first = await one.service.submit(plan("order-1"), "me")
    again = await other.service.submit(plan("order-1"), "me")
    assert (again.run_id, again.created) == (first.run_id, False)
    assert_whole(await watch_all(other.service, again.run_id))
    assert not other.executor.cohorts


async def test_a_stopping_server_says_so_to_those_who_watch_runs_of_others(make_replica, plan):
    one, other = await make_replica(), await make_replica()
    one.executor.go.clear()
    accepted = await one.service.submit(plan(), "me")

    async def watch_and_stop() -> None:
        async for page in other.service.watch(accepted.run_id):
            if kinds(page)[0] is Queued:
                await other.service.drain(0)

    with pytest.raises(EpochdError) as caught:
        await watch_and_stop()
    assert caught.value.reason is Reason.SERVER_STOPPING


async def test_what_waits_on_a_stopping_server_moves_before_it_has_stopped(make_replica, plan, watch_all):
    one, other = await make_replica(), await make_replica()
    one.executor.go.clear()
    training, waiting = [await one.service.submit(plan(seed=seed), "me") for seed in (1, 2)]
    await one.executor.until(cohorts=1)
    draining = asyncio.create_task(one.service.drain(20))
    async with asyncio.timeout(60):
        events = await watch_all(other.service, waiting.run_id)
    assert_whole(events)
    assert Warned not in kinds(events)
    assert not draining.done()
    one.executor.go.set()
    assert await draining
    assert_whole(await watch_all(other.service, training.run_id))


async def test_a_deleted_run_ends_its_watches_everywhere(make_replica, plan, watch_all, until):
    one, other = await make_replica(), await make_replica(DeafClaims)
    one.executor.go.clear()
    accepted = await one.service.submit(plan(), "me")
    log = asyncio.create_task(watch_all(other.service, accepted.run_id))
    mirrors = other.service._mirrors._mirrors

    async def is_watched() -> bool:
        return accepted.run_id in mirrors

    await until(is_watched)
    mirrors[accepted.run_id]._task.cancel()  # it reads nothing any more
    one.executor.go.set()
    await watch_all(one.service, accepted.run_id)
    await one.service.delete(accepted.run_id)
    with pytest.raises(EpochdError) as caught:
        async with asyncio.timeout(60):
            await log
    assert caught.value.reason is Reason.RUN_NOT_FOUND


class TestGiving:
    @pytest.fixture(autouse=True)
    def _share_short_queues(self, monkeypatch):
        monkeypatch.setattr(held, "_WORTH_SHARING_SECONDS", 0.0)

    async def test_an_idle_server_gets_runs_that_wait_elsewhere(self, make_replica, plan, watch_all):
        one = await make_replica()
        one.executor.go.clear()
        runs = [await one.service.submit(plan(seed=seed), "me") for seed in range(5)]
        watchers = [asyncio.create_task(watch_all(one.service, run.run_id)) for run in runs[1:]]
        other = await make_replica()
        async with asyncio.timeout(60):
            for events in await asyncio.gather(*watchers):
                assert_whole(events)
                assert Warned not in kinds(events)
        assert one.executor.cohorts == [[runs[0].run_id]]
        assert sorted(other.executor.cohorts) == [[run.run_id] for run in runs[1:]]
        one.executor.go.set()
        assert_whole(await watch_all(other.service, runs[0].run_id))

    async def test_half_of_the_queue_and_the_youngest_first(self, make_replica, plan):
        one = await make_replica()
        one.executor.go.clear()
        runs = [await one.service.submit(plan(seed=seed), "me") for seed in range(5)]
        spared = one.service._held.spare(1)
        assert [run.run_id for run in spared] == [run.run_id for run in (runs[4], runs[3])]
        for run in reversed(spared):
            one.service._held.take_back(run)
        assert [run.run_id for run in one.service._held.spare(9)] == [run.run_id for run in runs[:0:-1]]

    async def test_a_server_with_a_free_slot_or_a_short_queue_gives_nothing(
        self, make_replica, plan, monkeypatch
    ):
        one = await make_replica()
        assert one.service._held.spare(1) == []
        one.executor.go.clear()
        for seed in range(3):
            await one.service.submit(plan(seed=seed), "me")
        monkeypatch.setattr(held, "_WORTH_SHARING_SECONDS", 2.0)
        assert one.service._held.spare(1) == []

    async def test_a_notice_that_breaks_something_is_not_the_last_that_is_heeded(
        self, make_replica, plan, watch_all, monkeypatch
    ):
        one = await make_replica()
        one.executor.go.clear()
        runs = [await one.service.submit(plan(seed=seed), "me") for seed in range(2)]
        spare, broken = one.service._held.spare, []

        def break_once(slots: int):
            if not broken:
                broken.append(slots)
                raise RuntimeError("a bug")
            return spare(slots)

        monkeypatch.setattr(one.service._held, "spare", break_once)
        other = await make_replica()
        async with asyncio.timeout(60):
            assert_whole(await watch_all(other.service, runs[1].run_id))
        assert broken == [1]

    async def test_what_could_not_be_given_waits_again(self, make_replica, plan, watch_all, monkeypatch):
        one = await make_replica()
        one.executor.go.clear()
        runs = [await one.service.submit(plan(seed=seed), "me") for seed in range(3)]

        async def fail(*_):
            raise EpochdError(Reason.STORAGE_UNAVAILABLE)

        monkeypatch.setattr(one.claims, "give", fail)
        await one.service._keeper._share("nobody", "1")
        one.executor.go.set()
        for run in runs:
            assert_whole(await watch_all(one.service, run.run_id))

    async def test_what_is_given_to_a_server_that_is_gone_is_taken_by_who_lives(
        self, make_replica, plan, watch_all
    ):
        one = await make_replica()
        one.executor.go.clear()
        runs = [await one.service.submit(plan(seed=seed), "me") for seed in range(3)]
        await one.service._keeper._share("nobody", "2")
        assert len(one.service._held.living()) == 1
        one.executor.go.set()
        async with asyncio.timeout(60):
            for run in runs:
                assert_whole(await watch_all(one.service, run.run_id))

    async def test_a_run_that_is_cancelled_while_it_is_given_is_cancelled(
        self, make_replica, plan, watch_all
    ):
        one, other = await make_replica(), await make_replica()
        one.executor.go.clear()
        other.executor.begin.clear()
        await one.silence()
        await one.wake()
        _, waiting = [await one.service.submit(plan(seed=seed), "me") for seed in (1, 2)]
        [spared] = one.service._held.spare(1)
        assert spared.run_id == waiting.run_id
        await one.service.cancel(waiting.run_id)
        await one.claims.give([waiting.run_id], other.database.server)
        one.service._held.give_up(spared)
        async with asyncio.timeout(60):
            assert kinds(await watch_all(one.service, waiting.run_id)) == [Queued, Cancelled]
