"""What a run knows of itself, without doing I/O: the part that both kinds of Run share."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from epochd import events
from epochd._core.calling import call, change
from epochd._core.effects import Emit, Program, Stream
from epochd._core.methods import CANCEL_RUN, DELETE_RUN, GET_RUN, GET_VERSION, PAUSE_RUN, RESUME_RUN
from epochd._core.training import Acknowledged, watch
from epochd._wire.events import TERMINAL, decode_event
from epochd.errors import DeadlineExceeded, TrainingCancelled, TrainingFailed
from epochd.events import State
from epochd.policy import Policy
from epochd.v1 import models_pb2, run_pb2, runs_pb2

_REMEMBERED = 10_000
"""So many events of a run are kept here, so that iterating again needs no server; later ones are asked for again."""


class RunRecord:
    """A run's name, the events seen so far, and the programs of its calls. Safe to use from several threads."""

    def __init__(self, name: str, policy: Policy, *, model: str = "", epochs: int = 0) -> None:
        self.name = name
        self.model = model
        self._policy = policy
        self._epochs = epochs
        self._events: list[run_pb2.Event] = []
        self._newest = 0
        self._last: run_pb2.Event | None = None
        self._stream: Stream | None = None
        self._lock = threading.Lock()

    @classmethod
    def of_message(cls, run: run_pb2.Run, policy: Policy) -> RunRecord:
        """The record of a run that the server told of."""
        return cls(run.name, policy, model=run.model, epochs=run.epochs)

    @classmethod
    def of_start(cls, started: Acknowledged, epochs: int, policy: Policy) -> RunRecord:
        """The record of a run that was just accepted; the first to follow it reads on from its stream."""
        record = cls(started.queued.run, policy, model=started.queued.model, epochs=epochs)
        for event in started.events:
            record._observe(event)
        record._stream = started.stream
        return record

    @property
    def known_state(self) -> State | None:
        """The final state, once seen; None before."""
        last = self._last
        return None if last is None else State[(last.WhichOneof("kind") or "").upper()]

    def decode(self, event: run_pb2.Event) -> events.Event | None:
        """The public form of an event; None for a kind that this client does not know."""
        return decode_event(event, self._epochs)

    def follow(self) -> Program[None]:
        """Emits every event from the first on, those already seen without asking for them."""
        seen = 0
        while fresh := self._remembered(seen):
            for event in fresh:
                seen = event.sequence
                yield Emit(event)
        if not self._has_ended_at(seen):
            yield from watch(self.name, seen, self._policy, self._observe, stream=self._take_stream())

    def wait(self, timeout: float | None = None) -> Program[run_pb2.Event]:
        """Waits for the last event and returns it; past events are not asked for again.

        Raises:
            DeadlineExceeded: When the run has not ended within ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._last is None:
            seen = self._newest
            stream = self._take_stream() if deadline is None else None
            following = watch(self.name, seen, self._policy, self._observe, stream=stream, deadline=deadline)
            try:
                yield from following
            except DeadlineExceeded:
                raise DeadlineExceeded(
                    f"{self.name} has not ended within {timeout:g} s; it goes on."
                ) from None
        return self._last

    def result(self, timeout: float | None = None) -> Program[models_pb2.ModelVersion]:
        """Waits for the end and returns the version that was trained.

        Raises:
            TrainingFailed: When the run failed.
            TrainingCancelled: When it was cancelled.
            DeadlineExceeded: When it has not ended within ``timeout`` seconds.
        """
        last = yield from self.wait(timeout)
        match last.WhichOneof("kind"):
            case "failed":
                raise _failure(self.name, last.failed)
            case "cancelled":
                raise _cancellation(self.name, last.cancelled)
        request = models_pb2.GetVersionRequest(name=last.succeeded.model_version)
        return (yield from call(GET_VERSION, request, self._policy)).version

    def state(self) -> Program[State]:
        """The state now; asks the server unless the run is known to have ended."""
        known = self.known_state
        if known is not None:
            return known
        response = yield from call(GET_RUN, runs_pb2.GetRunRequest(name=self.name), self._policy)
        return state_of(response.run)

    def cancel(self, keep_weights: bool = False) -> Program[State]:
        """Asks for the run to end at its next epoch."""
        request = runs_pb2.CancelRunRequest(name=self.name, keep_weights=keep_weights)
        response = yield from change(CANCEL_RUN, request, self._policy)
        return state_of(response.run)

    def pause(self) -> Program[State]:
        """Asks for the run to stop at its next epoch, and to keep its place."""
        response = yield from change(PAUSE_RUN, runs_pb2.PauseRunRequest(name=self.name), self._policy)
        return state_of(response.run)

    def resume(self) -> Program[State]:
        """Lets the run go on."""
        response = yield from change(RESUME_RUN, runs_pb2.ResumeRunRequest(name=self.name), self._policy)
        return state_of(response.run)

    def delete(self) -> Program[None]:
        """Deletes the run and its log."""
        yield from change(DELETE_RUN, runs_pb2.DeleteRunRequest(name=self.name), self._policy)

    def _remembered(self, after: int) -> Sequence[run_pb2.Event]:
        with self._lock:
            return self._events[after : after + 256]

    def _has_ended_at(self, sequence: int) -> bool:
        last = self._last
        return last is not None and last.sequence == sequence

    def _take_stream(self) -> Stream | None:
        """The stream that came with the run, for one follower only."""
        with self._lock:
            stream, self._stream = self._stream, None
            return stream

    def _observe(self, event: run_pb2.Event) -> None:
        with self._lock:
            self._newest = max(self._newest, event.sequence)
            if event.sequence == len(self._events) + 1 and event.sequence <= _REMEMBERED:
                self._events.append(event)
            if event.HasField("started"):
                self._epochs = event.started.epochs
            if event.WhichOneof("kind") in TERMINAL:
                self._last = event


def state_of(run: run_pb2.Run) -> State:
    """The state of a run's message."""
    return State[run_pb2.RunState.Name(run.state).removeprefix("RUN_STATE_")]


def _cancellation(run: str, cancelled: run_pb2.Cancelled) -> TrainingCancelled:
    kept = cancelled.model_version or None
    return TrainingCancelled(run, epochs=cancelled.epochs, reason=cancelled.reason, model_version=kept)


def _failure(run: str, failure: run_pb2.Failure) -> TrainingFailed:
    epoch = failure.epoch if failure.HasField("epoch") else None
    return TrainingFailed(run, failure.message, reason=failure.reason, hint=failure.hint, epoch=epoch)
