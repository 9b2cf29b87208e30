"""Models, their versions and aliases; where they come from and which rows an alias sends where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from epochd_server.domain.data import Classes
from epochd_server.domain.fleets import Key, Members
from epochd_server.domain.lineage import Lineage
from epochd_server.domain.preprocessing import FittedPreprocessing
from epochd_server.domain.runs import Parameters
from epochd_server.domain.specs import TrainingSpec
from epochd_server.domain.validation import Evaluation, GivenRows


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
    evaluation: Evaluation | None = None
    """On the held-out rows; None where there are none."""
    weight_column: str | None = None
    lineage: Lineage | None = None
    """None for versions of servers that did not keep it."""
    statistics: Parameters = field(default_factory=dict, compare=False)
    """Exact fits of single models: by the names of :mod:`epochd_server.domain.statistics`."""
    preprocess: FittedPreprocessing | None = None
    """What the columns of raw rows go through to become ``feature_columns``."""

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The columns that predictions need: the features, or what preprocessing makes them of."""
        return self.feature_columns if self.preprocess is None else self.preprocess.inputs

    @property
    def role_columns(self) -> frozenset[str]:
        """Columns of the training that are no features: a table to predict may still have them."""
        validation = self.spec.validation
        split = (
            None if validation is None or isinstance(validation.rows, GivenRows) else validation.rows.column
        )
        others = (name for name in (self.weight_column, split) if name is not None)
        return frozenset((*self.target_columns, *others))


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """A second version behind an alias.

    Attributes:
        version: Its number; it is of the alias's model.
        hundredths: How many of 10,000 keys it predicts for, 1 to 9,999.
    """

    version: int
    hundredths: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """An immutable trained model; its labels are what may change.

    Attributes:
        weights_digest: SHA-256 in hex of the parameters as they are stored.
        weights_bytes: Their size.
        canary: That of the alias by which the version was asked for, if it has one.
    """

    model: str
    version: int
    create_time: datetime
    card: VersionCard
    labels: Mapping[str, str] = field(default_factory=dict)
    weights_digest: str = ""
    weights_bytes: int = 0
    canary: Canary | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedModel:
    """What a finished training hands to the registry."""

    card: VersionCard
    parameters: Parameters
    """By PyTorch's names; a fleet's have the members as a further first dimension [K, …], in the order of keys."""
    members: Members | None = None
    """Fleets: what became of each member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A name for a version.

    Attributes:
        etag: Of its last move.
        update_time: When that was.
    """

    version: int
    etag: str
    update_time: datetime
    canary: Canary | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasMove:
    """An entry of an alias's history.

    Attributes:
        move: 1, 2, 3 … for each alias.
        version: Where it pointed from then on; None: it was deleted.
    """

    move: int
    version: int | None
    canary: Canary | None
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A named series of versions."""

    model: str
    latest_version: int
    create_time: datetime
    update_time: datetime
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
