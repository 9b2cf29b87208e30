"""Reads and writes of every database: shared commits, and what happens when it is away."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, insert, select, text

from epochd_server.domain.errors import Code, EpochdError, Reason
from epochd_server.storage import Database
from epochd_server.storage.schema import models


@pytest.fixture
def database(database_url):
    database = Database(database_url)
    yield database
    database.close()


def add(name: str):
    row = {"model": name, "last_version": 1, "create_time": 0, "update_time": 0}
    return lambda connection: connection.execute(insert(models), row).rowcount


def names(connection) -> set[str]:
    return set(connection.execute(select(models.c.model)).scalars())


async def test_what_waits_at_the_same_time_shares_a_commit(database):
    counts = Counter()
    event.listen(database._writing, "commit", lambda _: counts.update(["commit"]))
    await asyncio.gather(*(database.write(add(f"m{n}")) for n in range(500)))
    assert len(await database.read(names)) == 500
    assert counts["commit"] < 10


async def test_a_write_can_be_read_when_it_returns(database):
    for n in range(20):
        await database.write(add(f"m{n}"))
        assert f"m{n}" in await database.read(names)


async def test_an_operation_that_raises_is_undone_alone(database):
    def half(connection) -> None:
        add("half")(connection)
        raise EpochdError(Reason.ALIAS_IN_USE)

    waiting = [database.write(add("a")), database.write(half), database.write(add("b"))]
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [isinstance(answer, EpochdError) for answer in answers] == [False, True, False]
    assert await database.read(names) == {"a", "b"}


async def test_an_error_of_the_database_itself_fails_its_operation_alone(database):
    waiting = [database.write(add(name)) for name in ["a", "b", "a", "c"]]
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [isinstance(answer, Exception) for answer in answers] == [False, False, True, False]
    assert await database.read(names) == {"a", "b", "c"}


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans()), max_size=40))
def test_any_mix_ends_as_if_each_had_come_alone(database, mix):
    """The oracle is a set: a name that is new and whose operation does not raise is added."""

    def operation(name, raises):
        def run(connection) -> None:
            add(name)(connection)
            if raises:
                raise ValueError(name)

        return run

    async def all_at_once():
        await database.write(lambda connection: connection.execute(models.delete()).rowcount)
        waiting = [database.write(operation(*one)) for one in mix]
        return await asyncio.gather(*waiting, return_exceptions=True), await database.read(names)

    answers, found = asyncio.run(all_at_once())
    expected: set[str] = set()
    for (name, raises), answer in zip(mix, answers, strict=True):
        assert (answer is None) == (name not in expected and not raises)
        if answer is None:
            expected.add(name)
    assert found == expected


async def test_an_operation_whose_caller_left_before_it_began_is_not_run(database):
    begun, go_on = threading.Event(), threading.Event()

    def slow(connection) -> None:
        begun.set()
        go_on.wait(5)

    first = asyncio.ensure_future(database.write(slow))
    await asyncio.to_thread(begun.wait, 5)
    second = asyncio.ensure_future(database.write(add("left")))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    go_on.set()
    await first
    await database.write(add("last"))
    assert await database.read(names) == {"last"}


async def test_a_database_that_does_not_answer_is_unavailable_after_the_time_limit(database_url):
    database = Database(database_url, timeout_s=0.2)
    go_on = threading.Event()
    for call in (database.write, database.read):
        started = time.monotonic()
        with pytest.raises(EpochdError) as caught:
            await call(lambda _: go_on.wait(5))
        assert (caught.value.reason, caught.value.code) == (Reason.STORAGE_UNAVAILABLE, Code.UNAVAILABLE)
        assert time.monotonic() - started < 2
    go_on.set()
    await database.write(add("after"))
    database.close()


async def test_a_closed_database_takes_no_more_writes(database_url):
    database = Database(database_url)
    database.close()
    with pytest.raises(EpochdError) as caught:
        await database.write(add("a"))
    assert caught.value.reason is Reason.SERVER_STOPPING


class TestSqlite:
    @pytest.fixture
    def database_url(self, tmp_path):
        return f"sqlite:///{tmp_path / 'epochd.db'}"

    async def test_a_full_disk_is_unavailable_and_the_next_write_works_when_there_is_room(self, database):
        def limit(pages):
            return lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count={pages}").scalar()

        await database.write(limit(1))  # the smallest that SQLite grants: what it has now
        with pytest.raises(EpochdError) as caught:
            await database.write(add("x" * 1_000_000))
        assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
        await database.write(limit(1_000_000))
        await database.write(add("a"))
        assert await database.read(names) == {"a"}

    async def test_a_lock_held_by_another_process_is_unavailable(self, database_url, monkeypatch):
        monkeypatch.setattr("epochd_server.storage.engines.BUSY_TIMEOUT_MS", 100)
        database, other = Database(database_url), Database(database_url)
        held, go_on = threading.Event(), threading.Event()

        def hold(_connection) -> None:
            held.set()
            go_on.wait(5)

        holding = asyncio.ensure_future(other.write(hold))
        await asyncio.to_thread(held.wait, 5)
        with pytest.raises(EpochdError) as caught:
            await database.write(add("a"))
        assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
        assert await database.read(names) == set()
        go_on.set()
        await holding
        await database.write(add("a"))
        database.close()
        other.close()

    async def test_a_commit_is_on_the_disk(self, database):
        """Write-ahead log with an fsync a commit: what SQLite calls FULL."""
        pragmas = ["journal_mode", "synchronous", "foreign_keys"]
        for call in (database.write, database.read):
            found = [
                await call(
                    lambda connection, name=name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                )
                for name in pragmas
            ]
            assert found == ["wal", 2, 1]


class TestPostgresql:
    @pytest.fixture
    def database_url(self, request):
        return request.getfixturevalue("emptied_postgres_url")

    async def test_lost_connections_are_replaced(self, database):
        await asyncio.gather(*(database.read(names) for _ in range(8)), database.write(add("a")))
        others = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND application_name = 'epochd'"
        )
        await database.read(lambda connection: connection.execute(text(others)).all())
        await asyncio.sleep(0.1)
        await database.write(add("b"))
        found = await asyncio.gather(*(database.read(names) for _ in range(8)))
        assert found == [{"a", "b"}] * 8

    async def test_a_server_that_stops_is_unavailable_at_once_and_found_again_when_it_is_back(
        self, database, postgres
    ):
        await database.write(add("a"))
        await database.read(names)
        postgres.stop()
        started = time.monotonic()
        for call in (database.write(add("b")), database.read(names)):
            with pytest.raises(EpochdError) as caught:
                await call
            assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
        assert time.monotonic() - started < 5
        postgres.start()
        await database.write(add("c"))
        assert await database.read(names) == {"a", "c"}

    async def test_a_connection_lost_inside_a_transaction_is_unavailable_and_undone(self, database):
        def suicide(connection) -> None:
            add("a")(connection)
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

        waiting = [database.write(add("b")), database.write(suicide)]
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert {answer.reason for answer in answers if isinstance(answer, EpochdError)} == {
            Reason.STORAGE_UNAVAILABLE
        }
        await database.write(add("c"))
        assert await database.read(names) <= {"b", "c"}

    async def test_writers_that_lock_each_other_out_both_get_through(self, database, database_url):
        """Two servers update two rows in opposite order; PostgreSQL undoes one, which then goes alone."""
        other = Database(database_url)
        for name in "ab":
            await database.write(add(name))
        met = threading.Barrier(2, timeout=5)
        attempts = Counter()
        one_more = text("UPDATE models SET last_version = last_version + 1 WHERE model = :name")

        def update(server, order):
            def run(connection) -> None:
                attempts[server] += 1
                for name in order:
                    connection.execute(one_more, {"name": name})
                    if attempts[server] == 1 and name == order[0]:
                        met.wait()

            return run

        await asyncio.gather(database.write(update(1, "ab")), other.write(update(2, "ba")))
        count = text("SELECT sum(last_version) FROM models")
        assert await database.read(lambda connection: connection.scalar(count)) == 6
        assert sorted(attempts.values()) == [1, 2]
        other.close()
