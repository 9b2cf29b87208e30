"""Models: the registry of trained models."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from epochd.v1 import models_pb2 as pb
from epochd.v1 import models_pb2_grpc
from epochd_server.codec.models import encode_registered_model, encode_version
from epochd_server.codec.parameters import encode_parameters
from epochd_server.codec.tensors import item_size
from epochd_server.domain.errors import EpochdError, Reason, Violations
from epochd_server.domain.models import ModelVersion
from epochd_server.domain.resources import NAME_RULE, is_name, parse_model, version_name
from epochd_server.rpc.calls import Context
from epochd_server.rpc.interceptors import MAX_MESSAGE_BYTES
from epochd_server.rpc.members import MemberCalls
from epochd_server.rpc.requests import (
    PageRequest,
    exact_version,
    model_id,
    page_token,
    parse_exact_version,
    version_reference,
)
from epochd_server.storage.models import SqlModelStore


class ModelsServicer(models_pb2_grpc.ModelsServicer):
    """The service ``epochd.v1.Models``."""

    def __init__(self, store: SqlModelStore) -> None:
        self._store = store
        self._members = MemberCalls(store)

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Returns a model."""
        model = await self._store.get_model(model_id(request.name))
        return pb.GetModelResponse(model=encode_registered_model(model))

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """Lists models by name."""
        violations = Violations()
        page = PageRequest(request.page_size, request.page_token, violations)
        after = page.after_as(parse_model, violations)
        violations.raise_if_any()
        models, more = page.split(await self._store.list_models(page.fetch, after))
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
        violations.raise_if_any()
        found = await self._store.list_versions(model, page.fetch, before[1] if before else None)
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
        count = card.parameters * max(1, card.members)
        if count * item_size(card.spec.precision.value) > MAX_MESSAGE_BYTES:
            raise EpochdError(
                Reason.MESSAGE_TOO_LARGE, "The parameters are larger than one message; use ExportVersion."
            )
        parameters = await self._store.load_parameters(version.model, version.version)
        return pb.GetParametersResponse(
            model_version=version_name(version.model, version.version),
            parameters=encode_parameters(parameters),
        )

    async def ListMembers(self, request: pb.ListMembersRequest, context: Context) -> pb.ListMembersResponse:
        """Lists the members of a fleet."""
        return await self._members.list(request)

    async def GetMember(self, request: pb.GetMemberRequest, context: Context) -> pb.GetMemberResponse:
        """Returns a member of a fleet with its parameters."""
        return await self._members.get(request)

    async def PromoteMember(
        self, request: pb.PromoteMemberRequest, context: Context
    ) -> pb.PromoteMemberResponse:
        """Makes a member of a fleet or sweep a version of its own."""
        return await self._members.promote(request)

    async def ExportVersion(
        self, request: pb.ExportVersionRequest, context: Context
    ) -> AsyncIterator[pb.ExportVersionResponse]:
        """Streams a version's parameters as a safetensors file."""
        version = await self._version(request.name)
        async with aclosing(self._store.read_safetensors(version.model, version.version)) as chunks:
            async for chunk in chunks:
                yield pb.ExportVersionResponse(data=chunk)

    async def SetAlias(self, request: pb.SetAliasRequest, context: Context) -> pb.SetAliasResponse:
        """Points an alias at a version."""
        violations = Violations()
        if not is_name(request.alias):
            violations.add("alias", f"must be {NAME_RULE}, is {request.alias[:80]!r}")
        model, version = parse_model(request.model), parse_exact_version(request.version)
        if model is None:
            violations.add("model", f"must be models/{{model}}, is {request.model[:80]!r}")
        if version is None or (model is not None and version[0] != model):
            rule = f"must be {request.model[:80]}/versions/{{version}}"
            violations.add("version", f"{rule}, is {request.version[:80]!r}")
        violations.raise_if_any()
        model, number = exact_version(request.version)
        changed = await self._store.set_alias(model, request.alias, number)
        return pb.SetAliasResponse(model=encode_registered_model(changed))

    async def DeleteAlias(self, request: pb.DeleteAliasRequest, context: Context) -> pb.DeleteAliasResponse:
        """Deletes an alias."""
        model = model_id(request.model, "model")
        await self._store.delete_alias(model, request.alias)
        changed = await self._store.get_model(model)
        return pb.DeleteAliasResponse(model=encode_registered_model(changed))

    async def DeleteVersion(
        self, request: pb.DeleteVersionRequest, context: Context
    ) -> pb.DeleteVersionResponse:
        """Deletes a version that no alias points at."""
        await self._store.delete_version(*exact_version(request.name))
        return pb.DeleteVersionResponse()

    async def DeleteModel(self, request: pb.DeleteModelRequest, context: Context) -> pb.DeleteModelResponse:
        """Deletes a model with its versions and aliases."""
        await self._store.delete_model(model_id(request.name))
        return pb.DeleteModelResponse()

    async def _version(self, name: str) -> ModelVersion:
        return await self._store.get_version(version_reference(name))
