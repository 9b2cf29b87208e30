"""What became of the members of a fleet: domain → messages; requests for members → domain."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from epochd.v1 import models_pb2 as pb
from epochd.v1 import run_pb2
from epochd_server.codec.evaluations import encode_evaluation
from epochd_server.codec.members import decode_key, encode_key
from epochd_server.domain.commands import PromoteCommand
from epochd_server.domain.errors import Violations
from epochd_server.domain.evaluations import member_evaluation
from epochd_server.domain.fit_failures import FIT_FAILURES
from epochd_server.domain.fleets import MemberOrder, Members, MemberState
from epochd_server.domain.resources import (
    NAME_RULE,
    VERSION_REFERENCE_RULE,
    is_name,
    parse_version_reference,
)

_STATES: Mapping[int, pb.MemberState.ValueType] = MappingProxyType(
    {
        MemberState.SUCCEEDED: pb.MEMBER_STATE_SUCCEEDED,
        MemberState.FAILED: pb.MEMBER_STATE_FAILED,
    }
)
_ORDERS: Mapping[int, MemberOrder] = MappingProxyType(
    {
        pb.MEMBER_ORDER_UNSPECIFIED: MemberOrder.BY_KEY,
        pb.MEMBER_ORDER_BY_KEY: MemberOrder.BY_KEY,
        pb.MEMBER_ORDER_BY_LOSS: MemberOrder.BY_LOSS,
        pb.MEMBER_ORDER_BY_VALIDATION_LOSS: MemberOrder.BY_VALIDATION_LOSS,
    }
)
_FAILURES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "TARGET_NOT_FINITE": (
            "A target of its rows is missing, NaN or infinite.",
            "Leave those rows out, or fill them in.",
        ),
        "FEATURE_NOT_FINITE": (
            "A feature of its rows is missing, NaN or infinite.",
            "Leave those rows out, or fill them in.",
        ),
        "WEIGHT_NOT_VALID": (
            "A weight of its rows is missing, negative, NaN or infinite.",
            "Give every row a finite weight of at least 0.",
        ),
        "ONE_CLASS_ONLY": (
            "All its rows have the same class.",
            "A classifier needs rows of two classes at least.",
        ),
        "NO_WEIGHT": (
            "The weights of its rows add up to 0.",
            "Give at least one of its rows a weight above 0.",
        ),
        "LOSS_NOT_FINITE": (
            "Its loss or a parameter became NaN or infinite.",
            "Try a smaller learning rate, and bring the features to a common scale, such as mean 0 and deviation 1.",
        ),
        "NO_VALIDATION_ROWS": (
            "None of its rows is held out, or those that are have no weight.",
            "A member needs two rows at least (by group two groups), or rows of its own to be validated on.",
        ),
        "ONE_CLASS_LEFT": (
            "All its rows that are not held out have the same class.",
            "Hold out fewer rows, or split them stratified.",
        ),
        "MODULE_FAILED": ("The registered module raised an error.", "The server's log has the details."),
        **FIT_FAILURES,
    }
)


def encode_member(members: Members, member: int) -> pb.Member:
    """The message of one member."""
    message = pb.Member(
        key=encode_key(members.keys.key(member)),
        state=_STATES[int(members.states[member])],
        rows=int(members.rows[member]),
        epochs=int(members.epochs[member]),
        final_loss=float(members.final_losses[member]),
        evaluation=encode_evaluation(member_evaluation(members, member)),
    )
    if message.state == pb.MEMBER_STATE_FAILED:
        message.failure.CopyFrom(_failure(members.reasons.get(member, "UNKNOWN")))
    return message


def decode_member_state(state: pb.MemberState.ValueType, violations: Violations) -> MemberState | None:
    """The state that members are asked for in; None for all."""
    for known, number in _STATES.items():
        if number == state:
            return MemberState(known)
    if state != pb.MEMBER_STATE_UNSPECIFIED:
        violations.add("state", f"{state} is no known MemberState")
    return None


def decode_member_order(order: pb.MemberOrder.ValueType, violations: Violations) -> MemberOrder:
    """The order that members are asked for in."""
    found = _ORDERS.get(order)
    if found is None:
        violations.add("order", f"{order} is no known MemberOrder")
    return found or MemberOrder.BY_KEY


def decode_promotion(request: pb.PromoteMemberRequest, violations: Violations) -> PromoteCommand | None:
    """The command of a request.

    Returns:
        None, and everything wrong in ``violations``, where the request is malformed.
    """
    before = len(violations.found)
    reference = parse_version_reference(request.name)
    if reference is None:
        violations.add("name", f"{VERSION_REFERENCE_RULE}, is {request.name[:80]!r}")
    with violations.within("key"):
        key = decode_key(request.key, violations)
    if request.model_name and not is_name(request.model_name):
        violations.add("model_name", f"must be {NAME_RULE}, is {request.model_name[:80]!r}")
    if reference is None or key is None or len(violations.found) > before:
        return None
    return PromoteCommand(reference=reference, key=key, model=request.model_name or None)


def _failure(reason: str) -> run_pb2.Failure:
    message, hint = _FAILURES.get(reason, ("It could not be trained.", ""))
    return run_pb2.Failure(reason=reason, message=message, hint=hint)
