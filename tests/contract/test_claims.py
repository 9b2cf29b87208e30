"""Which server has which run: leases, takeovers, and that nothing is written by who has lost a claim."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select, text, update

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.once import AnsweredBefore, Once
from epochd_server.domain.records import Append, ClaimLostError, NoticeKind
from epochd_server.domain.resources import VersionReference
from epochd_server.domain.runs import Cancelled, EpochLog, Failure, Paused, Resumed, RunState, Warned
from epochd_server.domain.stopping import Wish
from epochd_server.storage import Storage, open_storage
from epochd_server.storage.schema import servers

NOW = datetime(2026, 1, 2, tzinfo=UTC)
HOUR = 3_600_000_000
LIVE_THEN_SLEEP = """
import asyncio, pathlib, sys, time
from epochd_server.storage import open_storage
folder = pathlib.Path(sys.argv[1])
storage = open_storage(
    folder,
    convert=None,
    most_dataset_bytes=1,
    database_url=sys.argv[2],
    artifacts_url=str(folder.parent / "artifacts"),
)
asyncio.run(storage.claims.join())
print("lives", flush=True)
time.sleep(60)
"""


async def accepted(storage: Storage, make, **changed):
    run = make.run(**changed)
    await storage.runs.accept(run, make.queued(run))
    return run


async def everything(storage: Storage, run_id: str):
    stored = await storage.runs.get(run_id)
    return stored.run, [event.sequence for event in await storage.runs.events(run_id, 0, 99)]


async def silence(storage: Storage, micros: int = HOUR) -> None:
    """A storage's server was last heard of so long ago."""
    shift = update(servers).where(servers.c.server_id == storage.database.server)
    await storage.database.write(
        lambda connection: connection.execute(shift.values(renewed=servers.c.renewed - micros)).rowcount
    )


def wait_until_one_listens(storage: Storage) -> None:
    listening = text("SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN epochd' AND state = 'idle'")
    until = time.monotonic() + 10
    while not storage.database._read(lambda connection: connection.scalar(listening)):
        assert time.monotonic() < until
        time.sleep(0.02)


