"""Every error that may reach a client, and the one table that says how it looks there.

    EpochdError                 carries a Reason, a public message and metadata
    └── InvalidInput            carries every violated field at once

Code inside the server raises these; anything else that escapes a handler is a bug and is shown to the
client as INTERNAL without its text.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType


class Code(enum.Enum):
    """The canonical status codes (google.rpc.Code), by name."""

    CANCELLED = "CANCELLED"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"
    DATA_LOSS = "DATA_LOSS"


class Reason(enum.StrEnum):
    """Machine-readable reasons, sent as ``google.rpc.ErrorInfo.reason`` (AIP-193)."""

    INVALID_FIELDS = "INVALID_FIELDS"
    UNDEFINED_VALUE = "UNDEFINED_VALUE"
    RUN_NOT_FOUND = "RUN_NOT_FOUND"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    VERSION_NOT_FOUND = "VERSION_NOT_FOUND"
    ALIAS_NOT_FOUND = "ALIAS_NOT_FOUND"
    MEMBER_NOT_FOUND = "MEMBER_NOT_FOUND"
    DATASET_NOT_FOUND = "DATASET_NOT_FOUND"
    MODULE_NOT_FOUND = "MODULE_NOT_FOUND"
    FILE_NOT_FOUND = "FILE_NOT_FOUND"
    PATH_NOT_ALLOWED = "PATH_NOT_ALLOWED"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    MEMBER_FAILED = "MEMBER_FAILED"
    MODULE_FAILED = "MODULE_FAILED"
    RUN_NOT_TERMINAL = "RUN_NOT_TERMINAL"
    ALIAS_IN_USE = "ALIAS_IN_USE"
    DATASET_IN_USE = "DATASET_IN_USE"
    ETAG_MISMATCH = "ETAG_MISMATCH"
    EXPORT_NOT_POSSIBLE = "EXPORT_NOT_POSSIBLE"
    MODEL_TOO_LARGE = "MODEL_TOO_LARGE"
    DATA_TOO_LARGE = "DATA_TOO_LARGE"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    QUEUE_FULL = "QUEUE_FULL"
    CLIENT_QUEUE_FULL = "CLIENT_QUEUE_FULL"
    CLIENT_BUSY = "CLIENT_BUSY"
    SERVER_BUSY = "SERVER_BUSY"
    CALL_STALLED = "CALL_STALLED"
    DIGEST_MISMATCH = "DIGEST_MISMATCH"
    ARTIFACT_CORRUPT = "ARTIFACT_CORRUPT"
    SERVER_STOPPING = "SERVER_STOPPING"
    STORAGE_UNAVAILABLE = "STORAGE_UNAVAILABLE"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """How a reason looks to a client: its status code and the message used when none is more precise."""

    code: Code
    message: str
    retry_after_seconds: float | None = None
    """When set, the error carries ``google.rpc.RetryInfo`` with this delay."""


CATALOG: Mapping[Reason, CatalogEntry] = MappingProxyType(
    {
        Reason.INVALID_FIELDS: CatalogEntry(Code.INVALID_ARGUMENT, "The request has invalid fields."),
        Reason.UNDEFINED_VALUE: CatalogEntry(
            Code.OUT_OF_RANGE, "The result is not defined for an input value."
        ),
        Reason.RUN_NOT_FOUND: CatalogEntry(Code.NOT_FOUND, "No such run."),
        Reason.MODEL_NOT_FOUND: CatalogEntry(Code.NOT_FOUND, "No such model."),
        Reason.VERSION_NOT_FOUND: CatalogEntry(Code.NOT_FOUND, "No such model version."),
        Reason.ALIAS_NOT_FOUND: CatalogEntry(Code.NOT_FOUND, "No such alias."),
        Reason.MEMBER_NOT_FOUND: CatalogEntry(Code.NOT_FOUND, "No such member in this fleet."),
        Reason.DATASET_NOT_FOUND: CatalogEntry(Code.NOT_FOUND, "No such dataset."),
        Reason.MODULE_NOT_FOUND: CatalogEntry(Code.NOT_FOUND, "No such registered module."),
        Reason.FILE_NOT_FOUND: CatalogEntry(Code.NOT_FOUND, "No such file below a data root of this server."),
        Reason.PATH_NOT_ALLOWED: CatalogEntry(
            Code.PERMISSION_DENIED, "The path is not below a data root of this server, or not plain."
        ),
        Reason.REQUEST_ID_REUSED: CatalogEntry(
            Code.ALREADY_EXISTS, "This request_id was used before with a different request."
        ),
        Reason.MEMBER_FAILED: CatalogEntry(
            Code.FAILED_PRECONDITION, "The member could not be trained and predicts nothing."
        ),
        Reason.MODULE_FAILED: CatalogEntry(
            Code.FAILED_PRECONDITION,
            "The registered module raised an error; the server's log has the details.",
        ),
        Reason.RUN_NOT_TERMINAL: CatalogEntry(Code.FAILED_PRECONDITION, "The run has not ended yet."),
        Reason.ALIAS_IN_USE: CatalogEntry(Code.FAILED_PRECONDITION, "An alias points at this version."),
        Reason.DATASET_IN_USE: CatalogEntry(
            Code.FAILED_PRECONDITION, "A run that has not ended uses this dataset."
        ),
        Reason.ETAG_MISMATCH: CatalogEntry(Code.ABORTED, "The resource changed since it was read."),
        Reason.EXPORT_NOT_POSSIBLE: CatalogEntry(
            Code.FAILED_PRECONDITION, "This version cannot be exported in this format."
        ),
        Reason.MODEL_TOO_LARGE: CatalogEntry(
            Code.RESOURCE_EXHAUSTED, "The model has more parameters than this server allows."
        ),
        Reason.DATA_TOO_LARGE: CatalogEntry(
            Code.RESOURCE_EXHAUSTED, "The data is larger than this server allows."
        ),
        Reason.MESSAGE_TOO_LARGE: CatalogEntry(
            Code.RESOURCE_EXHAUSTED, "The answer is larger than one message; use the streaming call."
        ),
        Reason.QUEUE_FULL: CatalogEntry(Code.RESOURCE_EXHAUSTED, "Too many runs are queued.", 1.0),
        Reason.CLIENT_QUEUE_FULL: CatalogEntry(
            Code.RESOURCE_EXHAUSTED, "As many runs of this client are queued as one client may have.", 1.0
        ),
        Reason.CLIENT_BUSY: CatalogEntry(
            Code.RESOURCE_EXHAUSTED,
            "This client's requests in work take as much memory as one client may.",
            1.0,
        ),
        Reason.SERVER_BUSY: CatalogEntry(
            Code.UNAVAILABLE, "The requests in work take as much memory as this server has for them.", 1.0
        ),
        Reason.CALL_STALLED: CatalogEntry(
            Code.UNAVAILABLE,
            "The client neither sent nor took anything for too long; begin where it stopped.",
            1.0,
        ),
        Reason.DIGEST_MISMATCH: CatalogEntry(
            Code.DATA_LOSS, "The uploaded bytes do not have the announced digest."
        ),
        Reason.ARTIFACT_CORRUPT: CatalogEntry(Code.DATA_LOSS, "A stored artifact is damaged."),
        Reason.SERVER_STOPPING: CatalogEntry(Code.UNAVAILABLE, "The server is stopping.", 1.0),
        Reason.STORAGE_UNAVAILABLE: CatalogEntry(
            Code.UNAVAILABLE, "The server's storage does not answer.", 1.0
        ),
        Reason.INTERNAL: CatalogEntry(Code.INTERNAL, "Internal error. The server's log has the details."),
    }
)


class EpochdError(Exception):
    """An error that a client may see.

    Args:
        reason: The machine-readable reason; it decides the status code.
        message: What the client reads. Must not hold paths, stack traces or other internals.
        metadata: Further ``ErrorInfo.metadata``, such as the resource's name.
        retry_after_seconds: How long a client should wait, where that is known better than by the catalogue.
    """

    def __init__(
        self,
        reason: Reason,
        message: str | None = None,
        metadata: Mapping[str, str] | None = None,
        *,
        retry_after_seconds: float | None = None,
    ) -> None:
        self.reason = reason
        self.message = message if message is not None else CATALOG[reason].message
        self.metadata = dict(metadata or {})
        self._retry_after_seconds = retry_after_seconds
        super().__init__(f"{reason}: {self.message}")

    @property
    def code(self) -> Code:
        """The canonical status code of this error's reason."""
        return CATALOG[self.reason].code

    @property
    def retry_after_seconds(self) -> float | None:
        """How long a client should wait before it tries again; None where a retry does not help."""
        known = self._retry_after_seconds
        return CATALOG[self.reason].retry_after_seconds if known is None else known


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One thing wrong with a request.

    Attributes:
        field: Path as in the proto, such as ``model.sequential.layers[2].linear.out_features``.
        description: What is wrong and what would be right, in one sentence.
    """

    field: str
    description: str


class InvalidInput(EpochdError):
    """A request with one or more invalid fields, all of them listed."""

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        self.violations = tuple(violations)
        listed = "; ".join(f"{v.field}: {v.description}" for v in self.violations[:10])
        more = len(self.violations) - 10
        super().__init__(Reason.INVALID_FIELDS, listed + (f"; and {more} more" if more > 0 else ""))


class Violations:
    """Collects field violations so that one answer names them all.

    Example:
        >>> violations = Violations()
        >>> with violations.within("optimizer.sgd"):
        ...     violations.add("lr", "must be > 0, is -1")
        >>> [v.field for v in violations.found]
        ['optimizer.sgd.lr']
    """

    def __init__(self) -> None:
        self.found: list[FieldViolation] = []
        self._prefix: list[str] = []

    def __bool__(self) -> bool:
        return bool(self.found)

    def add(self, field: str, description: str) -> None:
        """Records that ``field`` (relative to the enclosing ``within``; may be empty) is wrong."""
        parts = [*self._prefix, field] if field else self._prefix
        path = ".".join(parts).replace(".[", "[")
        self.found.append(FieldViolation(path, description))

    def within(self, field: str) -> AbstractContextManager[None]:
        """Prefixes every field added inside the block; ``[3]`` indexes the enclosing repeated field."""
        return _Within(self._prefix, field)

    def raise_if_any(self) -> None:
        """Raises :class:`InvalidInput` with all violations found so far, if there are any."""
        if self.found:
            raise InvalidInput(self.found)


class _Within:
    """A field's place on the path; a class of its own since a generator takes longer than most blocks."""

    __slots__ = ("_field", "_prefix")

    def __init__(self, prefix: list[str], field: str) -> None:
        self._prefix = prefix
        self._field = field

    def __enter__(self) -> None:
        self._prefix.append(self._field)

    def __exit__(self, *_: object) -> None:
        self._prefix.pop()
