"""What every database does with requests that must change something once."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, insert, select

from epochd_server.domain.commands import AliasCommand
from epochd_server.domain.datasets import DatasetFormat
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.labels import LabelChange
from epochd_server.domain.once import AnsweredBefore, AskedOnce, Once
from epochd_server.domain.resources import VersionReference
from epochd_server.storage import Answers, answers
from epochd_server.storage.schema import answers as answer_rows

NOW = datetime(2026, 7, 1, tzinfo=UTC)
DAY = 86_400.0
FAR = 4_000_000_000.0
DATA = b"some rows"
DIGEST = hashlib.sha256(DATA).hexdigest()


class Clock:
    """A clock that the test sets."""

    def __init__(self, now: float = FAR) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Of the answers."""
    return Clock()


@pytest.fixture
def remembering(storage, clock) -> Answers:
    """Answers that are remembered for a day."""
    return Answers(storage.database, DAY, clock)


async def with_version(storage, make) -> None:
    run = make.run(model="line")
    await storage.runs.accept(run, make.queued(run))
    await make.succeed(storage.runs, run.run_id, 2, run.create_time, make.trained(run.run_id), 1.0)


async def count(storage) -> int:
    return await storage.database.read(
        lambda connection: connection.scalar(select(func.count()).select_from(answer_rows))
    )


async def data():
    """An upload."""
    yield DATA


def once(make, request_id="r-1", name="house-price", answer=b"done") -> Once[object]:
    return Once(make.asked(request_id, name), lambda _: answer)


async def remember(remembering: Answers, asked: AskedOnce, answer: bytes) -> None:
    """Remembers an answer to a request that is not known."""
    await remembering.write(lambda _: None, Once(asked, lambda _: answer))


class TestOneRequest:
    async def test_is_remembered_with_what_it_changed(self, storage, make, remembering):
        assert await remembering.find(make.asked("r-1")) is None
        changes = []
        assert await remembering.write(lambda _: changes.append(1), once(make)) is None
        assert await remembering.find(make.asked("r-1")) == b"done"
        with pytest.raises(AnsweredBefore) as caught:
            await remembering.write(lambda _: changes.append(2), once(make))
        assert (caught.value.answer, changes) == (b"done", [1])

    async def test_that_failed_is_not_remembered(self, storage, make):
        with pytest.raises(EpochdError) as caught:
            await storage.models.delete_model("line", once(make))
        assert caught.value.reason is Reason.MODEL_NOT_FOUND
        await with_version(storage, make)
        await storage.models.delete_model("line", once(make))
        with pytest.raises(AnsweredBefore):
            await storage.models.delete_model("line", once(make))

    async def test_whose_answer_cannot_be_made_changes_nothing(self, storage, make):
        await with_version(storage, make)

        def broken(_: object) -> bytes:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await storage.models.delete_model("line", Once(make.asked("r-1"), broken))
        assert (await storage.models.get_model("line")).latest_version == 1
        assert await count(storage) == 0

    async def test_survives_a_restart(self, open_at, make):
        storage = open_at("data")
        await with_version(storage, make)
        await storage.models.delete_model("line", once(make))
        storage = open_at("data")
        assert await storage.answers.find(make.asked("r-1")) == b"done"

    async def test_of_another_kind_under_its_id_is_refused(self, make, remembering):
        await remembering.write(lambda _: None, once(make))
        for refused in (
            remembering.find(make.asked("r-1", "other")),
            remembering.write(lambda _: None, once(make, name="other")),
        ):
            with pytest.raises(EpochdError) as caught:
                await refused
            assert caught.value.reason is Reason.REQUEST_ID_REUSED
            assert caught.value.metadata == {"request_id": "r-1", "field": "model_name"}
            assert "model_name differs" in caught.value.message

    async def test_may_be_answered_otherwise_once_it_is_known_what_it_came_to(self, make, remembering):
        await remembering.write(lambda _: None, once(make))
        await remembering.amend(make.asked("r-1", "other"), b"of another request")
        assert await remembering.find(make.asked("r-1")) == b"done"
        await remembering.amend(make.asked("r-1"), b"paused")
        assert await remembering.find(make.asked("r-1")) == b"paused"

    async def test_of_many_at_once_one_acts(self, open_at, make):
        storages = [open_at("data")]
        if storages[0].database.is_shared:
            storages.append(open_at("other"))
        await with_version(storages[0], make)
        command = AliasCommand(model="line", alias="best", version=1)
        done = await asyncio.gather(
            *(s.models.set_alias(command, NOW, once(make)) for s in storages for _ in range(20)),
            return_exceptions=True,
        )
        answered = [one for one in done if isinstance(one, AnsweredBefore)]
        assert len(answered) == len(done) - 1
        assert {one.answer for one in answered} == {b"done"}
        assert len(await storages[0].models.list_alias_moves("line", "best", 9)) == 1


