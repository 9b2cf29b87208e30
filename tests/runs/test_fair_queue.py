"""Fair share and cohorts of one signature, as plain data."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochd_server.runs.fair_queue import CohortLimits, FairQueue, Ticket

UNBOUNDED = CohortLimits(members=10**9, nbytes=10**18, seconds=1e18)
ALONE = CohortLimits(members=1, nbytes=0, seconds=0.0)

_numbers = count()


def ticket(client="a", signature="s", seconds=1.0, nbytes=1):
    number = next(_numbers)
    return Ticket(
        run_id=f"{number:09}",
        client=client,
        signature=signature,
        seconds=seconds,
        nbytes=nbytes,
        since=number,
    )


def queue_of(*tickets):
    queue = FairQueue()
    for each in tickets:
        queue.push(each)
    return queue


def test_runs_of_one_client_go_in_the_order_they_came():
    tickets = [ticket() for _ in range(5)]
    queue = queue_of(*tickets)
    assert [queue.take(ALONE) for _ in range(5)] == [[each] for each in tickets]


def test_a_cohort_takes_all_of_one_signature_whoever_sent_them():
    tickets = [ticket("a"), ticket("b"), ticket("a", "other"), ticket("c"), ticket("b")]
    queue = queue_of(*tickets)
    taken = queue.take(UNBOUNDED)
    assert sorted(t.run_id for t in taken) == sorted(t.run_id for t in tickets if t.signature == "s")
    assert len(queue) == 1


def test_clients_take_turns_though_one_has_ten_thousand_runs():
    queue = queue_of(*(ticket("many") for _ in range(10_000)))
    for _ in range(100):
        queue.take(ALONE)
    queue.push(ticket("one"))
    assert "one" in [queue.take(ALONE)[0].client for _ in range(2)]


def test_places_in_a_cohort_are_shared_fairly():
    queue = queue_of(*(ticket("many") for _ in range(1_000)), *(ticket("few") for _ in range(10)))
    taken = queue.take(CohortLimits(members=20, nbytes=10**9, seconds=1e9))
    assert [t.client for t in taken].count("few") == 10


def test_shares_count_work_and_not_runs():
    queue = queue_of(*(ticket("slow", seconds=10.0) for _ in range(10)), *(ticket("fast") for _ in range(50)))
    clients = [queue.take(ALONE)[0].client for _ in range(22)]
    assert 1 <= clients.count("slow") <= 3


def test_a_client_that_pauses_earns_no_credit():
    queue = queue_of(*(ticket("steady") for _ in range(200)), ticket("pausing"))
    for _ in range(100):
        queue.take(ALONE)
    for _ in range(50):
        queue.push(ticket("pausing"))
    clients = [queue.take(ALONE)[0].client for _ in range(20)]
    assert 9 <= clients.count("pausing") <= 11


@pytest.mark.parametrize(
    ("limits", "size"),
    [
        (CohortLimits(members=3, nbytes=100, seconds=100.0), 3),
        (CohortLimits(members=9, nbytes=50, seconds=100.0), 5),
        (CohortLimits(members=9, nbytes=100, seconds=4.0), 4),
        (CohortLimits(members=9, nbytes=5, seconds=0.5), 1),
    ],
)
def test_limits_bound_a_cohort_but_a_single_run_always_goes(limits, size):
    queue = queue_of(*(ticket(nbytes=10) for _ in range(8)))
    assert len(queue.take(limits)) == size


def test_a_removed_run_is_gone_and_others_stay():
    tickets = [ticket() for _ in range(3)]
    queue = queue_of(*tickets)
    assert queue.remove(tickets[1].run_id) == tickets[1]
    assert queue.remove(tickets[1].run_id) is None
    assert tickets[1].run_id not in queue
    assert queue.take(UNBOUNDED) == [tickets[0], tickets[2]]
    assert not queue


def test_a_run_cannot_wait_twice():
    one = ticket()
    with pytest.raises(ValueError, match="waiting already"):
        queue_of(one, one)


def test_the_oldest_is_the_one_that_waited_longest():
    tickets = [ticket("b"), ticket("a")]
    queue = queue_of(*tickets)
    assert queue.oldest == tickets[0]
    queue.remove(tickets[0].run_id)
    assert queue.oldest == tickets[1]


def test_accounts_of_absent_clients_do_not_pile_up():
    queue = FairQueue()
    for number in range(5_000):
        queue.push(ticket(f"client-{number}"))
        queue.take(ALONE)
    assert len(queue._given) < 2_100


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.sampled_from("abc"), st.sampled_from("xy"), st.integers(0, 20)),
        st.tuples(st.just("take"), st.integers(1, 5), st.integers(0, 40), st.integers(0, 10)),
        st.tuples(st.just("remove"), st.integers(0, 50)),
    ),
    max_size=60,
)


@given(ACTIONS)
def test_every_run_comes_out_exactly_once_in_its_clients_order_and_within_limits(actions):
    queue, pushed, out = FairQueue(), [], []
    for action in actions:
        if action[0] == "push":
            pushed.append(ticket(action[1], action[2], seconds=0.5, nbytes=action[3]))
            queue.push(pushed[-1])
        elif action[0] == "remove" and action[1] < len(pushed):
            removed = queue.remove(pushed[action[1]].run_id)
            out += [removed] if removed else []
        elif action[0] == "take" and queue:
            taken = queue.take(CohortLimits(members=action[1], nbytes=action[2], seconds=action[3]))
            assert len({each.signature for each in taken}) == 1
            assert len(taken) <= action[1]
            assert len(taken) == 1 or sum(each.nbytes for each in taken) <= action[2]
            assert len(taken) == 1 or sum(each.seconds for each in taken) <= action[3]
            for client in "abc":
                ours = [each.run_id for each in taken if each.client == client]
                assert ours == sorted(ours)
            out += taken
        assert len(queue) == len(pushed) - len(out)
    while queue:
        out += queue.take(UNBOUNDED)
    assert sorted(each.run_id for each in out) == [each.run_id for each in pushed]


def test_brief_runs_can_be_taken_past_long_ones_and_clients_still_take_turns():
    queue = FairQueue(brief_seconds=1.0)
    long = [ticket("a", seconds=9.0), ticket("b", seconds=9.0)]
    brief = [ticket("a"), ticket("a"), ticket("b")]
    for each in (*long, *brief):
        queue.push(each)
    taken = [queue.take(ALONE, brief=True)[0] for _ in range(3)]
    assert [each.client for each in taken] == ["a", "b", "a"]
    assert queue.leader(brief=True) is None
    assert queue.take(ALONE, brief=True) == []
    assert [queue.take(ALONE)[0] for _ in range(2)] == [long[1], long[0]]
