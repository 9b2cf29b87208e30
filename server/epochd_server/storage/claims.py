"""Which server trains which run: implements ``runs.ports.Claims``.

A server lives as long as its row in ``servers`` is renewed. Whoever finds one that was not renewed for its lease
deletes it, and from then on its runs are anybody's: claiming one counts its claim up, so that nothing the old owner
still has to say of it can be written. Ages are differences of the database's own clock. An age of more than a lease
*into the future* counts too: that clock went back, and those who live renew at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
    update,
)

from epochd_server.domain.once import Once
from epochd_server.domain.records import Asked, Notice, NoticeKind, Renewal, StoredRun
from epochd_server.domain.runs import Run, RunState
from epochd_server.domain.stopping import Wish
from epochd_server.storage import run_rows
from epochd_server.storage.answers import Answers
from epochd_server.storage.changes import ModelChanges
from epochd_server.storage.database import Database
from epochd_server.storage.presence import Presence
from epochd_server.storage.run_writes import no_run
from epochd_server.storage.schema import runs, servers
from epochd_server.storage.statements import insert_into, is_postgresql

_BEATS_IN_A_LEASE = 5
_LONGEST_BEAT_SECONDS = 1.0
_IS_UNFINISHED = runs.c.state.in_([state.value for state in RunState if not state.is_terminal])
_FINAL = [wish.value for wish in Wish if wish.cancels]
_POSTGRES_MICROS = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"
_SQLITE_MICROS = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"


class SqlClaims:
    """Claims on the runs of a database.

    Args:
        database: Holds runs and servers.
        changes: Told of models that other servers changed.
        answers: Remembers what requests were answered.
        lease_s: So many seconds this server may be silent.
        presence: Knows servers that are certain to have ended, whose leases nobody need wait for.
    """

    def __init__(
        self,
        database: Database,
        changes: ModelChanges,
        answers: Answers,
        *,
        lease_s: float = 15.0,
        presence: Presence | None = None,
    ) -> None:
        self._database = database
        self._changes = changes
        self._answers = answers
        self._lease_s = lease_s
        self._presence = presence

    @property
    def beat_s(self) -> float | None:
        """So often claims are to be renewed; None: never, as no other server shares the database."""
        return min(_LONGEST_BEAT_SECONDS, self._lease_s / _BEATS_IN_A_LEASE) if self._is_shared else None

    @property
    def lease_s(self) -> float:
        """After so long a silence others may take the runs of this server."""
        return self._lease_s

    async def join(self) -> None:
        """Begins to live; what an earlier life under this name had is free."""
        me, lease = self._database.server, round(self._lease_s * 1e6)
        disown = update(runs).where(runs.c.owner == me, _IS_UNFINISHED).values(owner=None)

        def operation(connection: Connection) -> None:
            _renew(connection, me, lease)
            connection.execute(disown)

        await self._database.write(operation)

    async def renew(self, watched: Collection[str], idle_slots: int = 0) -> Renewal:
        """Says that this server lives, and to others whether it is idle; gives what it ought to know."""
        me, lease = self._database.server, round(self._lease_s * 1e6)
        gone = await self._gone()
        asked = select(runs.c.run_id, runs.c.latest_sequence).where(runs.c.run_id.in_(list(watched)))

        def operation(connection: Connection) -> tuple[Renewal, bool]:
            late = _renew(connection, me, lease)
            missed = bool(connection.scalar(select(exists().where(_dead(connection, me, gone)))))
            newest = {row.run_id: row.latest_sequence for row in connection.execute(asked)} if watched else {}
            others = bool(connection.scalar(select(exists().where(servers.c.server_id != me))))
            if idle_slots and others:
                self._database.notices.tell(connection, NoticeKind.IDLE, [me, str(idle_slots)])
            return Renewal(late=late, missed=missed, newest=newest), others

        renewal, self._database.notices.has_listeners = await self._database.write(operation)
        return renewal

    async def asked(self) -> Asked:
        """What others ask of this server."""
        wished = select(runs.c.run_id, runs.c.wish).where(
            runs.c.owner == self._database.server, runs.c.wish.is_not(None), _IS_UNFINISHED
        )
        rows = await self._database.read(lambda connection: connection.execute(wished).all())
        return Asked(
            wishes={row.run_id: Wish(row.wish) for row in rows if row.wish != run_rows.ADOPT},
            given=[row.run_id for row in rows if row.wish == run_rows.ADOPT],
        )

    async def take(self, limit: int, too: Collection[str] = ()) -> list[StoredRun]:
        """Claims runs that no living server has, oldest first.

        Args:
            limit: At most so many.
            too: Runs of this server that it claims anew.
        """
        me = self._database.server
        gone = await self._gone()

        def operation(connection: Connection) -> list[StoredRun]:
            dead = _dead(connection, me, gone) if self._is_shared else servers.c.server_id != me
            connection.execute(delete(servers).where(dead))
            ids = _free_runs(connection, limit, (runs.c.owner == me) & runs.c.run_id.in_(list(too)))
            if not ids:
                return []
            changed = {
                "owner": me,
                "claim": runs.c.claim + 1,
                "wish": func.nullif(runs.c.wish, run_rows.ADOPT),
            }
            connection.execute(update(runs).where(runs.c.run_id.in_(ids)).values(changed))
            claimed = select(*run_rows.RUN_COLUMNS).where(runs.c.run_id.in_(ids)).order_by(runs.c.run_id)
            return [run_rows.to_stored(row, me) for row in connection.execute(claimed)]

        taken = await self._database.write(operation)
        if self._presence and gone:
            await asyncio.to_thread(self._presence.forget, gone)
        return taken

    async def held(self) -> Mapping[str, int]:
        """The claims by which this server has runs."""
        held = select(runs.c.run_id, runs.c.claim).where(
            runs.c.owner == self._database.server, _IS_UNFINISHED
        )
        rows = await self._database.read(lambda connection: connection.execute(held).all())
        return {row.run_id: row.claim for row in rows}

    async def give(self, run_ids: Sequence[str], server: str | None) -> None:
        """Gives runs of this server to another one, or (None) to whoever takes them first, and tells them."""
        mine = update(runs).where(
            runs.c.run_id.in_(run_ids), runs.c.owner == self._database.server, _IS_UNFINISHED
        )
        wish = runs.c.wish if server is None else func.coalesce(runs.c.wish, run_rows.ADOPT)
        given = mine.values(owner=server, claim=runs.c.claim + 1, wish=wish)

        def operation(connection: Connection) -> None:
            connection.execute(given)
            self._database.notices.tell(connection, NoticeKind.FREED, [])

        await self._database.write(operation)

    async def wish(self, run_id: str, wish: Wish, once: Once[Run] | None = None) -> Run:
        """Keeps what a client wants of a run, and tells its owner; of one that has ended nothing is kept.

        That it be cancelled is never taken back.

        Returns:
            The run as it was then.

        Raises:
            EpochdError: RUN_NOT_FOUND, REQUEST_ID_REUSED.
            AnsweredBefore: The request was made before.
        """
        of_run = runs.c.run_id == run_id
        one = select(*run_rows.RUN_COLUMNS).where(of_run).with_for_update()

        def operation(connection: Connection) -> Run:
            row = connection.execute(one).one_or_none()
            if row is None:
                raise no_run(run_id)
            run = run_rows.to_run(row)
            if not run.state.is_terminal and (wish.cancels or row.wish not in _FINAL):
                connection.execute(update(runs).where(of_run).values(wish=wish.value))
                self._database.notices.tell(connection, NoticeKind.WISHED, [run_id])
            return run

        return await self._answers.write(operation, once)

    async def leave(self) -> None:
        """Frees the runs of this server at once, as it stops."""

        def operation(connection: Connection) -> None:
            connection.execute(delete(servers).where(servers.c.server_id == self._database.server))
            self._database.notices.tell(connection, NoticeKind.FREED, [])

        await self._database.write(operation)

    async def notices(self) -> AsyncGenerator[Notice, None]:
        """What other servers tell of runs, as it happens; some of it may get lost."""
        async with aclosing(self._database.notices.listen()) as heard:
            async for notice in heard:
                if notice.kind is not NoticeKind.CHANGED:
                    yield notice
                    continue
                for model in notice.names:
                    self._changes.notify(model)

    async def _gone(self) -> list[str]:
        return await asyncio.to_thread(self._presence.gone) if self._presence else []

    @property
    def _is_shared(self) -> bool:
        return self._database.is_shared


def _now(connection: Connection) -> ColumnElement[int]:
    """Microseconds by the database's clock, when it is read."""
    return literal_column(_POSTGRES_MICROS if is_postgresql(connection) else _SQLITE_MICROS, BigInteger)


