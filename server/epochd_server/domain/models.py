"""Models, their versions and aliases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from epochd_server.domain.data import Classes
from epochd_server.domain.fleets import Key, Members
from epochd_server.domain.runs import Parameters
from epochd_server.domain.specs import TrainingSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The member of a fleet that was made a version of its own."""

    model: str
    version: int
    key: Key


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionCard:
    """What is known of a version besides its weights; see the proto for the meaning of each field."""

    run_id: str
    spec: TrainingSpec
    feature_columns: tuple[str, ...]
    target_columns: tuple[str, ...]
    classes: Classes | None
    parameters: int
    rows: int
    epochs: int
    final_loss: float
    members: int = 0
    """Fleets: the number of members; 0 for a single model. ``parameters`` is then that of one member."""
    failed_members: int = 0
    key_columns: tuple[str, ...] = ()
    origin: Origin | None = None
    """The fleet's member that this version was made of, if it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """An immutable trained model."""

    model: str
    version: int
    create_time: datetime
    card: VersionCard


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedModel:
    """What a finished training hands to the registry."""

    card: VersionCard
    parameters: Parameters
    """By PyTorch's names; a fleet's have the members as a further first dimension [K, …], in the order of keys."""
    members: Members | None = None
    """Fleets: what became of each member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A named series of versions."""

    model: str
    latest_version: int
    create_time: datetime
    update_time: datetime
    aliases: Mapping[str, int] = field(default_factory=dict)