def live_then_sleep(folder: Path, url: str) -> subprocess.Popen[str]:
    """A server that joined and was not stopped."""
    command = [sys.executable, "-c", LIVE_THEN_SLEEP, str(folder), url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "lives\n"
    return process


@pytest.fixture
def open_server(tmp_path, emptied_postgres_url):
    """Opens storages of servers that share one PostgreSQL, each with a data folder of its own unless named."""
    opened: list[Storage] = []

    async def open_one(folder: str | None = None) -> Storage:
        storage = open_storage(
            tmp_path / (folder or f"data-{len(opened)}"),
            convert=lambda *_: None,
            most_dataset_bytes=1,
            database_url=emptied_postgres_url,
            artifacts_url=str(tmp_path / "artifacts"),
        )
        opened.append(storage)
        await storage.claims.join()
        return storage

    yield open_one
    for storage in opened:
        storage.close()


@pytest.fixture
async def claimed_anew(storage, make):
    """A run of claim 1 that was claimed again."""
    await storage.claims.join()
    run = await accepted(storage, make)
    [stored] = await storage.claims.take(9, [run.run_id])
    assert (stored.run.run_id, stored.claim) == (run.run_id, 2)
    return run


class TestFencing:
    @pytest.mark.parametrize(
        ("body", "state"),
        [
            (EpochLog(epoch=0, loss=0.5, lr=0.01), None),
            (Failure(reason="LOSS_NOT_FINITE", message="…"), RunState.FAILED),
            (Cancelled(epochs=3), RunState.CANCELLED),
        ],
    )
    async def test_a_write_by_an_old_claim_is_refused_and_changes_nothing(
        self, storage, make, claimed_anew, body, state
    ):
        run_id = claimed_anew.run_id
        before = await everything(storage, run_id)
        with pytest.raises(ClaimLostError):
            await make.append(storage.runs, run_id, [make.event(2, body)], state=state)
        assert await everything(storage, run_id) == before
        await make.append(storage.runs, run_id, [make.event(2, body)], state=state, claim=2)
        assert (await everything(storage, run_id))[1] == [1, 2]

    async def test_a_state_alone_is_refused_too(self, storage, make, claimed_anew):
        with pytest.raises(ClaimLostError):
            await make.append(storage.runs, claimed_anew.run_id, [], state=RunState.RUNNING)
        assert (await storage.runs.get(claimed_anew.run_id)).run.state is RunState.QUEUED

    async def test_a_success_by_an_old_claim_makes_no_version(self, storage, make, claimed_anew):
        run_id = claimed_anew.run_id
        with pytest.raises(ClaimLostError):
            await make.succeed(storage.runs, run_id, 2, NOW, make.trained(run_id), 1.0)
        assert await storage.models.list_models(9) == []
        await make.succeed(storage.runs, run_id, 2, NOW, make.trained(run_id), 1.0, claim=2)
        assert len(await storage.models.list_versions("house-price", 9)) == 1

    async def test_a_success_after_the_new_owners_is_refused_and_not_taken_for_a_repetition(
        self, storage, make, claimed_anew
    ):
        run_id = claimed_anew.run_id
        await make.succeed(storage.runs, run_id, 2, NOW, make.trained(run_id), 1.0, claim=2)
        with pytest.raises(ClaimLostError):
            await make.succeed(storage.runs, run_id, 2, NOW, make.trained(run_id), 1.0)
        assert len(await storage.models.list_versions("house-price", 9)) == 1

    async def test_among_many_it_is_refused_alone(self, storage, make, claimed_anew):
        others = [await accepted(storage, make) for _ in range(20)]
        ids = [run.run_id for run in (*others[:7], claimed_anew, *others[7:])]
        log = EpochLog(epoch=0, loss=0.5, lr=0.01)
        results = await storage.runs.record(
            [Append(run_id=run_id, claim=1, events=[make.event(2, log)]) for run_id in ids]
        )
        assert [n for n, result in enumerate(results) if result is not None] == [7]
        assert isinstance(results[7], ClaimLostError)
        assert [len(await storage.runs.events(run_id, 0, 9)) for run_id in ids[6:9]] == [2, 1, 2]

    async def test_a_repeated_write_of_the_owner_still_changes_nothing(self, storage, make, claimed_anew):
        for _ in range(2):
            warned = Warned(reason="SLOW", message="…")
            await make.append(storage.runs, claimed_anew.run_id, [make.event(2, warned)], claim=2)
        assert (await everything(storage, claimed_anew.run_id))[1] == [1, 2]


class TestClaims:
    async def test_who_accepts_a_run_has_it(self, storage, make):
        await storage.claims.join()
        run = await accepted(storage, make)
        assert (await storage.runs.get(run.run_id)).claim == 1
        assert await storage.claims.held() == {run.run_id: 1}
        assert await storage.claims.take(9) == []

    async def test_a_run_that_ended_is_nobodys(self, storage, make):
        await storage.claims.join()
        run = await accepted(storage, make)
        await make.append(
            storage.runs, run.run_id, [make.event(2, Cancelled(epochs=0))], state=RunState.CANCELLED
        )
        assert (await storage.runs.get(run.run_id)).claim is None
        assert await storage.claims.held() == {}
        assert await storage.claims.take(9, [run.run_id]) == []

    async def test_a_start_takes_what_an_earlier_life_left_oldest_first_and_at_most_so_many(
        self, open_at, make
    ):
        storage = open_at("data")
        await storage.claims.join()
        runs = [await accepted(storage, make) for _ in range(5)]
        again = open_at("data")
        await again.claims.join()
        first = await again.claims.take(3)
        rest = await again.claims.take(3)
        assert [one.run.run_id for one in first + rest] == [run.run_id for run in runs]
        assert {one.claim for one in first + rest} == {2}
        assert (first[0].client, first[0].wish) == ("tests", None)

    async def test_joining_again_frees_what_this_server_had(self, storage, make):
        await storage.claims.join()
        run = await accepted(storage, make)
        await storage.claims.join()
        assert [one.run.run_id for one in await storage.claims.take(9)] == [run.run_id]

    async def test_a_wish_to_cancel_is_kept_until_the_run_ends(self, storage, make):
        await storage.claims.join()
        run, other = await accepted(storage, make), await accepted(storage, make)
        assert (await storage.claims.wish(run.run_id, Wish.CANCEL)).state is RunState.QUEUED
        with pytest.raises(EpochdError) as caught:
            await storage.claims.wish(make.run_id(), Wish.CANCEL)
        assert caught.value.reason is Reason.RUN_NOT_FOUND
        assert (await storage.runs.get(run.run_id)).wish is Wish.CANCEL
        assert (await storage.runs.get(other.run_id)).wish is None
        assert (await storage.claims.asked()).wishes == {run.run_id: Wish.CANCEL}
        [taken] = await storage.claims.take(1, [run.run_id])
        assert taken.wish is Wish.CANCEL
        end = [make.event(2, Cancelled(epochs=0))]
        await make.append(storage.runs, run.run_id, end, state=RunState.CANCELLED, claim=2)
        assert (await storage.claims.asked()).wishes == {}
        assert (await storage.claims.wish(run.run_id, Wish.PAUSE)).state is RunState.CANCELLED

    @pytest.mark.parametrize(
        ("wish", "body", "state"),
        [(Wish.PAUSE, Paused(epochs=1), RunState.PAUSED), (Wish.RESUME, Resumed(), RunState.QUEUED)],
    )
    async def test_what_is_done_is_wished_no_more_but_what_came_meanwhile_is(
        self, storage, make, wish, body, state
    ):
        await storage.claims.join()
        run = await accepted(storage, make)
        await storage.claims.wish(run.run_id, wish)
        await make.append(storage.runs, run.run_id, [make.event(2, body)], state=state)
        assert (await storage.runs.get(run.run_id)).wish is None
        await storage.claims.wish(run.run_id, Wish.CANCEL)
        await make.append(storage.runs, run.run_id, [make.event(3, body)], state=state)
        assert (await storage.runs.get(run.run_id)).wish is Wish.CANCEL

    async def test_a_wish_and_its_answer_are_stored_together(self, storage, make):
        await storage.claims.join()
        run = await accepted(storage, make)
        once = Once(make.asked("r-1"), lambda seen: seen.state.value.encode())
        await storage.claims.wish(run.run_id, Wish.PAUSE, once)
        await storage.claims.wish(run.run_id, Wish.RESUME)
        with pytest.raises(AnsweredBefore) as caught:
            await storage.claims.wish(run.run_id, Wish.PAUSE, once)
        assert caught.value.answer == RunState.QUEUED.value.encode()
        assert (await storage.runs.get(run.run_id)).wish is Wish.RESUME

    async def test_renewing_gives_the_newest_sequences_of_watched_runs(self, storage, make):
        await storage.claims.join()
        run = await accepted(storage, make)
        await make.append(storage.runs, run.run_id, [make.event(2, Warned(reason="SLOW", message="…"))])
        renewal = await storage.claims.renew([run.run_id, make.run_id()])
        assert renewal.newest == {run.run_id: 2}
        assert not renewal.late


class TestSharing:
    """Servers on one PostgreSQL."""

    async def test_the_runs_of_a_living_server_are_its_own(self, open_server, make):
        one, other = await open_server(), await open_server()
        run = await accepted(one, make)
        assert await other.claims.take(9) == []
        assert (await other.runs.get(run.run_id)).claim is None

    @pytest.mark.parametrize("micros", [HOUR, -HOUR])
    async def test_the_runs_of_a_silent_server_are_taken_and_it_learns_of_it(self, open_server, make, micros):
        """Also where the database's clock went back: nobody who lives can have been renewed in an hour."""
        one, other = await open_server(), await open_server()
        run = await accepted(one, make)
        await silence(one, micros)
        assert (await other.claims.renew([])).missed
        [taken] = await other.claims.take(9)
        assert (taken.run.run_id, taken.claim) == (run.run_id, 2)
        assert not (await other.claims.renew([])).missed
        assert (await one.claims.renew([])).late
        assert await one.claims.held() == {}
        with pytest.raises(ClaimLostError):
            await make.append(one.runs, run.run_id, [make.event(2, Warned(reason="SLOW", message="…"))])

    async def test_a_server_that_was_late_but_not_missed_keeps_its_runs(self, open_server, make):
        one, other = await open_server(), await open_server()
        run = await accepted(one, make)
        await silence(one)
        assert (await one.claims.renew([])).late
        assert await other.claims.take(9) == []
        assert await one.claims.held() == {run.run_id: 1}
        assert not (await one.claims.renew([])).late

    async def test_leaving_frees_runs_at_once(self, open_server, make):
        one, other = await open_server(), await open_server()
        run = await accepted(one, make)
        await one.claims.leave()
        assert [taken.run.run_id for taken in await other.claims.take(9)] == [run.run_id]

    async def test_of_many_that_take_at_once_each_run_goes_to_one(self, open_server, make):
        one, *others = [await open_server() for _ in range(5)]
        ids = {(await accepted(one, make)).run_id for _ in range(200)}
        await one.claims.leave()
        shares = await asyncio.gather(*(other.claims.take(60) for other in others for _ in range(3)))
        taken = [stored.run.run_id for share in shares for stored in share]
        assert len(taken) == len(set(taken))
        assert set(taken) == ids

    async def test_a_killed_server_of_the_same_folder_is_known_to_be_gone(
        self, open_server, make, tmp_path, emptied_postgres_url
    ):
        one = await open_server("shared")
        process = await asyncio.to_thread(live_then_sleep, tmp_path / "shared", emptied_postgres_url)
        others = select(servers.c.server_id).where(servers.c.server_id != one.database.server)
        [other] = await one.database.read(lambda connection: connection.execute(others).scalars().all())
        await one.claims.take(9)
        assert await one.database.read(lambda connection: connection.scalar(others)) == other
        process.kill()
        process.communicate()
        await one.claims.take(9)
        assert await one.database.read(lambda connection: connection.scalar(others)) is None
        assert one.presence.gone() == []

    async def test_a_database_does_not_wait_for_a_server_that_is_stopped_in_a_transaction(self, open_server):
        one = await open_server()
        shown = await one.database.write(
            lambda connection: connection.scalar(text("SHOW idle_in_transaction_session_timeout"))
        )
        assert shown == "10s"


class TestGiving:
    async def test_a_given_run_is_the_others_and_it_learns_of_it_until_it_claims_it(self, open_server, make):
        one, other = await open_server(), await open_server()
        given, kept = [await accepted(one, make) for _ in range(2)]
        await one.claims.give([given.run_id], other.database.server)
        assert await one.claims.held() == {kept.run_id: 1}
        assert (await other.claims.asked()).given == [given.run_id]
        assert (await one.claims.asked()).given == []
        [taken] = await other.claims.take(9, [given.run_id])
        assert (taken.run.run_id, taken.claim) == (given.run_id, 3)
        assert (await other.claims.asked()).given == []
        with pytest.raises(ClaimLostError):
            await make.append(one.runs, given.run_id, [make.event(2, Warned(reason="SLOW", message="…"))])

    async def test_a_run_may_be_given_to_whoever_takes_it_first(self, open_server, make):
        one, other = await open_server(), await open_server()
        run = await accepted(one, make)
        await one.claims.give([run.run_id], None)
        assert await one.claims.held() == {}
        assert [taken.claim for taken in await other.claims.take(9)] == [3]

    async def test_what_is_not_its_own_a_server_cannot_give(self, open_server, make):
        one, other = await open_server(), await open_server()
        run = await accepted(one, make)
        await other.claims.give([run.run_id], other.database.server)
        assert await one.claims.held() == {run.run_id: 1}

    async def test_a_wish_to_cancel_survives_giving(self, open_server, make):
        one, other = await open_server(), await open_server()
        run = await accepted(one, make)
        await one.claims.wish(run.run_id, Wish.CANCEL)
        await one.claims.give([run.run_id], other.database.server)
        assert (await other.claims.asked()).wishes == {run.run_id: Wish.CANCEL}
        [taken] = await other.claims.take(9, [run.run_id])
        assert taken.wish is Wish.CANCEL

    async def test_a_server_that_has_nothing_to_train_says_so_where_others_live(self, open_server):
        one, other = await open_server(), await open_server()
        hearing = await TestNotices().hear(one, 1)
        await other.claims.renew([], idle_slots=4)
        async with asyncio.timeout(5):
            [notice] = await hearing
        assert (notice.kind, notice.names) == (NoticeKind.IDLE, (other.database.server, "4"))


class TestNotices:
    async def hear(self, storage: Storage, notices: int):
        """The next notices; returns once the server listens."""
        heard = asyncio.create_task(self._collect(storage, notices))
        await asyncio.to_thread(wait_until_one_listens, storage)
        return heard

    async def _collect(self, storage: Storage, notices: int):
        heard = []
        async with aclosing(storage.claims.notices()) as told:
            async for notice in told:
                heard.append(notice)
                if len(heard) == notices:
                    return heard
        raise AssertionError("unreachable: notices never end")

    async def test_what_one_server_does_the_others_hear(self, open_server, make):
        one, other = await open_server(), await open_server()
        changed = []
        other.models.changes.subscribe(changed.append)
        await one.claims.renew([])
        hearing = await self.hear(other, 3)
        run = await accepted(one, make, model="m")
        await make.append(one.runs, run.run_id, [make.event(2, Warned(reason="SLOW", message="…"))])
        await make.succeed(one.runs, run.run_id, 3, NOW, make.trained(run.run_id), 1.0)
        await one.models.delete_version("m", 1)
        await one.claims.leave()
        async with asyncio.timeout(5):
            heard = await hearing
        assert [(notice.kind, notice.names) for notice in heard] == [
            (NoticeKind.LOGGED, (run.run_id,)),
            (NoticeKind.LOGGED, (run.run_id,)),
            (NoticeKind.FREED, ()),
        ]
        assert changed == ["m", "m"]

    async def test_a_wish_is_told_even_to_who_has_only_just_come(self, open_server, make):
        one, other = await open_server(), await open_server()
        run = await accepted(one, make)
        hearing = await self.hear(one, 1)
        await other.claims.wish(run.run_id, Wish.CANCEL)
        async with asyncio.timeout(5):
            [notice] = await hearing
        assert (notice.kind, notice.names) == (NoticeKind.WISHED, (run.run_id,))

    async def test_a_thousand_runs_fit_into_few_notices(self, open_server, make):
        one, other = await open_server(), await open_server()
        await one.claims.renew([])
        runs = [make.run() for _ in range(1_000)]
        await asyncio.gather(*(one.runs.accept(run, make.queued(run)) for run in runs))
        hearing = await self.hear(other, 4)
        log = EpochLog(epoch=0, loss=0.5, lr=0.01)
        await one.runs.record(
            [Append(run_id=run.run_id, claim=1, events=[make.event(2, log)]) for run in runs]
        )
        async with asyncio.timeout(5):
            heard = await hearing
        assert sorted(name for notice in heard for name in notice.names) == sorted(r.run_id for r in runs)

    async def test_a_lost_connection_is_made_again(self, open_server, make):
        one, other = await open_server(), await open_server()
        hearing = await self.hear(one, 1)
        cut = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'LISTEN epochd'")
        await other.database.write(lambda connection: connection.scalar(cut))
        await asyncio.to_thread(wait_until_one_listens, one)
        await other.claims.leave()
        async with asyncio.timeout(5):
            assert [notice.kind for notice in await hearing] == [NoticeKind.FREED]

    async def test_what_only_a_newer_server_understands_is_passed_over(self, open_server):
        one, other = await open_server(), await open_server()
        hearing = await self.hear(one, 1)
        future = text("SELECT pg_notify('epochd', 'someone future a b c')")
        await other.database.write(lambda connection: connection.scalar(future))
        await other.claims.leave()
        async with asyncio.timeout(5):
            assert [notice.kind for notice in await hearing] == [NoticeKind.FREED]

    async def test_on_sqlite_there_is_nobody_to_hear(self, tmp_path):
        storage = open_storage(tmp_path, convert=lambda *_: None, most_dataset_bytes=1)
        try:
            assert [notice async for notice in storage.claims.notices()] == []
            assert storage.claims.beat_s is None
        finally:
            storage.close()


async def test_a_version_of_another_server_is_found_and_its_alias_meant_at_once(open_server, make):
    one, other = await open_server(), await open_server()
    run = await accepted(one, make, model="m")
    await make.succeed(one.runs, run.run_id, 2, NOW, make.trained(run.run_id), 1.0)
    assert (await other.models.get_version(VersionReference("m"))).version == 1
