"""Any history of appends, as Hypothesis invents them, against a list as the oracle."""

from __future__ import annotations

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epochd_server.domain.runs import Cancelled, EpochLog, RunState
from epochd_server.storage import SequenceConflictError

# Where an append begins, relative to what follows the log; how many events; whether the last one ends the run.
APPENDS = st.lists(
    st.tuples(st.integers(-3, 2), st.integers(1, 4), st.sampled_from([False, False, False, True])),
    max_size=12,
)


def body(sequence: int, last: bool):
    return Cancelled(epochs=sequence) if last else EpochLog(epoch=sequence, loss=sequence / 3, lr=0.1)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
@given(APPENDS)
def test_the_log_is_gapless_whatever_is_tried(storage, make, appends):
    async def replay():
        run = make.run()
        await storage.runs.accept(run, make.queued(run))
        log, ended = [make.queued(run).body], False
        for offset, count, ends in appends:
            first = max(2, len(log) + 1 + offset)
            events = [make.event(first + n, body(first + n, ends and n == count - 1)) for n in range(count)]
            bodies = [event.body for event in events]
            is_repeat = [repr(b) for b in log[first - 1 : first - 1 + count]] == [repr(b) for b in bodies]
            is_next = first == len(log) + 1 and not ended
            state = RunState.CANCELLED if ends else None
            try:
                await make.append(storage.runs, run.run_id, events, state=state)
            except SequenceConflictError:
                assert not is_next
                assert not is_repeat
                continue
            assert is_next or is_repeat
            if is_next:
                log += bodies
                ended = ends
        stored = await storage.runs.events(run.run_id, 0, 1000)
        assert [event.sequence for event in stored] == list(range(1, len(log) + 1))
        assert [repr(event.body) for event in stored] == [repr(one) for one in log]
        found = (await storage.runs.get(run.run_id)).run
        assert found.latest_sequence == len(log)
        assert found.state.is_terminal == ended

    asyncio.run(replay())
