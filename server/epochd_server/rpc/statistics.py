"""Statistics of exact fits: of a single model, of one member, or of a fleet page by page."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from epochd.v1 import fits_pb2 as pb
from epochd_server.codec.members import decode_key, encode_key
from epochd_server.codec.statistics import StatisticsEncoder
from epochd_server.domain.errors import EpochdError, FieldViolation, InvalidInput, Reason, Violations
from epochd_server.domain.fleets import Members, MemberState
from epochd_server.domain.models import ModelVersion, VersionCard
from epochd_server.domain.promoting import find_trained_member, require_fleet
from epochd_server.domain.resources import VersionReference, version_name
from epochd_server.domain.specs import LinearModel, LossKind
from epochd_server.domain.statistics import fit_statistics
from epochd_server.rpc.interceptors import MAX_MESSAGE_BYTES
from epochd_server.rpc.requests import PageRequest, page_token, required, version_reference
from epochd_server.serving.statistics import f_p_values, p_values
from epochd_server.storage.models import SqlModelStore

DEFAULT_PAGE: Final = 1_000
MAX_PAGE: Final = 10_000
_PAGE_BYTES: Final = MAX_MESSAGE_BYTES // 2

Arrays = Mapping[str, NDArray[np.floating]]


class StatisticsCalls:
    """What the service ``epochd.v1.Models`` does with statistics.

    Args:
        store: The registry.
    """

    def __init__(self, store: SqlModelStore) -> None:
        self._store = store

    async def get(self, request: pb.GetStatisticsRequest) -> pb.GetStatisticsResponse:
        """The statistics that are asked for."""
        violations = Violations()
        page = PageRequest(
            request.page_size, request.page_token, violations, default=DEFAULT_PAGE, most=MAX_PAGE
        )
        reference = version_reference(request.name)
        after = page.after_as(_Cursor.parse, violations)
        violations.raise_if_any()
        version = await self._store.get_version(reference if after is None else after.reference)
        if request.HasField("key"):
            return await self._of_member(version, request, violations)
        if version.card.members:
            return await self._of_fleet(version, page.size, 0 if after is None else after.position)
        arrays = {name: np.asarray(array)[None] for name, array in version.card.statistics.items()}
        response = _response(version)
        encoder = await _encoder(version, arrays)
        response.statistics.append(encoder.encode(0))
        return response

    async def _of_member(
        self, version: ModelVersion, request: pb.GetStatisticsRequest, violations: Violations
    ) -> pb.GetStatisticsResponse:
        with violations.within("key"):
            key = required(decode_key(request.key, violations), violations)
        require_fleet(version)
        members = await self._store.load_members(version.model, version.version)
        member = find_trained_member(version, members, key)
        encoder = await _encoder(version, _chosen(members, np.array([member])))
        response = _response(version)
        response.statistics.append(_with_key(encoder, 0, members, member))
        return response

    async def _of_fleet(self, version: ModelVersion, size: int, begin: int) -> pb.GetStatisticsResponse:
        members = await self._store.load_members(version.model, version.version)
        trained = np.flatnonzero(members.states == MemberState.SUCCEEDED)
        chosen = trained[begin : begin + size]
        encoder = await _encoder(version, _chosen(members, chosen))
        response = _response(version)
        taken = 0
        for position, member in enumerate(chosen.tolist()):
            encoded = _with_key(encoder, position, members, member)
            response.statistics.append(encoded)
            taken += encoded.ByteSize()
            if taken > _PAGE_BYTES:
                break
        end = begin + len(response.statistics)
        if end < len(trained):
            response.next_page_token = page_token(str(_Cursor(version.model, version.version, end)))
        return response


class _Cursor:
    """Where a page begins, among the trained members of one version."""

    def __init__(self, model: str, version: int, position: int) -> None:
        self.reference = VersionReference(model, version)
        self.position = position

    def __str__(self) -> str:
        return f"{self.reference.model} {self.reference.version} {self.position}"

    @classmethod
    def parse(cls, text: str) -> _Cursor | None:
        """The cursor whose text this is, or None."""
        parts = text.split(" ")
        if len(parts) != 3 or not all(part.isdecimal() for part in parts[1:]):
            return None
        return cls(parts[0], int(parts[1]), int(parts[2]))


async def _encoder(version: ModelVersion, arrays: Arrays) -> StatisticsEncoder:
    """Computes the statistics of members, [K, …] each.

    Raises:
        InvalidInput: The version was not fitted exactly.
    """
    card = version.card
    if not arrays or not isinstance(card.spec.model, LinearModel):
        name = version_name(version.model, version.version)
        rule = "must name a linear model that was fitted by least_squares or newton"
        raise InvalidInput([FieldViolation("name", f"{rule}; {name} was not")])
    found = fit_statistics(arrays, bias=card.spec.model.bias)
    # SciPy is imported in a thread: the first time takes as long as many requests.
    probabilities, of_f = await asyncio.to_thread(lambda: (p_values(found), f_p_values(found)))
    return StatisticsEncoder(
        statistics=found, p_values=probabilities, f_p_values=of_f, outputs=_outputs(card)
    )


def _outputs(card: VersionCard) -> list[str]:
    """Names of the outputs: targets, or the classes of a softmax."""
    if card.spec.loss.kind is not LossKind.CROSS_ENTROPY:
        return list(card.target_columns)
    if card.classes is None:
        raise EpochdError(Reason.ARTIFACT_CORRUPT)
    return [str(label) for label in card.classes]


def _response(version: ModelVersion) -> pb.GetStatisticsResponse:
    card = version.card
    bias = isinstance(card.spec.model, LinearModel) and card.spec.model.bias
    return pb.GetStatisticsResponse(
        model_version=version_name(version.model, version.version),
        coefficient_names=[*card.feature_columns, *(["bias"] if bias else [])],
    )


def _chosen(members: Members, chosen: NDArray[np.int64]) -> Arrays:
    return {name: array[chosen] for name, array in members.statistics.items()}


def _with_key(encoder: StatisticsEncoder, position: int, members: Members, member: int) -> pb.FitStatistics:
    message = encoder.encode(position)
    message.member.CopyFrom(encode_key(members.keys.key(member)))
    return message
