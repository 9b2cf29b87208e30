"""Ids of runs are ULIDs that grow."""

from __future__ import annotations

import time

from epochd_server.domain.resources import parse_run, run_name
from epochd_server.runs.identifiers import RunIds

DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def test_ids_are_names_of_runs():
    run_id = RunIds().new()
    assert parse_run(run_name(run_id)) == run_id


def test_ids_grow_also_within_a_millisecond():
    ids = RunIds()
    made = [ids.new() for _ in range(5_000)]
    assert made == sorted(set(made))


def test_ids_grow_though_the_clock_goes_back(monkeypatch):
    ids = RunIds()
    first = ids.new()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert ids.new() > first


def test_the_first_ten_digits_are_the_time_in_milliseconds():
    before = time.time_ns() // 1_000_000
    digits = RunIds().new()[:10]
    value = sum(DIGITS.index(digit) << 5 * place for place, digit in enumerate(reversed(digits)))
    assert before <= value <= time.time_ns() // 1_000_000
