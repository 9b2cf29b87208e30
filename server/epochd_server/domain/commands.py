"""What a client asks for, decoded but not yet resolved against the data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.data import ColumnRoles, DataSource, Table
from epochd_server.domain.resources import VersionReference
from epochd_server.domain.specs import GradientFit, Init, Loss, Model, Precision


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainCommand:
    """A TrainRequest; None stands for what the client left open."""

    request_id: str | None
    model_name: str | None
    source: DataSource
    roles: ColumnRoles
    model: Model
    loss: Loss
    fit: GradientFit
    init: Init
    precision: Precision
    seed: int | None
    log_every: int | None
    log_parameters: bool
    validate_only: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PredictCommand:
    """A PredictRequest."""

    reference: VersionReference
    rows: Table | NDArray[np.generic]
    probabilities: bool
    logits: bool
