"""Members that cannot be trained are found one by one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from epochd_server.data.fitness import (
    FEATURE_NOT_FINITE,
    NO_WEIGHT,
    ONE_CLASS_ONLY,
    TARGET_NOT_FINITE,
    UnusableRows,
    described,
    unfit_members,
)
from epochd_server.data.grouping import Assignment
from epochd_server.domain.fleets import Keys


def assignment(members: list[int]) -> Assignment:
    count = max(members) + 1
    return Assignment(Keys(("k",), (np.arange(count),)), np.array(members))


def dense(members: list[int]) -> list[int]:
    ranks = {member: rank for rank, member in enumerate(sorted(set(members)))}
    return [ranks[member] for member in members]


rows = st.lists(
    st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 2), st.sampled_from([0.0, 0.5, 2.0])),
    min_size=1,
    max_size=30,
)


@given(rows)
def test_each_member_is_judged_by_its_own_rows(table) -> None:
    members = dense([row[0] for row in table])
    bad = np.array([row[1] for row in table])
    labels, weights = np.array([row[2] for row in table]), np.array([row[3] for row in table])
    unusable = UnusableRows()
    unusable.add(TARGET_NOT_FINITE, bad)
    found = unfit_members(assignment(members), unusable, labels, weights)
    for member in range(max(members) + 1):
        own = np.array(members) == member
        expected = None
        if bad[own].any():
            expected = TARGET_NOT_FINITE
        elif not weights[own].any():
            expected = NO_WEIGHT
        elif len(set(labels[own & (weights > 0)].tolist())) == 1:
            expected = ONE_CLASS_ONLY
        assert found.get(member) == expected
    assert list(found) == sorted(found)


def test_the_first_reason_counts_and_rows_of_one_reason_add_up() -> None:
    unusable = UnusableRows()
    unusable.add(TARGET_NOT_FINITE, np.array([True, False, False]))
    unusable.add(FEATURE_NOT_FINITE, np.array([False, True, False]))
    unusable.add(FEATURE_NOT_FINITE, np.array([True, False, False]))
    found = unfit_members(assignment([0, 1, 2]), unusable, None, None)
    assert found == {0: FEATURE_NOT_FINITE, 1: FEATURE_NOT_FINITE}


def test_a_regression_has_no_classes() -> None:
    assert unfit_members(assignment([0, 0, 1]), UnusableRows(), None, None) == {}


def test_two_columns_of_one_logit_are_classes_too() -> None:
    labels = np.array([[0.0], [1.0], [1.0]], np.float32)
    assert unfit_members(assignment([0, 0, 1]), UnusableRows(), labels, None) == {1: ONE_CLASS_ONLY}


def test_reasons_are_described_by_their_counts() -> None:
    assert described({0: NO_WEIGHT, 1: ONE_CLASS_ONLY, 5: ONE_CLASS_ONLY}) == (
        "ONE_CLASS_ONLY (2 members), NO_WEIGHT (1 member)"
    )
