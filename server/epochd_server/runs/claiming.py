"""Keeping this server's claims, taking over the runs of servers that died, and hearing what living ones do.

    beat ─▶ renew ─▶ look (what is asked? was something taken meanwhile? what has nobody?) ─▶ wait, or a notice ─▶ beat

To look costs a pass over the unfinished runs: it is done when there is a reason to, and now and then without. Notices
only make the next beat come sooner, or a mirror look sooner: whatever they tell, a beat finds out too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from contextlib import aclosing, suppress
from typing import Protocol

import structlog

from epochd_server.domain.errors import EpochdError
from epochd_server.domain.stopping import Wish
from epochd_server.runs.live import LiveRun
from epochd_server.runs.mirrors import Mirrors
from epochd_server.runs.ports import Claims, Notice, NoticeKind, StoredRun

_MOST_TAKEN = 500
"""Runs that are claimed at once: other servers, which look at the same time, get a share."""

_BEATS_BETWEEN_LOOKS = 5
_CANCEL_SECONDS = 0.5
_AGAIN_SECONDS = 0.5

_logger = structlog.get_logger(__name__)


class Holder(Protocol):
    """Whoever has the runs of this server."""

    @property
    def room(self) -> int:
        """How many further runs may wait here."""

    def living(self) -> Sequence[LiveRun]:
        """The runs of this server that are in the store, and unfinished as far as it knows."""

    def knows(self, run_ids: Iterable[str]) -> list[LiveRun]:
        """Those of these runs that are this server's."""

    def adopt(self, stored: Sequence[StoredRun]) -> None:
        """Goes on with runs that this server has claimed."""

    def lose(self, run: LiveRun) -> None:
        """Leaves a run to the server that has claimed it."""

    @property
    def idle_slots(self) -> int:
        """How many cohorts it could train at once as nothing waits."""

    def spare(self, slots: int) -> list[LiveRun]:
        """Takes runs out of the queue that an idle server with so many slots would train sooner, youngest first."""

    def give_up(self, run: LiveRun) -> None:
        """Leaves a run that was taken out of the queue to another server."""

    def take_back(self, run: LiveRun) -> None:
        """Lets a run that was taken out of the queue wait again."""

    async def ask(self, run: LiveRun, wish: Wish) -> None:
        """Does what a client of any server wants of a run; what is done already changes nothing."""


