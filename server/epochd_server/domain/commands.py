"""What a client asks for, decoded but not yet resolved against the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.activations import ActivationStep
from epochd_server.domain.data import ColumnRoles, DataSource, Table
from epochd_server.domain.fleets import Key, Sweep
from epochd_server.domain.resources import VersionReference
from epochd_server.domain.specs import GradientFit, Init, Loss, Model, Precision
from epochd_server.domain.tensors import RawTensor


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
    fit: GradientFit
    init: Init
    precision: Precision
    seed: int | None
    log_every: int | None
    log_parameters: bool
    validate_only: bool
    log_members: tuple[Key, ...] = ()
    sweep: Sweep | None = None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PromoteCommand:
    """A PromoteMemberRequest; ``model`` is None where the fleet's own is meant.

    Attributes:
        fingerprint: SHA-256 of the request without request_id: a repeated request_id must match it.
    """

    reference: VersionReference
    key: Key
    model: str | None
    request_id: str | None
    fingerprint: bytes


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
