"""The programs of a model version's calls, one a method of both kinds of Model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from epochd._core import registry
from epochd._core.calling import call, change
from epochd._core.effects import Program
from epochd._core.facts import VersionFacts
from epochd._core.methods import (
    DELETE_ALIAS,
    DELETE_VERSION,
    GET_MODEL,
    GET_PARAMETERS,
    GET_STATISTICS,
)
from epochd._core.predicting import Query, predict
from epochd._core.resources import model_name
from epochd._core.routing import Route
from epochd._wire.events import decode_parameters
from epochd._wire.fits import decode_statistics
from epochd._wire.preprocessing import decode_coefficients
from epochd._wire.safetensors import read_safetensors
from epochd._wire.values import decode_registered
from epochd.coefficients import Coefficients
from epochd.errors import ResourceExhausted
from epochd.policy import Policy
from epochd.registry import Canary, Comparison, ExportFormat
from epochd.statistics import Statistics
from epochd.v1 import fits_pb2, models_pb2, spec_pb2
from epochd.values import Prediction, RegisteredModel


class VersionCalls:
    """Makes the programs of one version."""

    def __init__(self, facts: VersionFacts, policy: Policy) -> None:
        self._facts = facts
        self._policy = policy

    def predict(
        self, data: Any, *, probabilities: bool = False, logits: bool = False, route: Route | None = None
    ) -> Program[Prediction]:
        """Predicts with this very version."""
        return predict(self._query(probabilities, logits, route or Route()), data, self._policy)

    def _query(self, probabilities: bool, logits: bool, route: Route) -> Query:
        classes = self._facts.classes
        widest = 0 if classes is None or classes.dtype.kind != "U" else classes.dtype.itemsize // 8
        return Query(
            model=self._facts.resource_name,
            probabilities=probabilities,
            logits=logits,
            features=self._facts.inputs,
            targets=(*self._facts.targets, self._facts.weight),
            outputs=max(len(self._facts.targets), 0 if classes is None else len(classes)) + widest,
            keys=self._facts.key_columns,
            route=route,
        )

    def parameters(self) -> Program[dict[str, NDArray[Any]]]:
        """The parameters by PyTorch's names; as a file where they do not fit one message."""
        request = models_pb2.GetParametersRequest(name=self._facts.resource_name)
        try:
            response = yield from call(GET_PARAMETERS, request, self._policy)
        except ResourceExhausted as error:
            if error.reason not in ("", "MESSAGE_TOO_LARGE"):
                raise
            return read_safetensors((yield from self.export()))
        return decode_parameters(response.parameters)

    def coefficients(self) -> Program[Coefficients]:
        """The coefficients of a linear model, in the units of its columns."""
        request = models_pb2.GetParametersRequest(name=self._facts.resource_name)
        response = yield from call(GET_PARAMETERS, request, self._policy)
        return decode_coefficients(response)

    def statistics(self) -> Program[Statistics]:
        """The statistics of a single model."""
        request = fits_pb2.GetStatisticsRequest(name=self._facts.resource_name)
        response = yield from call(GET_STATISTICS, request, self._policy)
        return decode_statistics(response.statistics[0], response.coefficient_names)

    def export(
        self, form: ExportFormat = "safetensors", member: spec_pb2.MemberKey | None = None
    ) -> Program[bytearray]:
        """The version as the bytes of a file."""
        return registry.export(self._facts.resource_name, form, self._policy, member)

    def aliases(self) -> Program[list[str]]:
        """The aliases that point at this version."""
        request = models_pb2.GetModelRequest(name=model_name(self._facts.resource_name))
        model = (yield from call(GET_MODEL, request, self._policy)).model
        return [alias.alias for alias in model.aliases if alias.version == self._facts.resource_name]

    def set_alias(self, alias: str, etag: str | None, canary: Canary | None) -> Program[RegisteredModel]:
        """Points an alias at this version."""
        return registry.set_alias(self._facts.resource_name, alias, etag, canary, self._policy)

    def delete_alias(self, alias: str, etag: str | None) -> Program[RegisteredModel]:
        """Deletes an alias of the model."""
        request = models_pb2.DeleteAliasRequest(
            model=model_name(self._facts.resource_name), alias=alias, etag=etag or ""
        )
        return decode_registered((yield from change(DELETE_ALIAS, request, self._policy)).model)

    def diff(self, other: str | VersionFacts) -> Program[Comparison]:
        """Compares this version, as the first, with another."""
        name = other.resource_name if isinstance(other, VersionFacts) else other
        return registry.diff(self._facts.resource_name, name, self._policy)

    def label(self, labels: Mapping[str, str], remove: Sequence[str]) -> Program[dict[str, str]]:
        """Changes the labels."""
        return registry.label(self._facts.resource_name, labels, remove, self._policy)

    def delete(self) -> Program[None]:
        """Deletes this version."""
        yield from change(
            DELETE_VERSION, models_pb2.DeleteVersionRequest(name=self._facts.resource_name), self._policy
        )
