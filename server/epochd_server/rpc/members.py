"""Members of fleets: lists, single ones, and those that become versions of their own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from epochd.v1 import models_pb2 as pb
from epochd_server.codec.asked import decode_asked
from epochd_server.codec.coefficients import encode_coefficients
from epochd_server.codec.fleets import (
    decode_member_order,
    decode_member_state,
    decode_promotion,
    encode_member,
)
from epochd_server.codec.members import decode_key
from epochd_server.codec.models import encode_version
from epochd_server.codec.parameters import encode_parameters
from epochd_server.domain.errors import FieldViolation, InvalidInput, Violations
from epochd_server.domain.fleets import MemberOrder, Members, MemberState
from epochd_server.domain.models import ModelVersion
from epochd_server.domain.once import Once
from epochd_server.domain.promoting import find_member, promoted, require_fleet
from epochd_server.domain.resources import VersionReference, version_name
from epochd_server.rpc.interceptors import MAX_MESSAGE_BYTES
from epochd_server.rpc.mutations import Made, Mutations
from epochd_server.rpc.requests import (
    PageRequest,
    page_token,
    parse_exact_version,
    required,
    version_reference,
)
from epochd_server.storage.models import SqlModelStore

DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 10_000
_PAGE_BYTES: Final = MAX_MESSAGE_BYTES // 2
_FEW: Final = 20_000
"""So many members are put in order faster than a thread is found for it."""


@dataclass(frozen=True, slots=True)
class _Cursor:
    """Where a page of members begins: a version never changes, so a position in its order is enough.

    Attributes:
        version: The exact version; pages go on with it even when ``models/{model}`` has a newer one.
        order: Of :class:`MemberOrder`.
        state: The filter; 0 for all.
        position: In that order.
    """

    version: tuple[str, int]
    order: int
    state: int
    position: int

    def __str__(self) -> str:
        return f"{version_name(*self.version)} {self.order:d} {self.state} {self.position}"

    @classmethod
    def parse(cls, text: str) -> _Cursor | None:
        """The cursor whose text this is, or None."""
        name, *numbers = text.split(" ")
        version = parse_exact_version(name)
        if version is None or len(numbers) != 3 or not all(number.isdecimal() for number in numbers):
            return None
        return cls(version, *map(int, numbers))


class MemberCalls:
    """What the service ``epochd.v1.Models`` does with members.

    Args:
        store: The registry.
        mutations: Makes changes once.
    """

    def __init__(self, store: SqlModelStore, mutations: Mutations) -> None:
        self._store = store
        self._mutations = mutations
        self._promoted: Made[ModelVersion, pb.PromoteMemberResponse] = Made(
            name=lambda version: version_name(version.model, version.version),
            find=lambda name: store.get_version(version_reference(name)),
            response=lambda version: pb.PromoteMemberResponse(version=encode_version(version)),
        )

    async def list(self, request: pb.ListMembersRequest) -> pb.ListMembersResponse:
        """A page of a fleet's members."""
        violations = Violations()
        page = PageRequest(
            request.page_size, request.page_token, violations, default=DEFAULT_PAGE, most=MAX_PAGE
        )
        by = decode_member_order(request.order, violations)
        state = decode_member_state(request.state, violations)
        after = page.after_as(_Cursor.parse, violations)
        if after is not None and (after.order, after.state) != (by, state or 0):
            violations.add("page_token", "is of a list with another order or state")
        reference = version_reference(request.name)
        violations.raise_if_any()
        version = await self._fleet(reference if after is None else VersionReference(*after.version))
        members = await self._store.load_members(version.model, version.version)
        if len(members.keys) <= _FEW:
            order = _ordered(members, by, state)
        else:
            order = await asyncio.to_thread(_ordered, members, by, state)
        begin = 0 if after is None else after.position
        encoded = _encoded_page(members, order[begin : begin + page.size])
        end = begin + len(encoded)
        cursor = _Cursor((version.model, version.version), by, state or 0, end)
        return pb.ListMembersResponse(
            members=encoded,
            next_page_token=page_token(str(cursor)) if end < len(order) else "",
            total=len(order),
        )

    async def get(self, request: pb.GetMemberRequest) -> pb.GetMemberResponse:
        """A member with its parameters."""
        violations = Violations()
        reference = version_reference(request.name)
        with violations.within("key"):
            key = required(decode_key(request.key, violations), violations)
        version = await self._fleet(reference)
        members = await self._store.load_members(version.model, version.version)
        member = find_member(version, members, key)
        response = pb.GetMemberResponse(
            model_version=version_name(version.model, version.version), member=encode_member(members, member)
        )
        if members.states[member] == MemberState.SUCCEEDED:
            parameters = await self._store.load_parameters(version.model, version.version)
            one = {name: array[member] for name, array in parameters.items()}
            response.parameters.extend(encode_parameters(one))
            card = promoted(version, members, member, parameters).card
            found = encode_coefficients(card, one)
            if found is not None:
                response.coefficients.CopyFrom(found)
        return response

    async def promote(self, request: pb.PromoteMemberRequest) -> pb.PromoteMemberResponse:
        """Makes a member a version; once begun, that is completed even when the client leaves meanwhile."""
        violations = Violations()
        asked = decode_asked(request, violations)
        command = required(decode_promotion(request, violations), violations)

        async def promote(once: Once[ModelVersion] | None) -> ModelVersion:
            promoting = self._store.promote(command, datetime.now(UTC), once)
            return await asyncio.shield(asyncio.create_task(promoting))

        return await self._mutations.once(asked, promote, self._promoted)

    async def _fleet(self, reference: VersionReference) -> ModelVersion:
        version = await self._store.get_version(reference)
        require_fleet(version)
        return version


def _ordered(members: Members, by: MemberOrder, state: MemberState | None) -> NDArray[np.int64]:
    """Indices of the members in this state, in the order asked for; those without a loss come last."""
    chosen = np.arange(len(members.keys)) if state is None else np.flatnonzero(members.states == state)
    if by is MemberOrder.BY_KEY:
        return chosen
    losses = _losses(members, by)[chosen]
    failed = members.states[chosen] == MemberState.FAILED
    order: NDArray[np.int64] = chosen[np.lexsort((losses, failed))]
    return order


def _losses(members: Members, by: MemberOrder) -> NDArray[np.float64]:
    """What members are ordered by [K]."""
    if by is MemberOrder.BY_LOSS:
        return members.final_losses
    if members.held_out is None:
        problem = "BY_VALIDATION_LOSS is for versions that were trained with validation"
        raise InvalidInput([FieldViolation("order", problem)])
    return members.held_out.losses


def _encoded_page(members: Members, page: NDArray[np.int64]) -> list[pb.Member]:
    """The messages of members, as many of them as a message holds."""
    encoded: list[pb.Member] = []
    size = 0
    for member in page.tolist():
        encoded.append(encode_member(members, member))
        size += encoded[-1].ByteSize()
        if size > _PAGE_BYTES:
            break
    return encoded
