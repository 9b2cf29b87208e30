"""What requests with a request_id were answered: written with what they changed, found when they come again.

An id is remembered for a while, by a clock that goes on evenly: setting the system's clock makes a running server
neither forget an id early nor keep it for longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, delete, select, update

from epochd_server.codec.asked import reused
from epochd_server.domain.once import AnsweredBefore, AskedOnce, Once
from epochd_server.storage.bulk import insert_new_rows
from epochd_server.storage.database import Database
from epochd_server.storage.schema import answers
from epochd_server.storage.statements import AnyRow
from epochd_server.storage.writer import Operation

T = TypeVar("T")

_MICROSECONDS = 1_000_000
_AHEAD = 300 * _MICROSECONDS
"""How far the clocks of servers on one database may be apart."""
_FORGOTTEN_AT_LEAST = 100
"""So many ids, at most, are forgotten by a write of one; more than are written, so that they do not pile up."""


def steady_clock() -> Callable[[], float]:
    """Seconds since 1970, by the system's clock as it is now and by time that passes from now on."""
    ahead = time.time() - time.monotonic()
    return lambda: time.monotonic() + ahead


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to be remembered.

    Attributes:
        asked: The request.
        answer: The answer; None until it is known, within the transaction that finds it out.
        time: Microseconds since 1970.
        kept_since: Answers from before that time are forgotten.
    """

    asked: AskedOnce
    answer: bytes | None
    time: int
    kept_since: int

    @property
    def row(self) -> dict[str, Any]:
        """Its row."""
        asked = self.asked
        return {
            "request_id": asked.request_id,
            "message": asked.message,
            "fingerprint": asked.fingerprint,
            "fields": asked.fields,
            "answer": self.answer,
            "create_time": self.time,
        }


class Answers:
    """Remembers answers.

    Args:
        database: Holds them.
        retention_s: For how long, in seconds.
        clock: Seconds since 1970.
    """

    def __init__(
        self, database: Database, retention_s: float, clock: Callable[[], float] | None = None
    ) -> None:
        self._database = database
        self._retention = int(retention_s * _MICROSECONDS)
        self._clock = clock or steady_clock()

    def make(self, asked: AskedOnce, answer: bytes | None = None) -> Answer:
        """An answer of now."""
        now = int(self._clock() * _MICROSECONDS)
        return Answer(asked, answer, now, now - self._retention)

    async def find(self, asked: AskedOnce) -> bytes | None:
        """What the same request was answered before, or None.

        Raises:
            EpochdError: REQUEST_ID_REUSED.
        """
        sought = self.make(asked)
        return await self._database.read(lambda connection: find(connection, sought))

    async def write(self, operation: Operation[T], once: Once[T] | None) -> T:
        """Runs an operation in a transaction, which remembers its answer where it is the answer to a request.

        Raises:
            AnsweredBefore: The same request was answered before; nothing was changed.
            EpochdError: REQUEST_ID_REUSED, STORAGE_UNAVAILABLE; or whatever the operation raises.
        """
        if once is None:
            return await self._database.write(operation)
        new = self.make(once.asked)

        def remembered(connection: Connection) -> T:
            claim(connection, new)
            result = operation(connection)
            made = update(answers).where(answers.c.request_id == new.asked.request_id)
            connection.execute(made.values(answer=once.answer(result)))
            return result

        return await self._database.write(remembered)

    async def amend(self, asked: AskedOnce, answer: bytes) -> None:
        """Remembers another answer to a request that was remembered before.

        Raises:
            EpochdError: STORAGE_UNAVAILABLE.
        """
        same = (answers.c.request_id == asked.request_id) & (answers.c.fingerprint == asked.fingerprint)
        amended = update(answers).where(same).values(answer=answer)
        await self._database.write(lambda connection: connection.execute(amended))


def find(connection: Connection, sought: Answer) -> bytes | None:
    """What the same request was answered before, or None.

    Raises:
        EpochdError: REQUEST_ID_REUSED.
    """
    row = _find(connection, sought)
    return None if row is None else _known(row, sought.asked)


def claim(connection: Connection, new: Answer) -> None:
    """Takes a request's id for it, or waits for whoever is about to, in another transaction.

    Raises:
        AnsweredBefore: The same request has it.
        EpochdError: REQUEST_ID_REUSED.
    """
    while not claim_all(connection, [new]):
        row = _find(connection, new)
        if row is not None:
            raise AnsweredBefore(_known(row, new.asked))
        too_old = answers.c.create_time < new.kept_since
        connection.execute(delete(answers).where(answers.c.request_id == new.asked.request_id, too_old))


def claim_all(connection: Connection, new: Sequence[Answer]) -> bool:
    """Takes the ids of many requests for them, and forgets old ones; whether none of them was taken."""
    if not new:
        return True
    _forget(connection, new[0], 2 * len(new) + _FORGOTTEN_AT_LEAST)
    return insert_new_rows(connection, answers, [one.row for one in new]) == len(new)


def _forget(connection: Connection, now: Answer, most: int) -> None:
    """Deletes the oldest answers that are too old. Those from the future, by a clock that was wrong, are of now."""
    ahead = update(answers).where(answers.c.create_time > now.time + _AHEAD)
    connection.execute(ahead.values(create_time=now.time))
    oldest = select(answers.c.request_id).where(answers.c.create_time < now.kept_since)
    # Another server may be forgetting the same: none waits for the other.
    oldest = oldest.order_by(answers.c.create_time).limit(most).with_for_update(skip_locked=True)
    connection.execute(delete(answers).where(answers.c.request_id.in_(oldest.scalar_subquery())))


def _find(connection: Connection, sought: Answer) -> AnyRow | None:
    known = (answers.c.request_id == sought.asked.request_id) & (answers.c.create_time >= sought.kept_since)
    return connection.execute(select(answers).where(known)).one_or_none()


def _known(row: AnyRow, asked: AskedOnce) -> bytes:
    """The answer of a row to the same request.

    Raises:
        EpochdError: REQUEST_ID_REUSED where it is to another.
    """
    before = AskedOnce(
        request_id=row.request_id,
        message=row.message,
        fingerprint=bytes(row.fingerprint),
        fields=bytes(row.fields),
    )
    # Answers of servers that did not know which method they were given by have no name of a message.
    if before.fingerprint != asked.fingerprint or before.message not in ("", asked.message):
        raise reused(before, asked)
    return bytes(row.answer)