def _renew(connection: Connection, me: str, lease: int) -> bool:
    """Renews a server's row; whether it was too late, or is new."""
    now = _now(connection)
    age = func.abs(now - servers.c.renewed)
    fresh = select(age < servers.c.lease).where(servers.c.server_id == me).with_for_update()
    was_in_time = bool(connection.scalar(fresh))
    row: dict[str, Any] = {"renewed": now, "lease": lease}
    insert = insert_into(connection, servers).values(server_id=me, **row)
    connection.execute(insert.on_conflict_do_update(index_elements=[servers.c.server_id], set_=row))
    return not was_in_time


def _dead(connection: Connection, me: str, gone: Sequence[str]) -> ColumnElement[bool]:
    """Condition: another server is silent, or among those that are gone."""
    silent = func.abs(_now(connection) - servers.c.renewed) >= servers.c.lease
    return (servers.c.server_id != me) & or_(silent, servers.c.server_id.in_(gone))


def _free_runs(connection: Connection, limit: int, too: ColumnElement[bool]) -> Sequence[str]:
    """Unfinished runs whose owner does not live, or of which ``too`` holds; others are kept from them."""
    free = or_(runs.c.owner.is_(None), runs.c.owner.not_in(select(servers.c.server_id)), too)
    one = select(runs.c.run_id).where(_IS_UNFINISHED, free)
    page = one.order_by(runs.c.run_id).limit(limit).with_for_update(of=runs, skip_locked=True)
    return connection.execute(page).scalars().all()