class TestEveryStore:
    async def test_changes_once(self, storage, make):
        await with_version(storage, make)
        runs = await storage.runs.page(limit=1, before=None, states=(), model=None)
        models, run_id, change = storage.models, runs[0].run_id, LabelChange(labels={"a": "b"})
        second = AliasCommand(model="line", alias="other", version=1)
        calls = {
            "labels of a run": lambda o: storage.runs.change_labels(run_id, change, o),
            "deleted run": lambda o: storage.runs.delete(run_id, o),
            "labels": lambda o: models.change_labels("line", 1, change, o),
            "alias": lambda o: models.set_alias(second, NOW, o),
            "no alias": lambda o: models.delete_alias("line", "other", NOW, None, o),
            "no version": lambda o: models.delete_version("line", 1, o),
            "dataset": lambda o: storage.datasets.upload(DIGEST, len(DATA), DatasetFormat.CSV, 0, data(), o),
            "the same": lambda o: storage.datasets.upload(DIGEST, len(DATA), DatasetFormat.CSV, 0, data(), o),
            "no dataset": lambda o: storage.datasets.delete(DIGEST, o),
        }
        for number, call in enumerate(calls.values()):
            await call(once(make, f"r-{number}", answer=f"{number}".encode()))
        for number, call in enumerate(calls.values()):
            with pytest.raises(AnsweredBefore) as caught:
                await call(once(make, f"r-{number}"))
            assert caught.value.answer == f"{number}".encode()
        with pytest.raises(EpochdError, match="No such model"):
            await models.get_version(VersionReference("line"))


class TestForgetting:
    async def test_an_id_is_new_again_after_its_time(self, make, remembering, clock):
        await remember(remembering, make.asked("r-1"), b"first")
        clock.now += DAY - 1
        assert await remembering.find(make.asked("r-1")) == b"first"
        clock.now += 2
        assert await remembering.find(make.asked("r-1")) is None
        await remember(remembering, make.asked("r-1", "other"), b"second")
        assert await remembering.find(make.asked("r-1", "other")) == b"second"

    async def test_also_where_it_was_not_deleted_yet(self, storage, make, remembering, clock, monkeypatch):
        monkeypatch.setattr(answers, "_FORGOTTEN_AT_LEAST", 0)
        for number in range(10):
            await remember(remembering, make.asked(f"r-{number}"), b"first")
            clock.now += 1
        clock.now += DAY
        await remember(remembering, make.asked("r-9"), b"second")
        assert await count(storage) > 1

    async def test_a_run_may_be_made_by_an_id_that_was_forgotten(self, storage, make, clock):
        storage.runs._answers = Answers(storage.database, DAY, clock)
        first = make.run(asked=make.asked("r-1"))
        await storage.runs.accept(first, make.queued(first))
        clock.now += DAY + 1
        again = make.run(asked=make.asked("r-1"))
        assert (await storage.runs.accept(again, make.queued(again))).created
        assert await storage.runs.find_made(make.asked("r-1")) == again.run_id

    async def test_the_table_holds_little_more_than_what_is_remembered(
        self, storage, make, remembering, clock
    ):
        old = [remembering.make(make.asked(f"old-{number}"), b"x").row for number in range(1_000)]
        await storage.database.write(lambda connection: connection.execute(insert(answer_rows), old))
        clock.now += DAY + 1
        for number in range(10):
            await remember(remembering, make.asked(f"new-{number}"), b"x")
        assert await count(storage) == 10

    async def test_an_id_from_the_future_is_kept_as_if_it_were_of_now(self, make, remembering, clock):
        """As a server wrote it whose clock was a year ahead."""
        await remember(remembering, make.asked("r-1"), b"first")
        clock.now -= 365 * DAY
        assert await remembering.find(make.asked("r-1")) == b"first"
        await remember(remembering, make.asked("r-2"), b"x")
        clock.now += DAY - 1
        assert await remembering.find(make.asked("r-1")) == b"first"
        clock.now += 2
        assert await remembering.find(make.asked("r-1")) is None

    def test_setting_the_systems_clock_moves_nothing(self, monkeypatch):
        clock = answers.steady_clock()
        before = clock()
        monkeypatch.setattr(answers.time, "time", lambda: FAR)
        assert 0 <= clock() - before < 60
