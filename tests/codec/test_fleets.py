"""Members as clients see them, and requests for them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from epochd.v1 import models_pb2 as pb
from epochd.v1 import spec_pb2
from epochd_server.codec.fleets import (
    decode_member_order,
    decode_member_state,
    decode_promotion,
    encode_member,
)
from epochd_server.domain.errors import Violations
from epochd_server.domain.fleets import Keys, Members, MemberState
from epochd_server.domain.resources import VersionReference

KEY = spec_pb2.MemberKey(values=[spec_pb2.KeyValue(text="a"), spec_pb2.KeyValue(integer=3)])


def members(reasons: dict[int, str]) -> Members:
    return Members(
        keys=Keys(("city", "shop"), (np.array(["a", "b"], object), np.int64([3, 4]))),
        states=np.array([2 if n in reasons else 1 for n in range(2)], np.uint8),
        rows=np.int64([5, 6]),
        epochs=np.int64([7, 8]),
        final_losses=np.float64([0.5, math.nan]),
        reasons=reasons,
    )


def fields(violations: Violations) -> set[str]:
    return {violation.field for violation in violations.found}


def test_a_member_says_what_became_of_it() -> None:
    message = encode_member(members({}), 0)
    assert (message.key, message.state) == (KEY, pb.MEMBER_STATE_SUCCEEDED)
    assert (message.rows, message.epochs, message.final_loss) == (5, 7, 0.5)
    assert not message.HasField("failure")


@pytest.mark.parametrize("reason", ["ONE_CLASS_ONLY", "SOMETHING_NEW"])
def test_a_failed_member_says_why_in_a_sentence(reason) -> None:
    message = encode_member(members({1: reason}), 1)
    assert message.state == pb.MEMBER_STATE_FAILED
    assert math.isnan(message.final_loss)
    assert message.failure.reason == reason
    assert message.failure.message.endswith(".")


@pytest.mark.parametrize("state", MemberState)
def test_every_state_can_be_asked_for(state) -> None:
    number = pb.MemberState.Value(f"MEMBER_STATE_{state.name}")
    assert decode_member_state(number, Violations()) is state


def test_an_unset_state_is_all_and_an_unknown_one_is_named() -> None:
    violations = Violations()
    assert decode_member_state(0, violations) is None
    assert fields(violations) == set()
    decode_member_state(9, violations)
    decode_member_order(9, violations)
    assert fields(violations) == {"state", "order"}


def test_a_promotion_names_a_version_a_member_and_perhaps_a_model() -> None:
    one, other = (
        decode_promotion(
            pb.PromoteMemberRequest(name="models/m@best", key=KEY, model_name=name), Violations()
        )
        for name in ("", "n")
    )
    assert (one.reference, one.key, one.model) == (VersionReference("m", alias="best"), ("a", 3), None)
    assert other.model == "n"


def test_everything_wrong_with_a_promotion_is_named() -> None:
    violations = Violations()
    request = pb.PromoteMemberRequest(name="m", model_name="N n")
    assert decode_promotion(request, violations) is None
    assert fields(violations) == {"name", "key.values", "model_name"}
