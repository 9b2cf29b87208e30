"""What the clients were told: nothing else may be held against the server."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from benchmarks.chaos.recipes import Recipe


@dataclass(slots=True)
class Watch:
    """What one watcher saw of a run, in the order in which it came.

    Attributes:
        after: It asked for the events after this one.
        seen: Sequence numbers and digests of the events.
        raw: Whether it spoke gRPC itself; the digests are then of the messages as they came.
        complete: Whether it saw the end.
    """

    after: int = 0
    seen: list[tuple[int, str]] = field(default_factory=list)
    raw: bool = False
    complete: bool = False


@dataclass(slots=True)
class RunEntry:
    """One acknowledged run.

    Attributes:
        recipe: What was asked for.
        request_id: Under which id.
        name: Of the run.
        model: Of the model that gets a version, without ``models/``.
        watches: By everybody who watched it.
        cancelled: When a cancellation was acknowledged; None where there was none.
        version: The version that it made, ``{model}/versions/{version}``, where its end was seen.
        predictions: Digests of what its version predicted for the recipe's probe.
        deleting: Whether somebody set out to delete it.
        deleted: Whether that was acknowledged.
        version_deleted: Whether somebody set out to delete its version.
    """

    recipe: Recipe
    request_id: str
    name: str
    model: str
    watches: list[Watch] = field(default_factory=list)
    cancelled: datetime | None = None
    version: str = ""
    predictions: list[str] = field(default_factory=list)
    deleting: bool = False
    deleted: bool = False
    version_deleted: bool = False


@dataclass(slots=True)
class Journal:
    """What all clients were told; threads append to its lists."""

    runs: list[RunEntry] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    """Alias as ``MODEL@ALIAS`` → the version that it was last pointed at, ``models/{model}/versions/{version}``."""
    datasets: int = 0
    """Datasets that were uploaded, found again and deleted."""
    complaints: list[str] = field(default_factory=list)
    """Answers that no client should ever get."""
