"""The events of a run, as they come out of ``run.events()``; those of epochs also out of ``run.logs()``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from numpy.typing import NDArray


class State(StrEnum):
    """The state of a run: QUEUED → RUNNING → SUCCEEDED | FAILED | CANCELLED.

    Example:
        >>> State.RUNNING == "RUNNING", State.RUNNING.ended
        (True, False)
    """

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def ended(self) -> bool:
        """Whether it is final."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Any entry of a run's log."""

    sequence: int
    """Number of the event in its run: 1, 2, 3 … without gaps."""

    time: datetime
    """When it happened, in UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued(Event):
    """The run was accepted; it outlives its client from here on."""

    run: str
    """``runs/{run}``."""

    model: str
    """The model that a version will be added to, ``models/{model}``."""

    def __str__(self) -> str:
        return f"{self.run} queued for {self.model}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Event):
    """Training began; what the request left open is resolved."""

    parameters: int
    """Number of trainable parameters."""

    rows: int
    """Number of rows trained on."""

    features: tuple[str, ...]
    """Feature columns in their order."""

    targets: tuple[str, ...]
    """Target columns."""

    classes: NDArray[Any] | None = field(compare=False)
    """Classes in the order of the outputs, of str or int64; None for regression."""

    device: str
    """Where it runs, such as ``cpu``."""

    seed: int
    """The seed in use."""

    dtype: str
    """The type of parameters and arithmetic."""

    batch_size: int
    """Rows in a batch."""

    epochs: int
    """Epochs asked for."""

    def __str__(self) -> str:
        return (
            f"Started on {self.device}: {self.parameters:,} parameters, {self.rows:,} rows in batches of "
            f"{self.batch_size:,}, {self.epochs:,} epochs, {self.dtype}, seed {self.seed}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochLog(Event):
    """One epoch of training.

    Example:
        >>> from datetime import UTC
        >>> print(EpochLog(sequence=3, time=datetime.now(UTC), epoch=100, epochs=2000, loss=0.25, lr=0.01))
        Epoch  100/1999  loss 0.250000  lr 0.01
    """

    epoch: int
    """The epoch, as in ``for epoch in range(epochs)``."""

    epochs: int
    """Epochs asked for; 0 if not known."""

    loss: float
    """The mean loss before the epoch's update."""

    lr: float
    """The learning rate of the epoch."""

    rows_per_second: float = 0.0
    """Rows trained a second since the log before; 0 if not known."""

    parameters: Mapping[str, NDArray[Any]] = field(default_factory=dict, compare=False)
    """The parameters after the epoch's update, by PyTorch's names; empty unless asked for."""

    @property
    def metrics(self) -> dict[str, float]:
        """All numbers of the log by name, for a logger that takes such a dict."""
        return {"loss": self.loss, "lr": self.lr, "rows_per_second": self.rows_per_second}

    def __str__(self) -> str:
        last = max(self.epochs - 1, self.epoch)
        parts = [f"Epoch {self.epoch:>{len(str(last))}}/{last}", f"loss {self.loss:.6f}", f"lr {self.lr:g}"]
        if not 1e-5 <= abs(self.loss) < 1e6 and self.loss:
            parts[1] = f"loss {self.loss:.6g}"
        parts += [f"{name} {value.item():.3f}" for name, value in self.parameters.items() if value.size == 1]
        if self.rows_per_second:
            parts.append(f"{short_number(self.rows_per_second)} rows/s")
        return "  ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Warning(Event):  # noqa: A001 - in this module's namespace it is the event
    """Something worth knowing; the run goes on."""

    reason: str
    """Machine-readable reason in UPPER_SNAKE."""

    message: str
    """What happened and what to do about it."""

    def __str__(self) -> str:
        return f"Warning: {self.message} [{self.reason}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded(Event):
    """The run ended with a model version; the last event."""

    model_version: str
    """``models/{model}/versions/{version}``."""

    epochs: int
    """Epochs trained."""

    final_loss: float
    """The loss of the last epoch, before its update."""

    training_seconds: float
    """Seconds from the start of training to its end."""

    def __str__(self) -> str:
        return (
            f"Succeeded: {self.model_version} after {self.epochs:,} epochs in {self.training_seconds:.3g} s, "
            f"final loss {self.final_loss:.6g}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(Event):
    """The run ended without a model version; the last event."""

    reason: str
    """Machine-readable reason in UPPER_SNAKE."""

    message: str
    """What happened."""

    hint: str
    """What to try; may be empty."""

    epoch: int | None
    """The epoch in which it happened; None where that means nothing."""

    def __str__(self) -> str:
        return f"Failed: {self.message} [{self.reason}] {self.hint}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled(Event):
    """The run was cancelled; the last event."""

    epochs: int
    """Epochs trained before the end."""

    def __str__(self) -> str:
        return f"Cancelled after {self.epochs:,} epochs"


def short_number(value: float) -> str:
    """A number in four characters or so.

    Example:
        >>> short_number(1_234_567), short_number(512)
        ('1.2M', '512')
    """
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            scaled = value / limit
            return f"{scaled:.1f}{suffix}" if scaled < 100 else f"{scaled:.0f}{suffix}"
    return f"{value:.0f}"
