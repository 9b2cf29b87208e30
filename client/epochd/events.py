"""The events of a run, as they come out of ``run.events()``; those of epochs and fleets also out of ``run.logs()``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from numpy.typing import NDArray

from epochd._words import counted
from epochd.keys import Key, key_text
from epochd.preprocessing import FittedColumn
from epochd.validation import Evaluation


class State(StrEnum):
    """The state of a run: QUEUED → RUNNING → SUCCEEDED | FAILED | CANCELLED, and PAUSED → QUEUED between.

    Example:
        >>> State.RUNNING == "RUNNING", State.RUNNING.ended
        (True, False)
    """

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    PAUSED = "PAUSED"

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
    """What the model reads, in its order: feature columns, or what ``preprocess`` makes of them."""

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

    members: int = 0
    """Fleets: the number of members; 0 for a single model. ``parameters`` is then the number of one member."""

    key_columns: tuple[str, ...] = ()
    """Fleets: the key columns in their order."""

    fit: str = "gradient"
    """How it is fitted: ``gradient``, ``least_squares``, ``newton`` or ``lbfgs``, `` (auto)`` where so chosen."""

    preprocess: tuple[FittedColumn, ...] = ()
    """What becomes of each feature column; empty where they are used as they are."""

    def __str__(self) -> str:
        if self.fit != "gradient":
            return self._exact_text()
        each = f"{self.members:,} members by {', '.join(self.key_columns)}, each " if self.members else ""
        return (
            f"Started on {self.device}: {each}{self.parameters:,} parameters, {self.rows:,} rows in batches of "
            f"{self.batch_size:,}, {self.epochs:,} epochs, {self.dtype}, seed {self.seed}"
        )

    def _exact_text(self) -> str:
        each = f"{self.members:,} members by {', '.join(self.key_columns)}, each " if self.members else ""
        kind = self.fit.replace("_", " ")
        size = f"{each}{self.parameters:,} parameters, {self.rows:,} rows"
        return f"Started on {self.device}: {kind}, {size}, {self.dtype}"


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

    validation_loss: float | None = None
    """The loss on the held-out rows after the epoch's update; None where there are none."""

    measured: Mapping[str, float] = field(default_factory=dict)
    """The metrics that were asked for, on the held-out rows after the epoch's update."""

    @property
    def metrics(self) -> dict[str, float]:
        """All numbers of the log by name, for a logger that takes such a dict."""
        numbers = {"loss": self.loss, "lr": self.lr, "rows_per_second": self.rows_per_second}
        if self.validation_loss is not None:
            numbers["validation_loss"] = self.validation_loss
        return numbers | dict(self.measured)

    def __str__(self) -> str:
        last = max(self.epochs - 1, self.epoch)
        parts = [f"Epoch {self.epoch:>{len(str(last))}}/{last}", f"loss {self.loss:.6f}", f"lr {self.lr:g}"]
        if not 1e-5 <= abs(self.loss) < 1e6 and self.loss:
            parts[1] = f"loss {self.loss:.6g}"
        if self.validation_loss is not None:
            parts.insert(2, f"validation {self.validation_loss:.6g}")
        parts += [f"{name} {value:.4g}" for name, value in self.measured.items()]
        parts += [f"{name} {value.item():.3f}" for name, value in self.parameters.items() if value.size == 1]
        if self.rows_per_second:
            parts.append(f"{short_number(self.rows_per_second)} rows/s")
        return "  ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberLog(EpochLog):
    """One epoch of a member of a fleet whose logs were asked for."""

    key: Key
    """The member's key."""

    def __str__(self) -> str:
        return f"{key_text(self.key)}  {EpochLog.__str__(self)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LossQuantiles:
    """Quantiles over members."""

    min: float
    """The smallest."""

    p25: float
    """The lower quartile."""

    p50: float
    """The median."""

    p75: float
    """The upper quartile."""

    max: float
    """The largest."""

    def __str__(self) -> str:
        return f"p50 {self.p50:.4g} (p25 {self.p25:.4g} … p75 {self.p75:.4g})"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetProgress(Event):
    """Where a fleet's training is; comes about twice a second, and at the end.

    Example:
        >>> from datetime import UTC
        >>> losses = LossQuantiles(min=0.01, p25=0.1, p50=0.125, p75=0.2, max=4.5)
        >>> print(FleetProgress(sequence=3, time=datetime.now(UTC), members_done=3200, members_failed=2,
        ...                     members_total=10_000, loss=losses, worst=(("store-17", 4.5),), eta_seconds=3.1))
        3,200/10,000 members, 2 failed, loss p50 0.125 (p25 0.1 … p75 0.2), worst store-17 4.5, eta 3 s
    """

    members_done: int
    """Members that have ended, failed ones included."""

    members_failed: int
    """Members that have failed."""

    members_total: int
    """Members in all."""

    loss: LossQuantiles | None = None
    """Over the final losses of the members that ended well; None before the first."""

    worst: tuple[tuple[Key, float], ...] = ()
    """The members with the largest final losses so far, at most 5, each a key and its loss, largest first."""

    eta_seconds: float = 0.0
    """Estimated seconds until the end; 0 when it is reached, or not known."""

    elapsed_seconds: float = 0.0
    """Seconds since training began."""

    validation_loss: LossQuantiles | None = None
    """Over the losses on held-out rows of the members that ended well; None before the first, or without any."""

    @property
    def metrics(self) -> dict[str, float]:
        """All numbers of the progress by name, for a logger that takes such a dict."""
        counts = {
            "members_done": float(self.members_done),
            "members_failed": float(self.members_failed),
            "elapsed_seconds": self.elapsed_seconds,
        }
        if self.loss is None:
            return counts
        for kind, losses in (("loss", self.loss), ("validation_loss", self.validation_loss)):
            if losses is not None:
                counts |= {f"{kind}_{name}": getattr(losses, name) for name in _QUANTILES}
        return counts

    def __str__(self) -> str:
        parts = [f"{self.members_done:,}/{self.members_total:,} members"]
        if self.members_failed:
            parts.append(f"{self.members_failed:,} failed")
        if self.loss is not None:
            parts.append(f"loss {self.loss}")
        if self.validation_loss is not None:
            parts.append(f"validation {self.validation_loss}")
        if self.worst:
            key, loss = self.worst[0]
            parts.append(f"worst {key_text(key)} {loss:.4g}")
        if self.members_done < self.members_total and self.eta_seconds:
            parts.append(f"eta {_seconds(self.eta_seconds)}")
        elif self.elapsed_seconds:
            parts.append(_seconds(self.elapsed_seconds))
        return ", ".join(parts)


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

    members: int = 0
    """Fleets: the number of members; 0 for a single model. ``final_loss`` is then the median of the trained ones."""

    failed_members: int = 0
    """Fleets: how many members failed; ``fleet.members(state="FAILED")`` says why."""

    evaluation: Evaluation | None = None
    """On the held-out rows; None where there are none."""

    def __str__(self) -> str:
        failed = f", {self.failed_members:,} of them failed" if self.failed_members else ""
        fleet = f" with {self.members:,} members{failed}," if self.members else ""
        return (
            f"Succeeded: {self.model_version}{fleet} after {counted(self.epochs, 'epoch')} "
            f"in {self.training_seconds:.3g} s, "
            f"{'median' if self.members else 'final'} loss {self.final_loss:.6g}"
            + ("" if self.evaluation is None else f"; validation: {self.evaluation}")
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

    reason: str = ""
    """Why, where no client asked for it: ``DEADLINE_REACHED`` or ``TRAINING_TIME_SPENT``."""

    model_version: str | None = None
    """The version that keeps what the run had reached; None where nothing was kept."""

    def __str__(self) -> str:
        reason = f" [{self.reason}]" if self.reason else ""
        kept = "" if self.model_version is None else f"; {self.model_version} keeps what it had reached"
        return f"Cancelled after {counted(self.epochs, 'epoch')}{reason}{kept}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused(Event):
    """The run was paused; it goes on from there when it is resumed."""

    epochs: int
    """Epochs trained so far."""

    def __str__(self) -> str:
        return f"Paused after {counted(self.epochs, 'epoch')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(Event):
    """The run waits for a worker again."""

    def __str__(self) -> str:
        return "Resumed"


_QUANTILES = ("min", "p25", "p50", "p75", "max")


def _seconds(value: float) -> str:
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.0f} s" if value < 100 else f"{value / 60:.0f} min"


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
