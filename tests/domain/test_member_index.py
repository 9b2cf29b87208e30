"""From keys to members: what a dictionary of tuples finds, for any keys and any rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochd_server.domain.fleets import Keys
from epochd_server.domain.member_index import UNKNOWN, MemberIndex, member_of

integers = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 40)
texts = st.text(max_size=4)
numbers = st.floats(allow_nan=False, allow_infinity=False)
KINDS = {"integer": (integers, np.int64), "text": (texts, object), "number": (numbers, np.float64)}


def column(values, dtype) -> np.ndarray:
    made = np.empty(len(values), dtype)
    made[:] = values
    return made


@st.composite
def fleets(draw: st.DrawFn):
    """Kinds of the key columns, the members' keys, and rows of which many have one of them."""
    kinds = [KINDS[draw(st.sampled_from(sorted(KINDS)))] for _ in range(draw(st.integers(1, 3)))]
    key = st.tuples(*(values for values, _ in kinds))
    keys = draw(st.lists(key, min_size=1, max_size=30, unique=True))
    mixed = st.tuples(*(st.sampled_from([key[n] for key in keys]) for n in range(len(kinds))))
    rows = draw(st.lists(st.sampled_from(keys) | mixed | key, max_size=30))
    return [dtype for _, dtype in kinds], keys, rows


def columns_of(dtypes, keys) -> tuple[np.ndarray, ...]:
    return tuple(column([key[n] for key in keys], dtype) for n, dtype in enumerate(dtypes))


@given(fleets())
def test_rows_find_what_a_dictionary_finds(fleet):
    dtypes, members, rows = fleet
    keys = Keys(tuple(f"k{n}" for n in range(len(dtypes))), columns_of(dtypes, members))
    expected = {key: member for member, key in enumerate(members)}
    found = MemberIndex(keys).find(columns_of(dtypes, rows))
    assert found.dtype == np.int64
    assert found.tolist() == [expected.get(row, UNKNOWN) for row in rows]
    for row in rows:
        assert member_of(keys, row) == expected.get(row)


MEMBERS = {
    "close together": [-5, -2, 0, 1, 7],
    "far apart": [-(2**63), -(2**53) - 1, 5, 2**53 + 1, 2**63 - 1],
    "one": [2**63 - 1],
}
ROWS = [
    np.float64([5, 7, 0.5, -2, math.nan, math.inf, -math.inf, 2.0**53, -(2.0**53), 1e300]),
    np.float32([7, 1.5, -5]),
    np.uint64([5, 7, 2**63, 2**64 - 1, 2**64 - 2, 2**64 - 5]),
    np.int8([-5, 7, 127]),
    np.int64([-(2**63), 2**63 - 1, 0, 2**53 + 1]),
]


@pytest.mark.parametrize("members", MEMBERS.values(), ids=MEMBERS)
@pytest.mark.parametrize("rows", ROWS, ids=lambda rows: rows.dtype.name)
def test_integers_may_come_as_any_type_of_number_but_only_exactly(members, rows):
    expected = {key: member for member, key in enumerate(members)}
    found = MemberIndex(Keys(("k",), (np.int64(members),))).find([rows])
    assert found.tolist() == [expected.get(row, UNKNOWN) for row in rows.tolist()]


def test_many_long_columns_do_not_overflow():
    size = 3_000
    rng = np.random.default_rng(0)
    columns = tuple(rng.permutation(size) * 10**9 for _ in range(8))
    index = MemberIndex(Keys(tuple("abcdefgh"), columns))
    assert index.find(columns).tolist() == list(range(size))
    assert set(index.find([*columns[:-1], columns[-1] + 1]).tolist()) == {UNKNOWN}


@pytest.mark.parametrize("key", [(), ("a", 1), (1,), ("b",)])
def test_a_key_of_another_kind_is_nobody(key):
    assert member_of(Keys(("k",), (column(["a", "c"], object),)), key) is None
    assert member_of(Keys(("k",), (np.int64([3, 4]),)), key) is None
