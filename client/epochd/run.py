"""A run of the server, as seen by a blocking client."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from epochd._core.runs import RunRecord
from epochd._transport.background import Background
from epochd._transport.blocking import BlockingTransport
from epochd.events import EpochLog, Event, FleetProgress, State
from epochd.fleet import version_of
from epochd.model import Model
from epochd.policy import Policy
from epochd.progress import ProgressBar


class Run:
    """One training. It belongs to the server: it goes on when this client leaves.

    Made by ``client.train`` and ``client.run``.

    Example:
        >>> def follow(run: Run) -> Model:
        ...     for log in run.logs():
        ...         print(log)
        ...     return run.result()
    """

    def __init__(self, record: RunRecord, transport: BlockingTransport, policy: Policy) -> None:
        self._record = record
        self._transport = transport
        self._policy = policy

    @property
    def name(self) -> str:
        """``runs/{run}``; give it to ``client.run`` to find the run again, from anywhere."""
        return self._record.name

    @property
    def model(self) -> str:
        """The model that gets a version, ``models/{model}``."""
        return self._record.model

    @property
    def state(self) -> State:
        """The state now. Asks the server unless the end is known."""
        return self._transport.run(self._record.state())

    def events(self) -> Iterator[Event]:
        """Every event from the first to the last, waiting for those to come.

        A broken connection or a restart of the server is bridged: no event is left out or comes twice. Iterating
        again begins anew.

        Raises:
            Unavailable: When the server has not answered for ``Retry.patience`` seconds.
        """
        for message in self._transport.iterate(self._record.follow()):
            event = self._record.decode(message)
            if event is not None:
                yield event

    def logs(self) -> Iterator[EpochLog | Any]:
        """The epoch logs among the events, as they come.

        A fleet has :class:`FleetProgress` instead, and a :class:`MemberLog` for each epoch of the members that
        ``log_members`` named.
        """
        return (event for event in self.events() if isinstance(event, EpochLog | FleetProgress))

    def cancel(self, *, keep_weights: bool = False) -> State:
        """Asks the server to end the run at its next epoch; a run that has ended is left as it is.

        Args:
            keep_weights: Whether a version is made of what the run has reached; with early stopping the best of it.
                ``result`` then raises a TrainingCancelled that names it. Nothing is kept of exact fits.
        """
        return self._transport.run(self._record.cancel(keep_weights))

    def pause(self) -> State:
        """Asks the server to stop the run at its next epoch and to keep its place, also over restarts.

        It frees its worker. Resumed, it ends in the same bits as if it had never been paused. One that has ended is
        left as it is.
        """
        return self._transport.run(self._record.pause())

    def resume(self) -> State:
        """Lets a paused run go on; one that is not paused is left as it is."""
        return self._transport.run(self._record.resume())

    def wait(self, timeout: float | None = None, *, progress: bool = False) -> State:
        """Waits for the end, however it comes out, and returns the final state.

        Ctrl-C asks the server to cancel the run and goes on waiting; a second one leaves at once.

        Args:
            timeout: Seconds to wait at most; None: as long as it takes. Not together with ``progress``.
            progress: Whether to show a live bar meanwhile.

        Raises:
            DeadlineExceeded: When the run has not ended by then; it goes on.
        """
        if self._record.known_state is None or progress:
            waiting = Background(lambda: self._wait(timeout, progress))
            try:
                waiting.result()
            except KeyboardInterrupt:
                print(f"\nCancelling {self.name}; Ctrl-C again leaves it to itself.", file=sys.stderr)
                Background(self.cancel).result()
                waiting.result()
        return self.state

    def result(self, timeout: float | None = None) -> Model:
        """Waits for the end and returns the model that was trained, or a :class:`Fleet`. For Ctrl-C see :meth:`wait`.

        Args:
            timeout: Seconds to wait at most; None: as long as it takes.

        Raises:
            TrainingFailed: When the run failed, with the reason, a hint and the epoch.
            TrainingCancelled: When it was cancelled.
            DeadlineExceeded: When it has not ended by then; it goes on.
        """
        self.wait(timeout)
        return version_of(self._transport.run(self._record.result()), self._transport, self._policy)

    def delete(self) -> None:
        """Deletes the run, which must have ended, and its log. Model versions stay."""
        self._transport.run(self._record.delete())

    def _wait(self, timeout: float | None, progress: bool) -> None:
        if not progress:
            self._transport.run(self._record.wait(timeout))
            return
        with ProgressBar(self.model.removeprefix("models/")) as bar:
            for event in self.events():
                bar.show(event)

    def __repr__(self) -> str:
        return f"<Run {self.name} → {self.model}>"
