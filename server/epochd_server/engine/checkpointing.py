"""Saving where members are between two epochs, or two batches, and going on from there.

A program shows what it changes from one to the next as *columns*: arrays by name whose first axis is its members,
views where the arrays lie otherwise. Saving copies rows of them, restoring writes rows back; there is no second
description of a program's state that could be forgotten when the first one grows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.checkpoints import MOST_COST, MemberCheckpoint
from epochd_server.engine.task import Integers, Observer, ProgressBatch

Columns = Mapping[str, NDArray[Any]]


class Resumable(Protocol):
    """What a task says of where its members go on, and how often they are saved."""

    @property
    def members(self) -> int:
        """K."""

    @property
    def resume(self) -> Mapping[int, MemberCheckpoint]:
        """Members that were interrupted, and where they were saved."""

    @property
    def checkpoint_seconds(self) -> float:
        """How often the observer is told where members are."""


class Checkpointer:
    """Tells the observer every now and then where members are, and puts members where they were.

    Args:
        task: What is trained.
        observer: Who is told.
        clock: Seconds, monotonic.
    """

    def __init__(self, task: Resumable, observer: Observer, clock: Callable[[], float]) -> None:
        self._resume = task.resume
        self._interval = task.checkpoint_seconds
        self._observer = observer
        self._clock = clock
        self._due_at = clock() + self._interval
        self.begun = np.zeros(task.members, np.int64)
        """int64 [K]: the epoch that each member begins with."""
        for member, checkpoint in task.resume.items():
            self.begun[member] = checkpoint.epoch

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return self._clock() >= self._due_at

    def save(self, members: Integers, epochs: Integers | int, *columns: tuple[Columns, Integers]) -> None:
        """Tells where members [M] are, ``epochs`` being their next.

        Args:
            members: Who.
            epochs: Their next epochs [M], or the one of all of them.
            *columns: Columns, and the places [M] that the members have in them.
        """
        if not len(members):
            return
        began = self._clock()
        state = {name: array[places] for group, places in columns for name, array in group.items()}
        self._observer.progress(ProgressBatch(members, np.full(len(members), epochs), state))
        now = self._clock()
        self._due_at = now + max(self._interval, (now - began) / MOST_COST)

    def restore(self, members: Integers, *columns: tuple[Columns, Integers]) -> Integers:
        """Puts members [M] where they were; returns the epochs [M] that they begin with."""
        for position, member in enumerate(members.tolist()):
            checkpoint = self._resume.get(member)
            if checkpoint is not None:
                _put(checkpoint, position, columns)
        return self.begun[members]


def _put(checkpoint: MemberCheckpoint, position: int, columns: tuple[tuple[Columns, Integers], ...]) -> None:
    for group, places in columns:
        for name, array in group.items():
            array[places[position]] = checkpoint.state[name]
