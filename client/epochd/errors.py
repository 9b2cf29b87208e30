"""Everything that epochd raises.

::

    EpochdError                     any of them: .code .reason .metadata .request_id .retry_after
    ├── InvalidArgument             the request is wrong; .violations lists all of it (also a ValueError)
    ├── OutOfRange                  a value for which the result is not defined (also a ValueError)
    ├── NotFound                    no such run, model, version, alias, dataset or module
    ├── AlreadyExists               the request_id belongs to another request
    ├── FailedPrecondition          not in this state, such as deleting a version that an alias points at
    ├── Aborted                     it changed meanwhile
    ├── PermissionDenied            the credentials do not allow it
    ├── ResourceExhausted           too large, or too much at once; .retry_after where waiting helps
    ├── Unavailable                 the server does not serve now; safe calls were retried
    │   └── ConnectionFailed        nothing answered at the address
    ├── DeadlineExceeded            it took longer than allowed (also a TimeoutError)
    ├── Cancelled                   the call was cancelled
    ├── DataLoss                    stored or sent bytes are damaged
    ├── Unimplemented               the server is older than this client
    ├── Internal                    a bug of the server; its log has .request_id
    ├── TrainingFailed              the run ended without a model: .reason .hint .epoch .run
    └── TrainingCancelled           the run was cancelled: .epochs .run .model_version

The class follows from the status code, ``reason`` from the server's ``google.rpc.ErrorInfo``; texts are for
people and may change.

Example:
    >>> try:
    ...     raise InvalidArgument("1 invalid field", violations=[Violation("optimizer.sgd.lr", "must be > 0")])
    ... except EpochdError as error:
    ...     print(error)
    1 invalid field
      optimizer.sgd.lr: must be > 0
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from epochd._words import counted


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong with a request."""

    field: str
    """Path of the field, such as ``model.sequential.layers[2].linear.in_features``."""

    description: str
    """What is wrong with it and what would be right."""


class EpochdError(Exception):
    """Any error of epochd.

    Args:
        message: What went wrong, for a person.
        reason: Machine-readable reason in UPPER_SNAKE; empty where the server gave none.
        metadata: Further facts, such as the resource's name.
        retry_after: Seconds after which another try may help, if the server said so.
    """

    code: ClassVar[str] = "UNKNOWN"
    """Name of the canonical gRPC status code."""

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after

    @property
    def request_id(self) -> str:
        """Id of the request in the server's log; empty if not known."""
        return self.metadata.get("request_id", "")


class InvalidArgument(EpochdError, ValueError):
    """The request is wrong; ``violations`` holds everything that is wrong with it, one line each in ``str()``."""

    code = "INVALID_ARGUMENT"

    def __init__(
        self,
        message: str,
        *,
        violations: Sequence[Violation] = (),
        reason: str = "INVALID_FIELDS",
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata, retry_after=retry_after)
        self.violations = tuple(violations)

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  {v.field}: {v.description}" for v in self.violations)])


class OutOfRange(EpochdError, ValueError):
    """With ``strict``: an input for which the result is not defined; the message names the first index."""

    code = "OUT_OF_RANGE"


class NotFound(EpochdError):
    """There is no such run, model, version, alias, dataset or registered module."""

    code = "NOT_FOUND"


class AlreadyExists(EpochdError):
    """The ``request_id`` was used before with another request."""

    code = "ALREADY_EXISTS"


class FailedPrecondition(EpochdError):
    """The resource is not in a state that allows this."""

    code = "FAILED_PRECONDITION"


class Aborted(EpochdError):
    """The resource changed meanwhile; read it again and decide anew."""

    code = "ABORTED"


class PermissionDenied(EpochdError):
    """The credentials are missing or do not allow this."""

    code = "PERMISSION_DENIED"


class ResourceExhausted(EpochdError):
    """Something is larger than the server allows, or it has too much to do; then ``retry_after`` is set."""

    code = "RESOURCE_EXHAUSTED"


class Unavailable(EpochdError):
    """The server does not serve at the moment; what is safe to retry was retried already."""

    code = "UNAVAILABLE"


class ConnectionFailed(Unavailable):
    """Nothing answered at the address, or the connection broke."""


class DeadlineExceeded(EpochdError, TimeoutError):
    """It took longer than allowed; see :class:`epochd.Timeout`."""

    code = "DEADLINE_EXCEEDED"


class Cancelled(EpochdError):
    """The call (not the run) was cancelled."""

    code = "CANCELLED"


class DataLoss(EpochdError):
    """Bytes were damaged in storage or on their way."""

    code = "DATA_LOSS"


class Unimplemented(EpochdError):
    """The server does not know this call: it is older than the client."""

    code = "UNIMPLEMENTED"


class Internal(EpochdError):
    """A bug of the server; its log has the details under ``request_id``."""

    code = "INTERNAL"


class TrainingFailed(EpochdError):
    """A run ended without a model.

    Attributes:
        run: Resource name of the run.
        hint: What to try; may be empty.
        epoch: The epoch in which it happened; None where that means nothing.
    """

    def __init__(
        self, run: str, message: str, *, reason: str, hint: str = "", epoch: int | None = None
    ) -> None:
        super().__init__(message, reason=reason)
        self.run = run
        self.hint = hint
        self.epoch = epoch

    def __str__(self) -> str:
        where = "" if self.epoch is None else f" in epoch {self.epoch:,}"
        hint = f"\n  {self.hint}" if self.hint else ""
        return f"{self.run} failed{where}: {self.message} [{self.reason}]{hint}"


class TrainingCancelled(EpochdError):
    """A run was cancelled before it had a model.

    Attributes:
        run: Resource name of the run.
        epochs: Epochs that were trained before the end.
        model_version: The version that keeps what it had reached, for ``client.model``; None where nothing was kept.
        reason: ``CANCELLED``, or the limit that it reached: ``DEADLINE_REACHED`` or ``TRAINING_TIME_SPENT``.
    """

    def __init__(self, run: str, *, epochs: int, reason: str = "", model_version: str | None = None) -> None:
        why = f" [{reason}]" if reason else ""
        kept = "" if model_version is None else f"; {model_version} keeps what it had reached"
        super().__init__(
            f"{run} was cancelled after {counted(epochs, 'epoch')}{why}{kept}", reason=reason or "CANCELLED"
        )
        self.run = run
        self.epochs = epochs
        self.model_version = model_version


BY_CODE: Mapping[str, type[EpochdError]] = {
    error.code: error
    for error in (
        InvalidArgument,
        OutOfRange,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        Aborted,
        PermissionDenied,
        ResourceExhausted,
        Unavailable,
        DeadlineExceeded,
        Cancelled,
        DataLoss,
        Unimplemented,
        Internal,
    )
} | {"UNAUTHENTICATED": PermissionDenied}
"""The class for each status code that has one; any other code is an :class:`Internal`."""


def invalid(field: str, description: str) -> InvalidArgument:
    """The error for one argument that this client can tell is wrong without asking the server."""
    return InvalidArgument("The request has an invalid field.", violations=[Violation(field, description)])
