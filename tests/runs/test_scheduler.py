"""When waiting runs become a cohort."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from epochd_server.runs.fair_queue import Ticket
from epochd_server.runs.scheduler import Scheduler
from epochd_server.runs.settings import RunSettings


class Bench:
    """A scheduler whose cohorts last until they are released."""

    def __init__(self, slots=1, **settings):
        self.cohorts = []
        self.gates = []
        self.numbers = count()
        self.launched = asyncio.Event()
        self.scheduler = Scheduler(slots, self.train, RunSettings(**settings))

    async def train(self, tickets):
        gate = asyncio.Event()
        self.cohorts.append([ticket.run_id for ticket in tickets])
        self.gates.append(gate)
        self.launched.set()
        await gate.wait()

    def submit(self, client="a", signature="s", seconds=1e-4):
        run_id = f"{next(self.numbers):04}"
        self.scheduler.submit(
            Ticket(
                run_id=run_id,
                client=client,
                signature=signature,
                seconds=seconds,
                nbytes=1,
                since=self.scheduler.now(),
            )
        )
        return run_id

    async def until(self, cohorts):
        async with asyncio.timeout(5):
            while len(self.cohorts) < cohorts:
                self.launched.clear()
                await self.launched.wait()

    async def release(self, index):
        self.gates[index].set()
        await asyncio.sleep(0)


async def test_a_lone_run_on_an_idle_server_does_not_wait():
    bench = Bench(gather_seconds=60.0)
    run = bench.submit()
    await asyncio.sleep(0)
    assert bench.cohorts == [[run]]


async def test_runs_that_come_while_a_worker_is_busy_are_gathered():
    bench = Bench(slots=2, gather_seconds=0.05)
    first = bench.submit()
    others = [bench.submit(client) for client in "abc"]
    await asyncio.sleep(0)
    assert bench.cohorts == [[first]]
    await bench.until(2)
    assert sorted(bench.cohorts[1]) == others


async def test_runs_that_waited_their_window_go_as_soon_as_a_slot_is_free():
    bench = Bench(slots=1, gather_seconds=0.01)
    bench.submit()
    others = [bench.submit() for _ in range(3)]
    await asyncio.sleep(0.03)
    assert len(bench.cohorts) == 1
    await bench.release(0)
    await bench.until(2)
    assert bench.cohorts[1:] == [others]


async def test_a_lone_run_goes_at_once_when_the_server_becomes_idle():
    bench = Bench(gather_seconds=60.0)
    bench.submit()
    second = bench.submit()
    await asyncio.sleep(0)
    await bench.release(0)
    await bench.until(2)
    assert bench.cohorts[1:] == [[second]]


async def test_a_full_queue_of_cohorts_does_not_wait_for_the_window():
    bench = Bench(slots=2, gather_seconds=60.0, max_members=3)
    first = bench.submit()
    runs = [bench.submit() for _ in range(6)]
    await bench.until(2)
    assert bench.cohorts == [[first], runs[:3]]


async def test_cohorts_off_trains_one_run_at_a_time_without_a_window():
    bench = Bench(cohorts=False, gather_seconds=60.0)
    runs = [bench.submit() for _ in range(3)]
    for index in range(3):
        await bench.until(index + 1)
        await bench.release(index)
    assert bench.cohorts == [[run] for run in runs]


async def test_long_runs_are_spread_over_the_free_slots():
    bench = Bench(slots=3, gather_seconds=0.01)
    bench.submit()
    runs = [bench.submit(seconds=0.5) for _ in range(4)]
    await bench.until(3)
    assert bench.cohorts[1:] == [runs[:2], runs[2:]]


async def test_different_signatures_take_different_slots():
    bench = Bench(slots=3, gather_seconds=0.01)
    bench.submit()
    x, y, x2 = bench.submit(signature="x"), bench.submit(signature="y"), bench.submit(signature="x")
    await bench.until(3)
    assert sorted(bench.cohorts[1:]) == [[x, x2], [y]]


async def test_never_more_cohorts_than_slots():
    bench = Bench(slots=2, gather_seconds=0.0, max_members=1)
    for _ in range(10):
        bench.submit()
    await asyncio.sleep(0.01)
    assert len(bench.cohorts) == 2
    for index in range(10):
        await bench.until(index + 1)
        await bench.release(index)
        assert len(bench.cohorts) <= index + 3


async def test_a_withdrawn_run_is_never_trained():
    bench = Bench(gather_seconds=0.0)
    bench.submit()
    second = bench.submit()
    assert bench.scheduler.is_waiting(second)
    assert bench.scheduler.withdraw(second)
    assert not bench.scheduler.withdraw(second)
    await bench.until(1)
    await bench.release(0)
    assert await bench.scheduler.finish(1.0)
    assert len(bench.cohorts) == 1


async def test_a_stopped_scheduler_starts_nothing_and_finishes_what_runs():
    bench = Bench(gather_seconds=0.0)
    bench.submit()
    bench.submit()
    await asyncio.sleep(0)
    bench.scheduler.stop()
    assert not await bench.scheduler.finish(0.01)
    await bench.release(0)
    assert await bench.scheduler.finish(1.0)
    assert bench.scheduler.waiting == 1
    assert len(bench.cohorts) == 1


async def test_a_cohort_that_raises_frees_its_slot():
    trained = []

    async def train(tickets):
        trained.append(tickets)
        raise RuntimeError("a bug")

    bench = Bench(gather_seconds=0.0)
    bench.scheduler._train = train
    bench.submit()
    await asyncio.sleep(0.01)
    bench.submit()
    await asyncio.sleep(0.01)
    assert len(trained) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_members": 0},
        {"max_queued": 0},
        {"max_queued_per_client": 0},
        {"gather_seconds": -1.0},
        {"max_cohort_seconds": 0.0},
        {"queued_bytes": -1},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RunSettings(**wrong)


async def test_brief_runs_have_slots_of_their_own_while_long_ones_hold_all():
    bench = Bench(slots=2, gather_seconds=0.0)
    long = [bench.submit(signature=name, seconds=600.0) for name in "xyz"]
    brief = [bench.submit(signature=name) for name in "pqr"]
    await asyncio.sleep(0.01)
    assert bench.cohorts == [[run] for run in (*long[:2], *brief[:2])]
    await bench.release(2)
    await bench.until(5)
    assert bench.cohorts[4] == [brief[2]]
    for index in (3, 4, 0):
        await bench.release(index)
    await bench.until(6)
    assert bench.cohorts[5] == [long[2]]


async def test_a_cohort_that_takes_longer_than_expected_makes_room_for_brief_ones():
    bench = Bench(gather_seconds=0.0, max_cohort_seconds=0.05)
    first, second = bench.submit(signature="x"), bench.submit(signature="y")
    await asyncio.sleep(0.01)
    assert bench.cohorts == [[first]]
    await bench.until(2)
    assert bench.cohorts == [[first], [second]]


async def test_a_brief_run_beside_a_long_one_waits_for_the_next_free_slot():
    bench = Bench(slots=2, gather_seconds=0.0)
    first = [bench.submit(seconds=600.0), bench.submit(signature="p")]
    last = bench.submit(signature="q")
    await asyncio.sleep(0.01)
    assert bench.cohorts == [[run] for run in first]
    await bench.release(1)
    await bench.until(3)
    assert bench.cohorts[2] == [last]
