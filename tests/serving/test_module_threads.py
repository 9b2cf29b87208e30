"""Threads for registered modules: how many run, who waits, and what becomes of calls that do not return."""

from __future__ import annotations

import asyncio
import threading

import pytest

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.serving.module_threads import ModuleThreads

PATIENCE_S = 0.3


class Calls:
    """Calls that return when they are told to."""

    def __init__(self):
        self.running: list[str] = []
        self._gates: dict[str, threading.Event] = {}

    def work(self, name):
        """What a thread does: notes that it runs, and returns once :meth:`end` was called."""
        gate = self._gates.setdefault(name, threading.Event())

        def wait():
            self.running.append(name)
            gate.wait()
            self.running.remove(name)
            return name

        return wait

    def end(self, *names):
        for name in names:
            self._gates[name].set()

    async def until(self, *names):
        """Returns once exactly these run."""
        async with asyncio.timeout(10):
            while sorted(self.running) != sorted(names):  # noqa: ASYNC110 - threads, not tasks, change it
                await asyncio.sleep(0.001)


@pytest.fixture
def calls():
    made = Calls()
    yield made
    made.end(*made._gates)


@pytest.fixture
def threads():
    return ModuleThreads(at_once=3, of_one=2, patience_s=PATIENCE_S)


def start(threads, calls, *names):
    """Calls named by their module's letter and a number."""
    return [asyncio.create_task(threads.run(name[0], calls.work(name))) for name in names]


async def test_so_many_run_at_once_of_one_module_and_of_all_and_the_others_in_their_turn(calls):
    threads = ModuleThreads(at_once=3, of_one=2)
    tasks = start(threads, calls, "a1", "a2", "a3", "b1", "b2", "c1")
    await calls.until("a1", "a2", "b1")
    calls.end("b1")
    await calls.until("a1", "a2", "b2")
    calls.end("a1")
    await calls.until("a2", "a3", "b2")
    calls.end("a2")
    await calls.until("a3", "b2", "c1")
    calls.end("a3", "b2", "c1")
    assert await asyncio.gather(*tasks) == ["a1", "a2", "a3", "b1", "b2", "c1"]


async def test_one_who_stops_waiting_leaves_the_queue_and_what_has_begun_keeps_its_place(calls):
    threads = ModuleThreads(at_once=1, of_one=1)
    first, second, third = start(threads, calls, "a1", "a2", "a3")
    await calls.until("a1")
    first.cancel()
    second.cancel()
    await asyncio.wait((first, second))
    assert calls.running == ["a1"]
    calls.end("a1")
    await calls.until("a3")
    calls.end("a3")
    assert await third == "a3"


async def test_a_module_whose_calls_all_hang_is_refused_until_one_returns_and_others_have_their_places(
    threads, calls
):
    hung = start(threads, calls, "a1", "a2", "b1", "b2")
    waiting, other = start(threads, calls, "a3", "c1")
    await calls.until("a1", "a2", "b1")
    with pytest.raises(EpochdError, match="2 calls of it have not returned for 0 s") as refused:
        await waiting
    assert refused.value.reason == Reason.MODULE_FAILED
    with pytest.raises(EpochdError, match="'a' predicts nothing for now"):
        await threads.run("a", calls.work("a4"))
    await calls.until("a1", "a2", "b1", "b2", "c1")
    calls.end("a1", "c1")
    assert (await hung[0], await other) == ("a1", "c1")
    (again,) = start(threads, calls, "a5")
    await calls.until("a2", "a5", "b1", "b2")
    calls.end("a2", "a5", "b1", "b2")
    assert await again == "a5"


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
async def test_what_a_call_raises_is_told_ends_nothing_and_frees_its_place(threads, error):
    def work():
        raise error

    for _ in range(3):
        with pytest.raises(ValueError if error is ValueError else EpochdError):
            await threads.run("a", work)


async def test_work_that_never_takes_long_is_given_up(threads, calls):
    with pytest.raises(EpochdError, match="was not ready within") as refused:
        await threads.patiently("a", calls.work("a1"))
    assert refused.value.reason == Reason.MODULE_FAILED
