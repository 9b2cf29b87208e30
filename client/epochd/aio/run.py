"""A run of the server, as seen by an asyncio client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from epochd._core.runs import RunRecord
from epochd._transport.asynchronous import AsyncTransport
from epochd.aio.fleet import version_of
from epochd.aio.model import Model
from epochd.events import EpochLog, Event, FleetProgress, State
from epochd.policy import Policy
from epochd.progress import ProgressBar


class Run:
    """One training; see :class:`epochd.Run`. It belongs to the server: it goes on when this client leaves."""

    def __init__(self, record: RunRecord, transport: AsyncTransport, policy: Policy) -> None:
        self._record = record
        self._transport = transport
        self._policy = policy

    @property
    def name(self) -> str:
        """``runs/{run}``."""
        return self._record.name

    @property
    def model(self) -> str:
        """The model that gets a version, ``models/{model}``."""
        return self._record.model

    @property
    def state(self) -> Awaitable[State]:
        """The state now: ``await run.state``."""
        return self._transport.run(self._record.state())

    async def events(self) -> AsyncIterator[Event]:
        """Every event from the first to the last; see :meth:`epochd.Run.events`."""
        async for message in self._transport.iterate(self._record.follow()):
            event = self._record.decode(message)
            if event is not None:
                yield event

    async def logs(self) -> AsyncIterator[EpochLog | Any]:
        """The epoch logs, or the progress of a fleet, as they come; see :meth:`epochd.Run.logs`."""
        async for event in self.events():
            if isinstance(event, EpochLog | FleetProgress):
                yield event

    async def cancel(self, *, keep_weights: bool = False) -> State:
        """Asks the server to end the run at its next epoch; a run that has ended is left as it is.

        Args:
            keep_weights: Whether a version is made of what the run has reached; with early stopping the best of it.
                ``result`` then raises a TrainingCancelled that names it. Nothing is kept of exact fits.
        """
        return await self._transport.run(self._record.cancel(keep_weights))

    async def pause(self) -> State:
        """Asks the server to stop the run at its next epoch and to keep its place, also over restarts.

        It frees its worker. Resumed, it ends in the same bits as if it had never been paused. One that has ended is
        left as it is.
        """
        return await self._transport.run(self._record.pause())

    async def resume(self) -> State:
        """Lets a paused run go on; one that is not paused is left as it is."""
        return await self._transport.run(self._record.resume())

    async def wait(self, timeout: float | None = None, *, progress: bool = False) -> State:  # noqa: ASYNC109
        """Waits for the end, however it comes out, and returns the final state; see :meth:`epochd.Run.wait`.

        A task that is cancelled while it waits leaves the run to itself, except with ``progress``, where Ctrl-C is
        meant: then the server is asked to cancel the run first.
        """
        if not progress:
            await self._transport.run(self._record.wait(timeout))
            return await self.state
        try:
            with ProgressBar(self.model.removeprefix("models/")) as bar:
                async for event in self.events():
                    bar.show(event)
        except asyncio.CancelledError:
            await asyncio.shield(self.cancel())
            raise
        return await self.state

    async def result(self, timeout: float | None = None) -> Model:  # noqa: ASYNC109 - the name of the blocking twin
        """Waits for the end and returns the model that was trained, or a :class:`Fleet`.

        Raises:
            TrainingFailed: When the run failed, with the reason, a hint and the epoch.
            TrainingCancelled: When it was cancelled.
            DeadlineExceeded: When it has not ended within ``timeout`` seconds; it goes on.
        """
        message = await self._transport.run(self._record.result(timeout))
        return version_of(message, self._transport, self._policy)

    async def delete(self) -> None:
        """Deletes the run, which must have ended, and its log. Model versions stay."""
        await self._transport.run(self._record.delete())

    def __repr__(self) -> str:
        return f"<Run {self.name} → {self.model}>"
