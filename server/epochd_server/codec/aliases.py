"""SetAlias: requests → commands."""

from __future__ import annotations

import math

from epochd.v1 import models_pb2 as pb
from epochd_server.domain.canaries import HUNDREDTHS
from epochd_server.domain.commands import AliasCommand
from epochd_server.domain.errors import Violations
from epochd_server.domain.models import Canary
from epochd_server.domain.resources import (
    NAME_RULE,
    VersionReference,
    is_name,
    parse_model,
    parse_version_reference,
)

_SHOWN = 80


def decode_alias(request: pb.SetAliasRequest, violations: Violations) -> AliasCommand | None:
    """The command of a request.

    Returns:
        None, and everything wrong in ``violations``, where the request is malformed.
    """
    model = parse_model(request.model)
    if model is None:
        violations.add("model", f"must be models/{{model}}, is {request.model[:_SHOWN]!r}")
    if not is_name(request.alias):
        violations.add("alias", f"must be {NAME_RULE}, is {request.alias[:_SHOWN]!r}")
    version = _version(request.version, request.model, "version", violations)
    canary = _decode_canary(request, version, violations) if request.HasField("canary") else None
    if violations or model is None or version is None:
        return None
    return AliasCommand(
        model=model, alias=request.alias, version=version, etag=request.etag or None, canary=canary
    )


def _decode_canary(request: pb.SetAliasRequest, version: int | None, violations: Violations) -> Canary | None:
    with violations.within("canary"):
        other = _version(request.canary.version, request.model, "version", violations)
        if other is not None and other == version:
            violations.add("version", "must be another version than the alias's own")
        hundredths = request.canary.percent * HUNDREDTHS / 100
        if not (math.isfinite(hundredths) and 1 <= round(hundredths) <= HUNDREDTHS - 1):
            violations.add("percent", f"must be from 0.01 to 99.99, is {request.canary.percent:g}")
            return None
    return None if other is None else Canary(version=other, hundredths=round(hundredths))


def _version(name: str, model: str, field: str, violations: Violations) -> int | None:
    """The number of a version of the model, or None and a violation."""
    reference = parse_version_reference(name) or VersionReference("")
    number = reference.version
    if number is None or (parse_model(model) not in (None, reference.model)):
        violations.add(field, f"must be {model[:_SHOWN]}/versions/{{version}}, is {name[:_SHOWN]!r}")
        return None
    return number
