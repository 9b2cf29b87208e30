"""The waiting runs: who is next, and who may share its cohort.

Clients take turns by the work they have been given (start-time fair queueing): the client that was given least
leads the next cohort, and places beside the leader go to the clients that were given least. A client that comes
back after a pause starts level with the others; idle time earns no credit.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

_REMEMBERED_CLIENTS = 1_024

_Line = OrderedDict[str, "Ticket"]
"""Run id → ticket, oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A waiting run.

    Attributes:
        signature: Runs of one signature may share a cohort.
        seconds: Estimated seconds of training.
        nbytes: Bytes of its data.
        since: When it began to wait, on the scheduler's clock.
    """

    run_id: str
    client: str
    signature: Hashable
    seconds: float
    nbytes: int
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortLimits:
    """What a cohort of more than one run may hold, inclusive. A single run may be larger."""

    members: int
    nbytes: int
    seconds: float


@dataclass(slots=True)
class _Group:
    """The waiting runs of one signature, by client."""

    lines: dict[str, _Line] = field(default_factory=dict)
    size: int = 0


class FairQueue:
    """Tickets in the order in which they arrived, by client and by signature. Plain data; not thread-safe.

    Args:
        brief_seconds: Runs that are expected to take no longer are brief.
    """

    def __init__(self, brief_seconds: float = math.inf) -> None:
        self._brief_seconds = brief_seconds
        self._all: _Line = OrderedDict()
        self._clients: dict[str, _Line] = {}
        self._brief: dict[str, _Line] = {}
        self._groups: dict[Hashable, _Group] = {}
        self._given: dict[str, float] = {}
        self._clock = 0.0
        self._seconds = 0.0

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._all

    @property
    def seconds(self) -> float:
        """Estimated seconds of training that wait."""
        return self._seconds

    def count_of(self, client: str) -> int:
        """How many runs of a client wait."""
        return len(self._clients.get(client, ()))

    @property
    def oldest(self) -> Ticket:
        """The ticket that has waited longest. The queue must not be empty."""
        return next(iter(self._all.values()))

    def youngest(self) -> Iterator[Ticket]:
        """The tickets, those that came last first."""
        return reversed(self._all.values())

    def push(self, ticket: Ticket) -> None:
        """Adds a ticket; its run must not be waiting yet."""
        if ticket.run_id in self._all:
            raise ValueError(f"{ticket.run_id} is waiting already")
        if ticket.client not in self._clients:
            self._given[ticket.client] = max(self._clock, self._given.get(ticket.client, 0.0))
        self._all[ticket.run_id] = ticket
        self._seconds += ticket.seconds
        self._clients.setdefault(ticket.client, OrderedDict())[ticket.run_id] = ticket
        if self.is_brief(ticket):
            self._brief.setdefault(ticket.client, OrderedDict())[ticket.run_id] = ticket
        group = self._groups.setdefault(ticket.signature, _Group())
        group.lines.setdefault(ticket.client, OrderedDict())[ticket.run_id] = ticket
        group.size += 1

    def remove(self, run_id: str) -> Ticket | None:
        """Takes a run out; None where it does not wait."""
        ticket = self._all.pop(run_id, None)
        if ticket is None:
            return None
        self._seconds = self._seconds - ticket.seconds if self._all else 0.0
        _drop(self._clients, ticket.client, run_id)
        if self.is_brief(ticket):
            _drop(self._brief, ticket.client, run_id)
        group = self._groups[ticket.signature]
        _drop(group.lines, ticket.client, run_id)
        group.size -= 1
        if not group.size:
            del self._groups[ticket.signature]
        return ticket

    def is_brief(self, ticket: Ticket) -> bool:
        """Whether this run will not hold a worker for long."""
        return ticket.seconds <= self._brief_seconds

    def leader(self, *, brief: bool = False) -> Ticket | None:
        """The run that leads the next cohort, of the brief ones or of all; None where there is none."""
        lines = self._brief if brief else self._clients
        if not lines:
            return None
        client = min(lines, key=lambda name: self._given[name])
        return next(iter(lines[client].values()))

    def company(self, ticket: Ticket) -> int:
        """How many runs of this ticket's signature wait, itself included."""
        return self._groups[ticket.signature].size

    def take(self, limits: CohortLimits, *, brief: bool = False) -> list[Ticket]:
        """Takes the next cohort out: the leader, and as many of its signature as the limits allow.

        Args:
            limits: What it may hold.
            brief: Whether the leader must be brief.
        """
        leader = self.leader(brief=brief)
        if leader is None:
            return []
        self._clock = max(self._clock, self._given[leader.client])
        taken = [self._take(leader)]
        nbytes, seconds = limits.nbytes - leader.nbytes, limits.seconds - leader.seconds
        for ticket in self._companions(leader.signature, limits.members - 1):
            nbytes, seconds = nbytes - ticket.nbytes, seconds - ticket.seconds
            if nbytes < 0 or seconds < 0:
                break
            taken.append(self._take(ticket))
        self._forget_clients()
        return taken

    def _take(self, ticket: Ticket) -> Ticket:
        self.remove(ticket.run_id)
        self._given[ticket.client] += ticket.seconds
        return ticket

    def _companions(self, signature: Hashable, count: int) -> Iterator[Ticket]:
        """At most ``count`` runs of a signature in fair order; each must be taken before the next is asked for."""
        group = self._groups.get(signature)
        if group is None or count < 1:
            return
        turns = [(self._given[client], client) for client in group.lines]
        heapq.heapify(turns)
        while turns and count:
            count -= 1
            client = turns[0][1]
            yield next(iter(group.lines[client].values()))
            if client in group.lines:
                heapq.heapreplace(turns, (self._given[client], client))
            else:
                heapq.heappop(turns)

    def _forget_clients(self) -> None:
        """Drops the accounts of absent clients that are level with the others anyway."""
        if len(self._given) > len(self._clients) + _REMEMBERED_CLIENTS:
            kept = heapq.nlargest(_REMEMBERED_CLIENTS, self._given.items(), key=lambda item: item[1])
            present = {client: self._given[client] for client in self._clients}
            self._given = dict(kept) | present


def _drop(lines: dict[str, _Line], client: str, run_id: str) -> None:
    line = lines[client]
    del line[run_id]
    if not line:
        del lines[client]
