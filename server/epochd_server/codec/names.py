"""Resource names inside messages that this server wrote itself."""

from __future__ import annotations

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.resources import parse_model, parse_run, parse_version_reference


def stored_run(name: str) -> str:
    """The run's id.

    Raises:
        EpochdError: ARTIFACT_CORRUPT where ``name`` is no run's name.
    """
    return _present(parse_run(name))


def stored_model(name: str) -> str:
    """The model's id.

    Raises:
        EpochdError: ARTIFACT_CORRUPT where ``name`` is no model's name.
    """
    return _present(parse_model(name))


def stored_version(name: str) -> tuple[str, int]:
    """The model's id and the version's number.

    Raises:
        EpochdError: ARTIFACT_CORRUPT where ``name`` is no version's name.
    """
    reference = parse_version_reference(name)
    if reference is None or reference.version is None:
        raise EpochdError(Reason.ARTIFACT_CORRUPT)
    return reference.model, reference.version


def _present(identifier: str | None) -> str:
    if identifier is None:
        raise EpochdError(Reason.ARTIFACT_CORRUPT)
    return identifier
