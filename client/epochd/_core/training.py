"""Starting runs and following them: across broken connections and restarts of the server, without gap or repeat."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from epochd._core.calling import may_pass, retrying
from epochd._core.effects import Emit, Program, Sleep, Stream, open_stream, receive
from epochd._core.methods import TRAIN, WATCH_RUN
from epochd._core.plans import TrainingPlan
from epochd._core.uploading import upload
from epochd._wire.events import TERMINAL
from epochd.errors import Cancelled, EpochdError, Internal, Unavailable
from epochd.policy import Policy
from epochd.v1 import run_pb2, runs_pb2, trainer_pb2

_END_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A run that the server has stored, with the events that came with the news and the stream of the rest."""

    events: Sequence[run_pb2.Event]
    stream: Stream

    @property
    def queued(self) -> run_pb2.Queued:
        """The first event of every run: it names the run."""
        return self.events[0].queued


def start(plan: TrainingPlan, policy: Policy) -> Program[Acknowledged]:
    """Uploads what has to be, asks for the run and returns as soon as it is stored."""
    stream, response = yield from _ask(plan, policy)
    if response.events and response.events[0].HasField("queued"):
        return Acknowledged(list(response.events), stream)
    stream.cancel()
    raise Internal("The server's answer does not begin with the run's first event.", reason="BAD_RESPONSE")


def check(plan: TrainingPlan, policy: Policy) -> Program[trainer_pb2.TrainEstimate]:
    """Has a training checked; nothing is trained."""
    plan.request.validate_only = True
    stream, response = yield from _ask(plan, policy)
    stream.cancel()
    return response.estimate


def _ask(plan: TrainingPlan, policy: Policy) -> Program[tuple[Stream, trainer_pb2.TrainResponse]]:
    if plan.upload is not None:
        dataset = yield from upload(plan.upload, policy)
        plan.request.data.dataset = dataset.name
    if plan.validation_upload is not None:
        dataset = yield from upload(plan.validation_upload, policy)
        plan.request.validation.dataset = dataset.name

    def attempt(left: float) -> Program[tuple[Stream, trainer_pb2.TrainResponse]]:
        stream = yield from open_stream(TRAIN, plan.request, None)
        try:
            response = yield from receive(TRAIN, stream, left)
        except BaseException:
            stream.cancel()
            raise
        if response is None:
            raise Internal("The server ended the stream without an answer.", reason="BAD_RESPONSE")
        return stream, response

    # Every request has a request_id, so a repeated one attaches to the run of the first.
    return (yield from retrying(attempt, policy, policy.timeout.call))


class _Contact:
    """How long ago the server was heard of, and whether to look for it again."""

    def __init__(self, policy: Policy) -> None:
        self._retry = policy.retry
        self._failures = 0
        self._since = time.monotonic()

    def made(self) -> None:
        self._failures = 0
        self._since = time.monotonic()

    def lost(self, error: EpochdError) -> float:
        """Seconds to wait before the next try; raises the error when there should be none."""
        self._failures += 1
        out_of_patience = time.monotonic() - self._since > self._retry.patience
        # A server that stops may end its streams as cancelled; nobody here has cancelled this one.
        if out_of_patience or not (may_pass(error) or isinstance(error, Cancelled)):
            raise error
        return self._retry.delay(self._failures, error.retry_after)


def watch(
    run: str,
    after: int,
    policy: Policy,
    record: Callable[[run_pb2.Event], None],
    *,
    stream: Stream | None = None,
    deadline: float | None = None,
) -> Program[None]:
    """Emits a run's events after a sequence number, each once and in order, to its last one.

    Args:
        run: ``runs/{run}``.
        after: Sequence number of the last event that is known.
        policy: When to look again for a server that is away.
        record: Called with each event before it is emitted.
        stream: An open stream of this run's events to begin with, of WatchRun or Train.
        deadline: Time of ``time.monotonic()`` at which to give up.
    """
    contact = _Contact(policy)
    while True:
        try:
            if stream is None:
                left = None if deadline is None else max(0.001, deadline - time.monotonic())
                request = runs_pb2.WatchRunRequest(run=run, after_sequence=after)
                stream = yield from open_stream(WATCH_RUN, request, left)
            while (response := (yield from receive(WATCH_RUN, stream))) is not None:
                contact.made()
                for event in _following(response.events, after):
                    after = event.sequence
                    record(event)
                    yield Emit(event)
                    if event.WhichOneof("kind") in TERMINAL:
                        yield from _let_end(stream)
                        return
            delay = contact.lost(Unavailable("The server ended the watch before the run's end."))
        except EpochdError as error:
            delay = contact.lost(error)
        finally:
            if stream is not None:
                stream.cancel()
                stream = None
        yield Sleep(delay)


def _let_end(stream: Stream) -> Program[None]:
    """Takes the end of a stream after its last event, so that the server does not see it cancelled."""
    with contextlib.suppress(EpochdError):
        yield from receive(WATCH_RUN, stream, _END_SECONDS)


def _following(events: Sequence[run_pb2.Event], after: int) -> Sequence[run_pb2.Event]:
    """The events after a sequence number. A gap is an error, which another watch from there on mends."""
    fresh = [event for event in events if event.sequence > after]
    expected = range(after + 1, after + 1 + len(fresh))
    if [event.sequence for event in fresh] != list(expected):
        raise Unavailable("The server left out an event.", reason="BAD_RESPONSE")
    return fresh
