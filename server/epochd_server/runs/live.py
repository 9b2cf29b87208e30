"""What the server keeps in memory of a run that has not ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from epochd_server.domain.data import TrainingArrays
from epochd_server.domain.fleets import Key
from epochd_server.domain.records import FIRST_CLAIM
from epochd_server.domain.runs import Started
from epochd_server.domain.specs import TrainingSpec
from epochd_server.domain.stopping import RunLimits, Wish
from epochd_server.domain.work import DatasetFile
from epochd_server.runs.log import RunLog


@dataclass(slots=True, kw_only=True, eq=False)
class LiveRun:
    """A run that has not ended.

    Attributes:
        spec: What is trained, as accepted.
        claim: By which this server has it.
        started: What its Started event says; None until it is planned again after a restart.
        begun: Whether Started is in its log.
        last_epoch: The newest epoch in its log; those up to it are not logged again.
        last_epochs: The same for the members of a fleet whose epochs are logged.
        deaths: How many workers died while they trained it.
        interrupted: Why training was interrupted, to be told in its log; "" where it was not.
        resumption: How it goes on after that, to be told likewise.
        damaged_checkpoints: How many newer checkpoints than the one that it goes on with cannot be read.
        saved: Whether there are checkpoints of it.
        training: Whether it is in a cohort.
        limits: At which it is cancelled.
        trained_seconds: How long it was in training before it was interrupted.
        wish: What is to become of it before its last epoch; None: nothing.
        reason: Why, where no client wished it.
        halted: Whether its worker stopped it, and it has not ended by that.
        paused: Whether its log says that it is paused, or is being written to say so.
        newest_time: Of the newest event in its log; no later one bears an earlier time, whatever clocks do.
        ended: Whether its last event is written, or being written, or another server has it.
    """

    run_id: str
    client: str
    model: str
    spec: TrainingSpec
    log: RunLog
    newest_time: datetime
    claim: int = FIRST_CLAIM
    started: Started | None = None
    begun: bool = False
    last_epoch: int = -1
    last_epochs: dict[Key, int] = field(default_factory=dict)
    deaths: int = 0
    interrupted: str = ""
    resumption: str = ""
    damaged_checkpoints: int = 0
    saved: bool = False
    training: bool = False
    limits: RunLimits = field(default_factory=RunLimits)
    trained_seconds: float = 0.0
    wish: Wish | None = None
    reason: str = ""
    halted: bool = False
    paused: bool = False
    ended: bool = False

    @property
    def cancelled(self) -> bool:
        """Whether its cancellation was asked for."""
        return self.wish is not None and self.wish.cancels

    @property
    def needs_no_worker(self) -> bool:
        """Whether it is to be stopped, and all that is to be kept of it is stored."""
        return self.wish in (Wish.CANCEL, Wish.PAUSE) or (self.wish is Wish.KEEP and not self.begun)


class Shelf:
    """The rows of waiting runs, as far as they fit in memory; what does not fit is decoded again in its turn.

    Args:
        nbytes: Bytes of rows that are kept.
    """

    def __init__(self, nbytes: int) -> None:
        self._limit = nbytes
        self._used = 0
        self._kept: dict[str, TrainingArrays | DatasetFile] = {}

    @property
    def used(self) -> int:
        """Bytes of rows that are kept now."""
        return self._used

    def put(self, run_id: str, data: TrainingArrays | DatasetFile) -> None:
        """Keeps a run's rows if there is room. Those of a dataset take hardly any: the worker reads them."""
        nbytes = data_bytes(data)
        if self._used + nbytes <= self._limit:
            self._used += nbytes
            self._kept[run_id] = data

    def take(self, run_id: str) -> TrainingArrays | DatasetFile | None:
        """Takes a run's rows out; None where they were not kept."""
        data = self._kept.pop(run_id, None)
        if data is not None:
            self._used -= data_bytes(data)
        return data


def data_bytes(data: TrainingArrays | DatasetFile) -> int:
    """Bytes that a run's rows take in this process's memory: of a dataset only which rows are whose."""
    return data.nbytes
