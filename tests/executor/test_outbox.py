"""Reports leave in order, bundled as far as their deadlines allow."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from epochd_server.executor import frames
from epochd_server.executor.outbox import Outbox
from epochd_server.executor.wire import CohortBegan, CohortDone


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(10)
        yield ours, theirs


def test_what_may_wait_leaves_with_what_may_not(pair):
    outbox = Outbox(pair[0], lambda: None)
    outbox.put(CohortBegan("a"), 60.0)
    outbox.put(CohortBegan("b"), 60.0)
    outbox.put(CohortDone())
    assert frames.receive(pair[1]) == (CohortBegan("a"), CohortBegan("b"), CohortDone())


def test_what_may_wait_leaves_by_itself_when_its_time_is_over(pair):
    outbox = Outbox(pair[0], lambda: None)
    began = time.monotonic()
    outbox.put(CohortBegan("a"), 0.05)
    assert frames.receive(pair[1]) == (CohortBegan("a"),)
    assert time.monotonic() - began >= 0.05


def test_the_earliest_deadline_counts(pair):
    outbox = Outbox(pair[0], lambda: None)
    outbox.put(CohortBegan("a"), 0.01)
    outbox.put(CohortBegan("b"), 60.0)
    assert frames.receive(pair[1])[0] == CohortBegan("a")


def test_order_is_kept_over_many_bundles(pair):
    outbox = Outbox(pair[0], lambda: None)
    for number in range(2_000):
        outbox.put(CohortBegan(str(number)), 0.0 if number % 7 == 0 else 0.001)
    outbox.put(CohortDone())
    received = []
    while not received or received[-1] != CohortDone():
        received += frames.receive(pair[1])
    assert [report.device for report in received[:-1]] == [str(number) for number in range(2_000)]


def test_training_waits_when_the_server_does_not_keep_up(pair):
    outbox = Outbox(pair[0], lambda: None)
    huge = CohortBegan("x" * 2**20)
    put = []

    def fill():
        for _ in range(4):
            outbox.put(huge, 0.0, nbytes=2**27)
            put.append(1)

    filler = threading.Thread(target=fill, daemon=True)
    filler.start()
    filler.join(0.2)
    assert len(put) < 4
    received = []
    while len(received) < 4:
        received += frames.receive(pair[1])
    filler.join(10)
    assert len(put) == 4


def test_a_server_that_is_gone_is_told_of(pair):
    lost = threading.Event()
    outbox = Outbox(pair[0], lost.set)
    pair[1].close()
    outbox.put(CohortDone())
    assert lost.wait(10)


def test_a_report_that_cannot_be_sent_ends_the_worker_rather_than_leave_its_run_waiting(pair, capsys):
    lost = threading.Event()
    outbox = Outbox(pair[0], lost.set)
    outbox.put(CohortBegan(threading.Lock()))
    assert lost.wait(10)
    assert "Error" in capsys.readouterr().err
