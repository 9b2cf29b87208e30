"""Columns of a fleet's members that hold several numbers each."""

from __future__ import annotations

import numpy as np

from epochd_server.domain.fleets import Keys, Members, MemberState
from epochd_server.storage import member_columns


def test_statistics_come_back_in_their_shapes():
    statistics = {
        "standard_errors": np.arange(24.0).reshape(3, 2, 4),
        "residual_squares": np.array([[1.0, np.nan], [2.0, 3.0], [4.0, 5.0]]),
        "ranks": np.array([4.0, 4.0, 3.0]),
    }
    members = Members(
        keys=Keys(("store",), (np.array([1, 2, 5]),)),
        states=np.full(3, MemberState.SUCCEEDED, np.uint8),
        rows=np.array([4, 5, 6]),
        epochs=np.ones(3, np.int64),
        final_losses=np.zeros(3),
        reasons={},
        statistics=statistics,
    )
    data = member_columns.pack(members)
    assert data == member_columns.pack(members)
    found = member_columns.unpack(memoryview(data)).statistics
    assert list(found) == list(statistics)
    for name, array in statistics.items():
        np.testing.assert_array_equal(found[name], array)
