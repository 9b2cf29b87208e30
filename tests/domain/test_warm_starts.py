"""Where members begin that continue a version."""

from __future__ import annotations

import numpy as np

from epochd_server.domain.fleets import Keys, Members
from epochd_server.domain.warm_starts import start_values

PARAMETERS = {"w": np.arange(6, dtype=np.float32).reshape(3, 2)}
MEMBERS = Members(
    keys=Keys(("city", "shop"), (np.array(["a", "a", "b"], object), np.array([1, 2, 1]))),
    states=np.array([1, 2, 1], np.uint8),
    rows=np.ones(3, np.int64),
    epochs=np.ones(3, np.int64),
    final_losses=np.zeros(3),
    reasons={1: "X"},
)
DOUBLE = np.dtype(np.float64)


def test_members_take_their_values_by_key_and_others_are_nan():
    keys = Keys(("city", "shop"), (np.array(["a", "a", "b", "b"], object), np.array([1, 2, 1, 9])))
    values = start_values(PARAMETERS, MEMBERS, keys, DOUBLE)["w"]
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, [[0, 1], [np.nan] * 2, [4, 5], [np.nan] * 2])


def test_keys_of_another_kind_are_nobodys():
    keys = Keys(("city", "shop"), (np.array([1, 2]), np.array([1, 2])))
    assert np.isnan(start_values(PARAMETERS, MEMBERS, keys, DOUBLE)["w"]).all()


def test_a_single_model_is_for_everybody():
    one = {"w": np.float32([1, 2])}
    keys = Keys(("lr",), (np.array([0.1, 0.2]),))
    assert start_values(one, None, keys, DOUBLE)["w"].tolist() == [[1, 2], [1, 2]]
    assert start_values(one, None, None, DOUBLE)["w"].tolist() == [1, 2]
