"""What a client asks for, decoded but not yet resolved against the data."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.activations import ActivationStep
from epochd_server.domain.data import ColumnRoles, DataSource, Table
from epochd_server.domain.fleets import Key, Sweep
from epochd_server.domain.labels import Labels
from epochd_server.domain.models import Canary
from epochd_server.domain.preprocessing import Preprocessing
from epochd_server.domain.resources import VersionReference
from epochd_server.domain.specs import Fit, Init, Loss, Model, Precision, data_precision
from epochd_server.domain.stopping import RunLimits
from epochd_server.domain.tensors import RawTensor
from epochd_server.domain.validation import Validation


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainCommand:
    """A TrainRequest as far as it could be understood, so that what follows can look for further faults.

    ``source``, ``model`` and ``loss`` are None where the request's are invalid; ``request_id``, ``model_name``,
    ``seed`` and ``log_every`` are None also where the client left them open. Other invalid values are replaced by
    harmless ones. That there was any fault is in the Violations that the decoder was given.
    """

    request_id: str | None
    model_name: str | None
    source: DataSource | None
    roles: ColumnRoles
    model: Model | None
    loss: Loss | None
    fit: Fit
    init: Init
    precision: Precision
    seed: int | None
    log_every: int | None
    log_parameters: bool
    validate_only: bool
    log_members: tuple[Key, ...] = ()
    sweep: Sweep | None = None
    validation: Validation | None = None
    validation_source: DataSource | None = None
    """The held-out rows, where they are rows of their own."""
    labels: Labels = field(default_factory=dict)
    initial: VersionReference | None = None
    """The version whose parameters training begins with."""
    preprocess: Preprocessing | None = None
    """None: columns are features as they are."""
    limits: RunLimits = field(default_factory=RunLimits)

    @property
    def data_precision(self) -> Precision:
        """The type of the rows; that of an exact fit's is float64."""
        return data_precision(self.fit, self.precision)


@dataclass(slots=True, kw_only=True, eq=False)
class PredictCommand:
    """A PredictRequest. Never changed; not frozen, as to make a frozen one takes as long as a small prediction."""

    reference: VersionReference
    rows: Table | NDArray[np.generic]
    probabilities: bool
    logits: bool
    keys: Table | None = None
    """Fleets with tensor rows: the key columns."""
    member: Key | None = None
    """Fleets: the member that predicts every row."""
    unknown_as_nan: bool = False
    """Fleets: rows whose key has no trained member give NaN instead of an error."""
    fallback_member: Key | None = None
    """Fleets: the member for rows whose key has no trained member."""
    routing_key: str | None = None
    """What decides between an alias's version and its canary; None: each row's key, or its features."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasCommand:
    """A SetAliasRequest.

    Attributes:
        etag: What the alias's etag must still be, ``absent`` where it must not be there; None: any.
    """

    model: str
    alias: str
    version: int
    etag: str | None = None
    canary: Canary | None = None


class ExportFormat(enum.Enum):
    """What a version is exported as."""

    SAFETENSORS = "safetensors"
    CARD = "card"
    ONNX = "onnx"
    PT2 = "pt2"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportCommand:
    """An ExportVersionRequest.

    Attributes:
        member: Fleets: the member to export as a single model; None: the whole fleet.
    """

    reference: VersionReference
    format: ExportFormat = ExportFormat.SAFETENSORS
    member: Key | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportCommand:
    """The header of an ImportVersion.

    Attributes:
        model: The model to add a version to; None: as the file says.
        sha256: Digest of the file.
        size_bytes: Its size.
        labels: Besides those that the file has.
    """

    model: str | None
    sha256: str
    size_bytes: int
    labels: Labels


@dataclass(frozen=True, slots=True, kw_only=True)
class PromoteCommand:
    """A PromoteMemberRequest; ``model`` is None where the fleet's own is meant."""

    reference: VersionReference
    key: Key
    model: str | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActivationCommand:
    """An ActivationTransformRequest."""

    input: RawTensor
    chain: tuple[ActivationStep, ...]
    strict: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActivationStreamCommand:
    """The header of an ActivationTransformStream."""

    dtype: str
    shape: tuple[int, ...]
    chain: tuple[ActivationStep, ...]
    strict: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DifferentiateCommand:
    """A DifferentiateRequest; empty ``gradients_of`` means all variables."""

    expression: str
    variables: Mapping[str, RawTensor]
    gradients_of: tuple[str, ...]
    repeat: int
    accumulate: bool