class ClaimKeeper:
    """Keeps the claims of one server.

    Args:
        claims: Where they are kept.
        holder: Has the runs.
        mirrors: Logs of other servers' runs.
    """

    def __init__(self, claims: Claims, holder: Holder, mirrors: Mirrors) -> None:
        self._claims = claims
        self._holder = holder
        self._mirrors = mirrors
        self._due = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._loop = asyncio.get_running_loop()
        self._patient_until = 0.0
        self._beats_to_look = 0
        self._unsure = False
        """Whether claims may have been lost, or made, without its knowledge."""

    async def join(self) -> list[StoredRun]:
        """Begins to live among the other servers, and claims every run that nobody has."""
        await self._claims.join()
        found: list[StoredRun] = []
        while taken := await self._claims.take(_MOST_TAKEN):
            found += taken
        if self._claims.beat_s is not None:
            self._tasks = [asyncio.create_task(self._beat_on()), asyncio.create_task(self._listen())]
        return found

    async def free(self, runs: Sequence[LiveRun]) -> None:
        """Leaves runs that do not wait here any more to whoever takes them first, as far as the store answers."""
        if self._claims.beat_s is None or not runs:
            return
        try:
            await self._claims.give([run.run_id for run in runs], None)
        except EpochdError as error:
            _logger.warning("waiting runs are left until this server has stopped", problem=error.message)

    async def leave(self) -> None:
        """Frees what is left of this server's runs for others, as far as the store answers."""
        try:
            await self._claims.leave()
        except EpochdError as error:
            _logger.warning("claims are left to end by themselves", problem=error.message)

    async def close(self) -> None:
        """Ends the beats. Claims stay as they are."""
        pending = set(self._tasks)
        while (
            pending
        ):  # before Python 3.12 wait_for swallows a cancellation that comes with what it waits for
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=_CANCEL_SECONDS)

    async def _beat_on(self) -> None:
        while True:
            self._due.clear()
            try:
                await self._beat()
            except EpochdError as error:
                self._unsure = True
                _logger.warning("claims could not be renewed; will try again", problem=error.message)
            except Exception:
                self._unsure = True
                _logger.exception("claims could not be renewed")
            with suppress(TimeoutError):
                async with asyncio.timeout(self._claims.beat_s):
                    await self._due.wait()

    async def _beat(self) -> None:
        watched = self._mirrors.watched
        renewal = await self._claims.renew(watched, self._holder.idle_slots)
        self._mirrors.compare(watched, renewal.newest)
        if renewal.late:
            self._unsure = True
            # If the store was away, all were: the others get a lease's time to say that they live.
            self._patient_until = self._loop.time() + self._claims.lease_s
        self._beats_to_look -= 1
        if self._unsure or renewal.missed or self._beats_to_look <= 0:
            self._beats_to_look = _BEATS_BETWEEN_LOOKS
            await self._look()

    async def _look(self) -> None:
        asked = await self._claims.asked()
        wanted = self._holder.knows(asked.wishes)
        await asyncio.gather(*(self._holder.ask(run, asked.wishes[run.run_id]) for run in wanted))
        forgotten = self._unknown((*asked.given, *asked.wishes))
        if self._unsure:
            forgotten += await self._reconcile()
        if self._loop.time() >= self._patient_until:
            await self._take(forgotten)
            self._unsure = False

    async def _reconcile(self) -> list[str]:
        """Leaves runs that others have taken, who thought that this server had died.

        Returns:
            Runs that are this server's and that it does not know of: it never heard that it got them.
        """
        had = [(run, run.claim) for run in self._holder.living()]
        held = await self._claims.held()
        lost = [run for run, claim in had if not run.ended and held.get(run.run_id) != claim]
        for run in lost:
            self._holder.lose(run)
        return self._unknown(held)

    def _unknown(self, run_ids: Collection[str]) -> list[str]:
        """Those of these runs, which are this server's, that it does not know of."""
        known = {run.run_id for run in self._holder.knows(run_ids)}
        return [run_id for run_id in run_ids if run_id not in known]

    async def _take(self, forgotten: Collection[str]) -> None:
        """Claims runs of servers that died, and those that this server has without knowing it."""
        room = min(_MOST_TAKEN, self._holder.room)
        taken = await self._claims.take(room, forgotten) if room > 0 else ()
        if len(taken) == _MOST_TAKEN:
            self._beats_to_look = 0  # there may be more
        if taken:
            _logger.info("going on with runs that no server had", runs=len(taken))
            self._holder.adopt(taken)

    async def _listen(self) -> None:
        while True:
            try:
                async with aclosing(self._claims.notices()) as notices:
                    async for notice in notices:
                        await self._heed(notice)
            except Exception:
                _logger.exception("a notice of another server could not be heeded")
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _share(self, server: str, slots: str) -> None:
        """Gives an idle server some of the runs that wait here."""
        spared = self._holder.spare(int(slots))
        if not spared:
            return
        try:
            await self._claims.give([run.run_id for run in spared], server)
        except EpochdError as error:  # if they were given all the same, nothing can be written of them here
            _logger.warning("runs could not be given to an idle server", problem=error.message)
            for run in reversed(spared):
                self._holder.take_back(run)
            return
        _logger.info("gave runs to an idle server", runs=len(spared))
        for run in spared:
            self._holder.give_up(run)

    async def _heed(self, notice: Notice) -> None:
        if notice.kind is NoticeKind.LOGGED:
            self._mirrors.wake(notice.names)
        elif notice.kind is NoticeKind.IDLE:
            await self._share(*notice.names)
        elif notice.kind is NoticeKind.FREED or self._holder.knows(notice.names):
            self._beats_to_look = 0
            self._due.set()
