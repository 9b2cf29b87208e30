"""What the life of runs needs of the world around it; implemented by ``storage`` and ``executor``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from typing import Protocol

from epochd_server.codec.pages import EventPage
from epochd_server.domain.fleets import Members
from epochd_server.domain.labels import LabelChange, Labels
from epochd_server.domain.models import ModelVersion
from epochd_server.domain.once import AskedOnce, Once
from epochd_server.domain.plans import Plan as Plan
from epochd_server.domain.records import Accepted as Accepted
from epochd_server.domain.records import Append as Append
from epochd_server.domain.records import Asked as Asked
from epochd_server.domain.records import ClaimLostError as ClaimLostError
from epochd_server.domain.records import FoundCheckpoint as FoundCheckpoint
from epochd_server.domain.records import NewRun as NewRun
from epochd_server.domain.records import Notice as Notice
from epochd_server.domain.records import NoticeKind as NoticeKind
from epochd_server.domain.records import Renewal as Renewal
from epochd_server.domain.records import RunWrite as RunWrite
from epochd_server.domain.records import SavedCheckpoint as SavedCheckpoint
from epochd_server.domain.records import StoredRun as StoredRun
from epochd_server.domain.records import Success as Success
from epochd_server.domain.resources import VersionReference
from epochd_server.domain.runs import Event, Parameters, Run, RunState
from epochd_server.domain.stopping import Wish
from epochd_server.domain.work import CohortWork, WorkMessage
from epochd_server.domain.work import WorkerDied as WorkerDied


class RunStore(Protocol):
    """Runs and their logs. Every write is durable when it returns; concurrent writes share a commit.

    A write may be repeated with the same arguments, and then changes nothing: after STORAGE_UNAVAILABLE nobody knows
    whether it was made.
    """

    async def accept(self, new: NewRun, first: Event) -> Accepted:
        """Stores a run with its first event, claimed by this server, or finds the run with the same request_id.

        Raises:
            EpochdError: REQUEST_ID_REUSED where the request was another.
        """

    async def record(self, writes: Sequence[RunWrite]) -> list[Event | Exception | None]:
        """Adds to the logs of runs; each write is made whole or not at all, whatever becomes of the others.

        Also keeps the runs' latest logs, their start times (with RUNNING), their end times and failures. A success
        makes the next version of its run's model, ends the run and logs Succeeded, all at once.

        Returns:
            For each write the event Succeeded, None, or why it was not made: a ClaimLostError where another
            server has claimed the run since.
        """

    async def get(self, run_id: str) -> StoredRun | None:
        """The run, or None."""

    async def request(self, run_id: str) -> bytes | None:
        """The request that a run was accepted with, data included; None where there is no such run."""

    async def find_made(self, asked: AskedOnce) -> str | None:
        """The id of the run that the same request made before, or None.

        Raises:
            EpochdError: REQUEST_ID_REUSED.
        """

    async def events(
        self, run_id: str, after_sequence: int, limit: int, nbytes: int | None = None
    ) -> EventPage:
        """The events after a sequence number, in order.

        Args:
            run_id: The run.
            after_sequence: The number.
            limit: At most so many.
            nbytes: And no more than have so many bytes, but always one if there is one.
        """

    async def page(
        self,
        *,
        limit: int,
        before: str | None,
        states: Sequence[RunState],
        model: str | None,
        labels: Labels | None = None,
    ) -> list[Run]:
        """Runs with ids below ``before`` (ULIDs: older) and these labels, newest first."""

    async def change_labels(self, run_id: str, change: LabelChange, once: Once[Run] | None = None) -> Run:
        """Changes the labels of a run, and returns it.

        Raises:
            EpochdError: RUN_NOT_FOUND, REQUEST_ID_REUSED.
            AnsweredBefore: The request was made before.
        """

    async def delete(self, run_id: str, once: Once[object] | None = None) -> None:
        """Deletes a run and its log.

        Raises:
            EpochdError: RUN_NOT_FOUND, RUN_NOT_TERMINAL, REQUEST_ID_REUSED.
            AnsweredBefore: The request was made before.
        """

    async def note_worker_deaths(self, run_id: str, claim: int, deaths: int) -> None:
        """Notes how many workers have died while they trained a run."""


class Checkpoints(Protocol):
    """Where runs in training are, so that they go on from there; implemented by ``storage``."""

    async def save(self, saved: Sequence[SavedCheckpoint]) -> None:
        """Keeps where runs are, durably, besides what was kept of them last; of lost claims nothing is kept."""

    async def newest(self, run_id: str) -> FoundCheckpoint:
        """Where a run was when it was saved last, as far as that can be read."""

    async def forget_ended(self, run_ids: Sequence[str] | None = None) -> None:
        """Deletes the checkpoints of runs that have ended: those of these, or of all."""


class Claims(Protocol):
    """Which unfinished runs are this server's to train, of those that it shares with other servers.

    A claim is kept by renewing it. The runs of a server that is silent for its lease may be taken by others; nothing
    that it has to say of them can be written from then on.
    """

    @property
    def beat_s(self) -> float | None:
        """So often claims are to be renewed; None: never, as there can be no other server."""

    @property
    def lease_s(self) -> float:
        """After so long a silence others may take the runs of this server."""

    async def join(self) -> None:
        """Begins to live among the servers."""

    async def renew(self, watched: Collection[str], idle_slots: int = 0) -> Renewal:
        """Says that this server lives, and gives what it ought to know.

        Args:
            watched: Runs of other servers that are watched here.
            idle_slots: How many cohorts it could train at once as it has nothing to do; others are told.
        """

    async def asked(self) -> Asked:
        """What others ask of this server."""

    async def take(self, limit: int, too: Collection[str] = ()) -> list[StoredRun]:
        """Claims runs that no living server has, oldest first.

        Args:
            limit: At most so many.
            too: Runs of this server that it claims anew.
        """

    async def held(self) -> Mapping[str, int]:
        """The claims by which this server has runs."""

    async def give(self, run_ids: Sequence[str], server: str | None) -> None:
        """Gives runs of this server to another one, or (None) to whoever takes them first, and tells them."""

    async def wish(self, run_id: str, wish: Wish, once: Once[Run] | None = None) -> Run:
        """Keeps what a client wants of a run, whichever server has it, and tells that server.

        It is kept until the run's log says that it was done, or the run has ended.

        Returns:
            The run as it was then.

        Raises:
            EpochdError: RUN_NOT_FOUND, REQUEST_ID_REUSED.
            AnsweredBefore: The request was made before.
        """

    async def leave(self) -> None:
        """Frees the runs of this server at once, as it stops."""

    def notices(self) -> AsyncGenerator[Notice, None]:
        """What other servers tell, as it happens; some of it may get lost."""


class Versions(Protocol):
    """The registered versions, which runs may continue; implemented by ``storage``."""

    async def get_version(self, reference: VersionReference) -> ModelVersion:
        """The version that is meant.

        Raises:
            EpochdError: MODEL_NOT_FOUND, VERSION_NOT_FOUND.
        """

    async def load_parameters(self, model: str, version: int) -> Parameters:
        """The parameters of a version; a fleet's have its members as first dimension."""

    async def load_members(self, model: str, version: int) -> Members:
        """What became of the members of a fleet."""


class Planner(Protocol):
    """Turns stored requests back into work; implemented by ``planning``."""

    async def replan(self, request: bytes) -> Plan:
        """The plan of a request that was accepted before.

        Raises:
            EpochdError: Where it can no longer be trained: its dataset or its registered module is gone.
        """


class Executor(Protocol):
    """Where cohorts run."""

    @property
    def slots(self) -> int:
        """How many cohorts run at once."""

    async def start(self) -> None:
        """Returns when every worker is up and warm."""

    def run(self, work: CohortWork) -> AsyncGenerator[Sequence[WorkMessage], None]:
        """Trains a cohort; yields messages as they come, and ends when every run of it has ended.

        Closing the iterator before its end abandons the cohort.

        A worker that dies ends the runs it had not finished with WorkerDied raised from the iterator.
        """

    def stop_runs(self, run_ids: Sequence[str]) -> None:
        """Asks that runs stop at their next epoch; each then ends with RunStopped. Unknown ids are ignored."""

    async def close(self) -> None:
        """Ends the workers, at once."""
