"""Requests that were found to be good."""

from __future__ import annotations

from dataclasses import dataclass, field

from epochd_server.domain.data import TrainingArrays
from epochd_server.domain.labels import Labels
from epochd_server.domain.once import AskedOnce
from epochd_server.domain.runs import Started
from epochd_server.domain.specs import TrainingSpec
from epochd_server.domain.stopping import RunLimits
from epochd_server.domain.work import DatasetFile


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """A request that was found to be good, with everything it left open filled in.

    Attributes:
        request: The serialised TrainRequest to be stored: with the seed and the model name filled in.
        asked: What is remembered of it under its request_id, or None where it has none.
        fingerprint: SHA-256 of what the client sent, without its request_id.
        data: The rows, or where the worker finds them.
        started: What the run's Started event will say.
        steps: Updates of the parameters in all.
        memory_bytes: Bytes for data, parameters and optimizer state.
        validation_dataset: Digest of the dataset with the held-out rows, or None.
        labels: Of the run and its version.
        limits: At which the run is cancelled.
    """

    request: bytes
    asked: AskedOnce | None
    model: str | None
    fingerprint: bytes
    spec: TrainingSpec
    data: TrainingArrays | DatasetFile
    dataset: str | None
    started: Started
    steps: int
    memory_bytes: int
    validate_only: bool = False
    validation_dataset: str | None = None
    labels: Labels = field(default_factory=dict)
    limits: RunLimits = field(default_factory=RunLimits)
