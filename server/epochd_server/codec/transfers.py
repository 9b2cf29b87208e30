"""ExportVersion and ImportVersion: requests → commands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from epochd.v1 import models_pb2 as pb
from epochd_server.codec.members import decode_key
from epochd_server.codec.user_labels import decode_user_labels
from epochd_server.domain.commands import ExportCommand, ExportFormat, ImportCommand
from epochd_server.domain.errors import Violations
from epochd_server.domain.resources import (
    NAME_RULE,
    VERSION_REFERENCE_RULE,
    is_name,
    parse_version_reference,
)

_SHOWN = 80
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FORMATS: Mapping[int, ExportFormat] = MappingProxyType(
    {
        pb.EXPORT_FORMAT_UNSPECIFIED: ExportFormat.SAFETENSORS,
        pb.EXPORT_FORMAT_SAFETENSORS: ExportFormat.SAFETENSORS,
        pb.EXPORT_FORMAT_CARD: ExportFormat.CARD,
        pb.EXPORT_FORMAT_ONNX: ExportFormat.ONNX,
        pb.EXPORT_FORMAT_PT2: ExportFormat.PT2,
    }
)


def decode_export(request: pb.ExportVersionRequest, violations: Violations) -> ExportCommand | None:
    """The command of a request; None, and everything wrong in ``violations``, where it is malformed."""
    reference = parse_version_reference(request.name)
    if reference is None:
        violations.add("name", f"{VERSION_REFERENCE_RULE}, is {request.name[:_SHOWN]!r}")
    form = _FORMATS.get(request.format)
    if form is None:
        violations.add("format", f"{request.format} is no known ExportFormat")
    member = None
    if request.HasField("member"):
        with violations.within("member"):
            member = decode_key(request.member, violations)
    if violations or reference is None or form is None:
        return None
    return ExportCommand(reference=reference, format=form, member=member)


def decode_import(header: pb.ImportHeader, most_bytes: int, violations: Violations) -> ImportCommand:
    """The command of a header, of which everything wrong is in ``violations``.

    Args:
        header: The header.
        most_bytes: The largest file that is taken.
        violations: Gets paths relative to the header.
    """
    if header.model_name and not is_name(header.model_name):
        violations.add("model_name", f"must be {NAME_RULE}, is {header.model_name[:_SHOWN]!r}")
    if not _DIGEST.fullmatch(header.sha256):
        violations.add("sha256", f"must be 64 lower-case hex digits, is {header.sha256[:_SHOWN]!r}")
    if not 1 <= header.size_bytes <= most_bytes:
        violations.add("size_bytes", f"must be from 1 to {most_bytes:,}, is {header.size_bytes:,}")
    return ImportCommand(
        model=header.model_name or None,
        sha256=header.sha256,
        size_bytes=header.size_bytes,
        labels=decode_user_labels(header.labels, violations),
    )
