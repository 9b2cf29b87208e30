"""Models: the registry of trained models."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime

from epochd.v1 import fits_pb2, models_pb2_grpc
from epochd.v1 import models_pb2 as pb
from epochd.v1 import preprocessing_pb2 as pb_steps
from epochd_server.codec.aliases import decode_alias
from epochd_server.codec.asked import decode_asked
from epochd_server.codec.coefficients import encode_coefficients
from epochd_server.codec.comparing import compare_versions
from epochd_server.codec.models import encode_move, encode_registered_model, encode_version
from epochd_server.codec.parameters import encode_parameters
from epochd_server.codec.tensors import item_size
from epochd_server.codec.user_labels import decode_label_change, decode_user_labels
from epochd_server.domain.errors import EpochdError, Reason, Violations
from epochd_server.domain.labels import Labels
from epochd_server.domain.models import Model, ModelVersion
from epochd_server.domain.resources import parse_model, parse_version_reference, version_name
from epochd_server.domain.runs import Parameters
from epochd_server.rpc.calls import Context
from epochd_server.rpc.interceptors import MAX_MESSAGE_BYTES
from epochd_server.rpc.members import MemberCalls
from epochd_server.rpc.mutations import Changed, Mutations
from epochd_server.rpc.requests import (
    PageRequest,
    exact_version,
    model_id,
    page_token,
    parse_exact_version,
    required,
    version_reference,
)
from epochd_server.rpc.statistics import StatisticsCalls
from epochd_server.rpc.transfers import TransferCalls
from epochd_server.storage.models import SqlModelStore

_LABELLED: Changed[Labels, pb.UpdateLabelsResponse] = Changed(
    pb.UpdateLabelsResponse.FromString, lambda labels: pb.UpdateLabelsResponse(labels=labels)
)
_ALIAS_SET: Changed[Model, pb.SetAliasResponse] = Changed(
    pb.SetAliasResponse.FromString, lambda model: pb.SetAliasResponse(model=encode_registered_model(model))
)
_ALIAS_DELETED: Changed[Model, pb.DeleteAliasResponse] = Changed(
    pb.DeleteAliasResponse.FromString,
    lambda model: pb.DeleteAliasResponse(model=encode_registered_model(model)),
)
_VERSION_DELETED: Changed[object, pb.DeleteVersionResponse] = Changed(
    pb.DeleteVersionResponse.FromString, lambda _: pb.DeleteVersionResponse()
)
_MODEL_DELETED: Changed[object, pb.DeleteModelResponse] = Changed(
    pb.DeleteModelResponse.FromString, lambda _: pb.DeleteModelResponse()
)


class ModelsServicer(models_pb2_grpc.ModelsServicer):
    """The service ``epochd.v1.Models``."""

    def __init__(self, store: SqlModelStore, transfers: TransferCalls, mutations: Mutations) -> None:
        self._store = store
        self._transfers = transfers
        self._mutations = mutations
        self._members = MemberCalls(store, mutations)
        self._statistics = StatisticsCalls(store)

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Returns a model."""
        model = await self._store.get_model(model_id(request.name))
        return pb.GetModelResponse(model=encode_registered_model(model))

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """Lists models by name."""
        violations = Violations()
        page = PageRequest(request.page_size, request.page_token, violations)
        after = page.after_as(parse_model, violations)
        labels = decode_user_labels(request.labels, violations)
        violations.raise_if_any()
        models, more = page.split(await self._store.list_models(page.fetch, after, labels))
        encoded = [encode_registered_model(model) for model in models]
        return pb.ListModelsResponse(
            models=encoded, next_page_token=page_token(encoded[-1].name) if more else ""
        )

    async def GetVersion(self, request: pb.GetVersionRequest, context: Context) -> pb.GetVersionResponse:
        """Returns a version."""
        return pb.GetVersionResponse(version=encode_version(await self._version(request.name)))

    async def ListVersions(
        self, request: pb.ListVersionsRequest, context: Context
    ) -> pb.ListVersionsResponse:
        """Lists the versions of a model, newest first."""
        model = model_id(request.model, "model")
        violations = Violations()
        page = PageRequest(request.page_size, request.page_token, violations)
        before = page.after_as(parse_exact_version, violations)
        labels = decode_user_labels(request.labels, violations)
        violations.raise_if_any()
        found = await self._store.list_versions(model, page.fetch, before[1] if before else None, labels)
        versions, more = page.split(found)
        encoded = [encode_version(version) for version in versions]
        return pb.ListVersionsResponse(
            versions=encoded, next_page_token=page_token(encoded[-1].name) if more else ""
        )

    async def GetParameters(
        self, request: pb.GetParametersRequest, context: Context
    ) -> pb.GetParametersResponse:
        """Returns the parameters of a version that fit one message."""
        version = await self._version(request.name)
        card = version.card
        size = card.parameters * max(1, card.members) * item_size(card.spec.precision.value)
        if size > MAX_MESSAGE_BYTES:
            raise EpochdError(
                Reason.MESSAGE_TOO_LARGE, "The parameters are larger than one message; use ExportVersion."
            )
        parameters = await self._store.load_parameters(version.model, version.version)
        fits = size <= MAX_MESSAGE_BYTES // 4  # coefficients are of float64
        return pb.GetParametersResponse(
            model_version=version_name(version.model, version.version),
            parameters=encode_parameters(parameters),
            coefficients=await self._coefficients(version, parameters) if fits else None,
        )

    async def _coefficients(
        self, version: ModelVersion, parameters: Parameters
    ) -> pb_steps.Coefficients | None:
        """In the units of the columns; of a fleet with those that members learned by themselves."""
        fitted, learned = version.card.preprocess, None
        if fitted is not None and fitted.is_per_member and version.card.members:
            learned = (await self._store.load_members(version.model, version.version)).learned
        return encode_coefficients(version.card, parameters, learned)

    async def ListMembers(self, request: pb.ListMembersRequest, context: Context) -> pb.ListMembersResponse:
        """Lists the members of a fleet."""
        return await self._members.list(request)

    async def GetMember(self, request: pb.GetMemberRequest, context: Context) -> pb.GetMemberResponse:
        """Returns a member of a fleet with its parameters."""
        return await self._members.get(request)

    async def GetStatistics(
        self, request: fits_pb2.GetStatisticsRequest, context: Context
    ) -> fits_pb2.GetStatisticsResponse:
        """Returns the statistics of a linear model that was fitted exactly."""
        return await self._statistics.get(request)

    async def PromoteMember(
        self, request: pb.PromoteMemberRequest, context: Context
    ) -> pb.PromoteMemberResponse:
        """Makes a member of a fleet or sweep a version of its own."""
        return await self._members.promote(request)

    async def ExportVersion(
        self, request: pb.ExportVersionRequest, context: Context
    ) -> AsyncIterator[pb.ExportVersionResponse]:
        """Streams a version as a file."""
        async with aclosing(self._transfers.export(request)) as responses:
            async for response in responses:
                yield response

    async def ImportVersion(
        self, request_iterator: AsyncIterator[pb.ImportVersionRequest], context: Context
    ) -> pb.ImportVersionResponse:
        """Makes a version of an exported file."""
        return await self._transfers.import_(request_iterator)

    async def DiffVersions(
        self, request: pb.DiffVersionsRequest, context: Context
    ) -> pb.DiffVersionsResponse:
        """Compares two versions field by field."""
        references = version_reference(request.base, "base"), version_reference(request.other, "other")
        base, other = [encode_version(await self._store.get_version(one)) for one in references]
        return pb.DiffVersionsResponse(base=base, other=other, fields=compare_versions(base, other))

    async def UpdateLabels(
        self, request: pb.UpdateLabelsRequest, context: Context
    ) -> pb.UpdateLabelsResponse:
        """Changes the labels of a model or a version."""
        violations = Violations()
        asked = decode_asked(request, violations)
        change = decode_label_change(request.labels, request.removed, violations)
        reference = parse_version_reference(request.name)
        if reference is None or reference.alias is not None:
            rule = "must be models/{model} or models/{model}/versions/{version}"
            violations.add("name", f"{rule}, is {request.name[:80]!r}")
        model, version, _ = required(reference, violations)
        return await self._mutations.once(
            asked, lambda once: self._store.change_labels(model, version, change, once), _LABELLED
        )

    async def SetAlias(self, request: pb.SetAliasRequest, context: Context) -> pb.SetAliasResponse:
        """Points an alias at a version."""
        violations = Violations()
        asked = decode_asked(request, violations)
        command, now = required(decode_alias(request, violations), violations), datetime.now(UTC)
        return await self._mutations.once(
            asked, lambda once: self._store.set_alias(command, now, once), _ALIAS_SET
        )

    async def ListAliasMoves(
        self, request: pb.ListAliasMovesRequest, context: Context
    ) -> pb.ListAliasMovesResponse:
        """Lists where an alias has pointed, newest first."""
        model = model_id(request.model, "model")
        violations = Violations()
        page = PageRequest(request.page_size, request.page_token, violations)
        before = page.after_as(_parse_move, violations)
        violations.raise_if_any()
        found = await self._store.list_alias_moves(model, request.alias, page.fetch, before)
        moves, more = page.split(found)
        return pb.ListAliasMovesResponse(
            moves=[encode_move(model, move) for move in moves],
            next_page_token=page_token(str(moves[-1].move)) if more else "",
        )

    async def DeleteAlias(self, request: pb.DeleteAliasRequest, context: Context) -> pb.DeleteAliasResponse:
        """Deletes an alias."""
        violations = Violations()
        asked = decode_asked(request, violations)
        model = model_id(request.model, "model", violations)
        now, etag = datetime.now(UTC), request.etag or None
        return await self._mutations.once(
            asked,
            lambda once: self._store.delete_alias(model, request.alias, now, etag, once),
            _ALIAS_DELETED,
        )

    async def DeleteVersion(
        self, request: pb.DeleteVersionRequest, context: Context
    ) -> pb.DeleteVersionResponse:
        """Deletes a version that no alias points at."""
        violations = Violations()
        asked = decode_asked(request, violations)
        model, version = exact_version(request.name, violations=violations)
        return await self._mutations.once(
            asked, lambda once: self._store.delete_version(model, version, once), _VERSION_DELETED
        )

    async def DeleteModel(self, request: pb.DeleteModelRequest, context: Context) -> pb.DeleteModelResponse:
        """Deletes a model with its versions and aliases."""
        violations = Violations()
        asked = decode_asked(request, violations)
        model = model_id(request.name, violations=violations)
        return await self._mutations.once(
            asked, lambda once: self._store.delete_model(model, once), _MODEL_DELETED
        )

    async def _version(self, name: str) -> ModelVersion:
        return await self._store.get_version(version_reference(name))


def _parse_move(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 19 else None
