"""What calls return, where it is a plain value that does no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

from numpy.typing import NDArray

from epochd.events import Started
from epochd.registry import Canary

Value: TypeAlias = "float | NDArray[Any]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Predictions with what they rest on; see ``Model.predict``."""

    values: NDArray[Any] = field(compare=False)
    """Regression: shape [rows], or [rows, targets] for several targets. Classifiers: labels [rows] of str or int64."""

    probabilities: NDArray[Any] | None = field(default=None, compare=False)
    """If asked for: [rows] (of the second class) for two classes by one logit, else [rows, classes]."""

    logits: NDArray[Any] | None = field(default=None, compare=False)
    """If asked for: shape as of ``probabilities``."""

    classes: NDArray[Any] | None = field(default=None, compare=False)
    """The classes in the order of probabilities; None for regression."""

    model_version: str
    """The version that predicted, ``models/{model}/versions/{version}``; with ``canary_rows``, all other rows."""

    canary_version: str = ""
    """The canary behind the alias, where it predicted some of the rows; else empty."""

    canary_rows: NDArray[Any] | None = field(default=None, compare=False)
    """Positions of the rows that the canary predicted, ascending; None where there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a member of a fleet was not trained."""

    reason: str
    """Machine-readable reason in UPPER_SNAKE, such as ``LOSS_NOT_FINITE``."""

    message: str
    """What happened."""

    hint: str = ""
    """What to try; may be empty."""

    epoch: int | None = None
    """The epoch in which it happened; None where that means nothing."""

    def __str__(self) -> str:
        where = "" if self.epoch is None else f" in epoch {self.epoch:,}"
        return f"{self.message.rstrip('.')}{where} [{self.reason}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivatives:
    """Value and gradients of an expression; see ``Client.differentiate``. Scalars are floats, all else arrays."""

    value: Value
    """The output's value."""

    gradients: dict[str, Value]
    """The gradients after the last backward pass, by variable."""

    intermediates: dict[str, Value]
    """The values of the named intermediate results, in the order of the statements."""

    history: list[dict[str, Value]]
    """The gradients after each backward pass, one entry a repetition."""

    def __str__(self) -> str:
        listed = ", ".join(f"d/d{name} = {value}" for name, value in self.gradients.items())
        return f"{self.value} ({listed})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a training would be; see ``Client.check``."""

    started: Started
    """The start of the run as it would be reported: sizes, columns, classes, device."""

    steps: int
    """Updates of the parameters in all."""

    memory_bytes: int
    """Bytes of memory for data, parameters and optimizer state."""

    def __str__(self) -> str:
        start = self.started
        return (
            f"{start.parameters:,} parameters, {start.rows:,} rows × {len(start.features)} features, "
            f"{self.steps:,} steps on {start.device}, about {self.memory_bytes / 1e6:,.1f} MB"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """An uploaded table; ``client.train`` takes it in place of the data."""

    name: str
    """``datasets/{sha256 of the bytes}``."""

    rows: int
    """Number of rows."""

    columns: dict[str, str]
    """Element type of each column by name; ``text`` for text, ``timestamp`` for timestamps."""

    size_bytes: int
    """Size of the upload."""

    create_time: datetime
    """When it was uploaded, in UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredModel:
    """A named series of versions; see ``Client.models``."""

    name: str
    """``models/{model}``."""

    latest_version: str
    """The newest version, ``models/{model}/versions/{version}``."""

    aliases: Mapping[str, str]
    """The version that each alias points at."""

    etags: Mapping[str, str] = field(default_factory=dict)
    """The etag of each alias, which changes whenever that is moved."""

    canaries: Mapping[str, Canary] = field(default_factory=dict)
    """The canaries of those aliases that have one."""

    labels: Mapping[str, str] = field(default_factory=dict)
    """The labels."""

    create_time: datetime
    """When its first version was made, in UTC."""

    update_time: datetime
    """When its newest version was made, in UTC."""
