"""Wall clocks that are set to another time, while runs go on and between two starts of a server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochd_server.domain.runs import RunState
from epochd_server.runs.clock import RATE, SteadyClock

HOUR = 3_600.0
NOON = 1_800_000_000.0


class Wall:
    """A wall clock and a steady one; the wall clock may be set."""

    def __init__(self) -> None:
        self.steady = 50.0
        self.wrong = 0.0

    def clock(self) -> SteadyClock:
        return SteadyClock(self.time, lambda: self.steady)

    def time(self) -> float:
        return NOON + self.steady + self.wrong


def seconds(time: datetime) -> float:
    return (time - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()


def test_it_starts_with_the_wall_clock_and_goes_with_it():
    wall = Wall()
    clock = wall.clock()
    for _ in range(10):
        wall.steady += 7.5
        assert seconds(clock.now()) == pytest.approx(wall.time(), abs=1e-5)


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_it_does_not_jump_along_and_gets_there_in_time(jump):
    wall = Wall()
    clock = wall.clock()
    wall.wrong = jump
    wall.steady += 60
    assert abs(seconds(clock.now()) - (NOON + wall.steady)) <= 60 * RATE + 1e-5
    for _ in range(11):
        wall.steady += HOUR
        clock.now()
    assert seconds(clock.now()) == pytest.approx(wall.time(), abs=1e-5)


@given(
    st.lists(
        st.tuples(st.floats(0, 10_000), st.floats(-1e8, 1e8)),
        min_size=1,
        max_size=50,
    )
)
def test_durations_are_right_within_its_rate_whatever_the_wall_clock_does(steps):
    wall = Wall()
    clock = wall.clock()
    before = clock.now()
    for elapsed, wrong in steps:
        wall.steady += elapsed
        wall.wrong = wrong
        now = clock.now()
        took = (now - before).total_seconds()
        assert elapsed * (1 - RATE) - 1e-4 <= took <= elapsed * (1 + RATE) + 1e-4
        assert now >= before
        before = now


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_a_jump_while_a_run_goes_on_shows_in_none_of_its_times(
    make_service, executor, plan, watch_all, jump
):
    wall = Wall()
    service = await make_service(clock=wall.clock())
    executor.go.clear()
    accepted = await service.submit(plan(), "me")
    await executor.until(1)
    wall.steady += 10
    wall.wrong = jump
    executor.go.set()
    events = await watch_all(service, accepted.run_id)
    times = [event.time for event in events]
    assert times == sorted(times)
    run = await service.get(accepted.run_id)
    assert run.state is RunState.SUCCEEDED
    assert run.create_time <= run.start_time <= run.end_time
    assert run.end_time - run.create_time <= timedelta(seconds=12)


async def test_a_clock_that_was_set_back_between_two_starts_does_not_turn_a_log_around(
    make_service, executor, plan, watch_all
):
    wall = Wall()
    first = await make_service(clock=wall.clock())
    executor.go.clear()
    accepted = await first.submit(plan(), "me")
    await executor.until(1)
    await first.close()
    wall.wrong = -HOUR
    executor.go.set()
    second = await make_service(clock=wall.clock())
    events = await watch_all(second, accepted.run_id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    times = [event.time for event in events]
    assert times == sorted(times)
    run = await second.get(accepted.run_id)
    assert run.create_time <= run.start_time <= run.end_time


async def test_runs_accepted_after_the_clock_was_set_back_are_listed_as_the_newest(make_service, plan):
    wall = Wall()
    service = await make_service(clock=wall.clock())
    before = [(await service.submit(plan(), "me")).run_id for _ in range(3)]
    wall.wrong = -HOUR
    after = [(await service.submit(plan(), "me")).run_id for _ in range(3)]
    listed = [run.run_id for run in await service.page(limit=10)]
    assert listed == [*reversed(after), *reversed(before)]
