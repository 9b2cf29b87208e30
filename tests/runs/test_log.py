"""Watchers of a live log: whatever the interleaving, each sees every event once, in order, and only stored ones."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochd_server.codec.events import encode
from epochd_server.codec.pages import EventPage
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.runs import Cancelled, EpochLog, Queued
from epochd_server.runs.log import RunLog, TailBudget
from epochd_server.runs.watching import StoreReader, WatchMemory, follow, replay

NOW = datetime(2026, 7, 1, tzinfo=UTC)
QUEUED = Queued(run_id="01J" + 23 * "0", model="m")


class EventList:
    """The part of a store that watchers need, over a list; each call lets others run first."""

    def __init__(self):
        self.stored = []

    async def events(self, run_id, after_sequence, limit, nbytes):
        await asyncio.sleep(0)
        return page_of(self.stored[after_sequence : after_sequence + min(limit, 3)], after_sequence)


def page_of(events, after_sequence):
    return EventPage(after_sequence + 1, [encode(event) for event in events])


def log_of(tail_events=4, tail_bytes=10_000):
    return RunLog(TailBudget(tail_events, tail_bytes))


async def write(log, store, bodies):
    """Stores events, then shows them; others run in between."""
    page = log.next_page([(NOW, body) for body in bodies])
    assert page.first == len(store.stored) + 1
    await asyncio.sleep(0)
    store.stored += page
    await asyncio.sleep(0)
    log.publish(page)


def epoch(number, size=0):
    parameters = {"w": np.zeros(size, np.float32)} if size else None
    return EpochLog(epoch=number, loss=1.0, lr=0.1, parameters=parameters)


async def watch(log, store, after, pauses):
    seen = []
    async for page in follow(log, StoreReader(store, "run"), after):
        assert page
        assert page[-1].sequence == page.last <= len(store.stored)
        seen += page
        for _ in range(next(pauses)):
            await asyncio.sleep(0)
    return [event.sequence for event in seen]


@settings(deadline=None, max_examples=150)
@given(
    batches=st.lists(st.integers(1, 6), max_size=12),
    pauses=st.lists(st.integers(0, 4), min_size=1, max_size=8),
    watchers=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20), st.integers(0, 6)), max_size=6),
    tail_events=st.integers(1, 8),
    tail_bytes=st.integers(0, 4_000),
)
def test_every_interleaving_gives_every_watcher_the_rest_of_the_log_once(
    batches, pauses, watchers, tail_events, tail_bytes
):
    async def scenario():
        store = EventList()
        log = log_of(tail_events, tail_bytes)

        async def write_all():
            await write(log, store, [QUEUED])
            for index, size in enumerate(batches):
                await write(log, store, [epoch(number) for number in range(size)])
                for _ in range(pauses[index % len(pauses)]):
                    await asyncio.sleep(0)
            await write(log, store, [Cancelled(epochs=1)])

        async def join(delay, after, pace):
            for _ in range(delay):
                await asyncio.sleep(0)
            return after, await watch(log, store, after, iter(lambda: pace, None))

        total = 2 + sum(batches)
        joins = [asyncio.create_task(join(delay, min(after, total), pace)) for delay, after, pace in watchers]
        await write_all()
        for after, seen in await asyncio.gather(*joins):
            assert seen == list(range(after + 1, total + 1))
        assert log._budget.used == 0

    asyncio.run(scenario())


async def test_events_are_stored_before_they_are_seen():
    store = EventList()
    log = log_of()
    writing = asyncio.create_task(write(log, store, [QUEUED]))
    changed = asyncio.create_task(log.changed(0))
    await asyncio.sleep(0)
    assert not store.stored
    assert log.newest == 0
    await changed
    assert len(store.stored) == 1
    await writing


async def test_a_closed_log_gives_what_is_left_and_then_its_error():
    store = EventList()
    log = log_of()
    await write(log, store, [QUEUED, epoch(0)])
    log.close(EpochdError(Reason.SERVER_STOPPING))
    pages = follow(log, StoreReader(store, "run"), 0)
    assert len(await anext(pages)) == 2
    with pytest.raises(EpochdError) as caught:
        await anext(pages)
    assert caught.value.reason is Reason.SERVER_STOPPING
    assert caught.value.metadata == {"after_sequence": "2"}


async def test_a_log_closed_without_an_error_ends_its_watchers():
    store = EventList()
    log = log_of()
    log.close()
    assert [page async for page in follow(log, StoreReader(store, "run"), 0)] == []


async def test_a_run_deleted_under_a_watcher_is_not_found():
    store = EventList()
    log = log_of(tail_events=1)
    await write(log, store, [QUEUED, epoch(0), Cancelled(epochs=1)])
    store.stored.clear()
    with pytest.raises(EpochdError) as caught:
        await anext(follow(log, StoreReader(store, "run"), 0))
    assert caught.value.reason is Reason.RUN_NOT_FOUND


async def test_tails_share_a_budget_of_memory():
    budget = TailBudget(events=1_000, nbytes=50_000)
    logs = []
    for _ in range(10):
        store = EventList()
        logs.append(RunLog(budget))
        await write(logs[-1], store, [epoch(number, size=1_000) for number in range(20)])
    (newest,) = logs[0].after(19).sizes()
    assert budget.used <= 50_000 + 10 * newest
    assert all(log.after(19) for log in logs)
    for log in logs:
        log.close()
    assert budget.used == 0


async def test_pages_are_bounded_in_events_and_in_bytes():
    store = EventList()
    log = log_of(tail_events=10_000, tail_bytes=10**9)
    await write(log, store, [epoch(number) for number in range(600)])
    assert len(log.after(0)) == 256
    await write(log, store, [epoch(number, size=100_000) for number in range(20)])
    assert len(log.after(600)) == 2


async def test_replay_gives_all_pages_of_the_store():
    store = EventList()
    await write(log_of(), store, [epoch(number) for number in range(10)])
    pages = [page async for page in replay(StoreReader(store, "run"), 2)]
    assert [event.sequence for page in pages for event in page] == list(range(3, 11))


async def test_the_more_watchers_the_smaller_their_pages():
    """A thousand that take nothing hold no more than a few do."""
    memory = WatchMemory(nbytes=2**22)
    store, log = EventList(), log_of(tail_events=10_000, tail_bytes=10**9)
    await write(log, store, [epoch(number, size=1_000) for number in range(256)])
    reader = StoreReader(store, "run", memory)
    sizes = []
    for watchers in (1, 16, 100_000):
        with contextlib.ExitStack() as stack:
            for _ in range(watchers):
                stack.enter_context(memory.watching())
            sizes.append((memory.page_bytes, len(await anext(follow(log, reader, 0)))))
    assert [size for size, _ in sizes] == [2**20, 2**18, 2**14]
    assert [events for _, events in sizes] == [252, 63, 3]
    assert memory.page_bytes == 2**20
