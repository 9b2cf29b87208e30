"""Learning rates of members, epoch by epoch; see :mod:`epochd_server.domain.schedules` for the formulas.

Legend: K members of the cohort, M of those in question.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.schedules import (
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    ReduceLROnPlateau,
    Schedule,
    StepLR,
    ThresholdMode,
)
from epochd_server.engine.checkpointing import Columns
from epochd_server.engine.task import CohortTask, Integers

Column = NDArray[np.float64]


class Rates:
    """The learning rates of a task's members.

    Args:
        task: The whole cohort.
    """

    def __init__(self, task: CohortTask) -> None:
        self._task = task
        self._warmup_epochs = 0 if task.warmup is None else task.warmup.total_iters
        self._plateau = (
            _Plateau(task.schedule, task) if isinstance(task.schedule, ReduceLROnPlateau) else None
        )

    @property
    def columns(self) -> Columns:
        """What is learned from epoch to epoch, [K] each."""
        return {} if self._plateau is None else self._plateau.columns

    @property
    def constant(self) -> bool:
        """Whether every member keeps the rate of its optimizer."""
        return self._task.schedule is None and self._task.warmup is None

    @property
    def adaptive(self) -> bool:
        """Whether rates depend on losses: :meth:`learn` must then be told of every epoch."""
        return self._plateau is not None

    def at(self, members: Integers, epochs: Integers) -> Column:
        """The rates of epochs.

        Args:
            members: [M]
            epochs: [M] or [E, 1]; where rates are adaptive, the epoch that comes next.

        Returns:
            [M] or [E, M]
        """
        base = self._task.hyperparameters.lr[members]
        if self.constant:
            return np.broadcast_to(base, np.broadcast_shapes(base.shape, epochs.shape))
        distinct, place = np.unique(epochs, return_inverse=True)
        horizons, kind = np.unique(self._horizons(members), return_inverse=True)
        table = np.array(
            [[self._factor(e, horizon) for e in distinct.tolist()] for horizon in horizons.tolist()]
        )
        factors = table[kind, place.reshape(epochs.shape)]
        warm = epochs < self._warmup_epochs
        if self._plateau is not None:
            return np.where(warm, base * factors, self._plateau.lrs[members])
        floor = np.where(warm, 0.0, self._floor())
        rates: Column = floor + (base - floor) * factors
        return rates

    def learn(self, members: Integers, epoch: int, losses: Column) -> None:
        """Takes the losses [M] that members have after an epoch, where rates are adaptive."""
        if self._plateau is not None and epoch >= self._warmup_epochs:
            self._plateau.learn(members, losses)

    def _floor(self) -> float:
        schedule = self._task.schedule
        return schedule.eta_min if isinstance(schedule, CosineAnnealingLR) else 0.0

    def _horizons(self, members: Integers) -> Integers:
        """The epochs [M] that a schedule is stretched over, where it is; anything else would be the same for all."""
        schedule = self._task.schedule
        if isinstance(schedule, CosineAnnealingLR) and schedule.t_max is None:
            return self._task.epochs[members] - self._warmup_epochs
        return np.zeros(len(members), np.int64)

    def _factor(self, epoch: int, horizon: int) -> float:
        """What (lr − floor) is multiplied with; plain floats, so that no vector unit has a say in the digits."""
        warmup = self._task.warmup
        if warmup is not None and epoch < self._warmup_epochs:
            return _linear(warmup, epoch)
        return _factor(self._task.schedule, epoch - self._warmup_epochs, horizon)


def _factor(schedule: Schedule | None, epoch: int, horizon: int) -> float:
    match schedule:
        case StepLR():
            return float(schedule.gamma ** (epoch // schedule.step_size))
        case ExponentialLR():
            return float(schedule.gamma**epoch)
        case CosineAnnealingLR():
            return (1 + math.cos(math.pi * epoch / (schedule.t_max or max(horizon, 1)))) / 2
        case LinearLR():
            return _linear(schedule, epoch)
        case _:
            return 1.0


def _linear(schedule: LinearLR, epoch: int) -> float:
    done = min(epoch, schedule.total_iters) / schedule.total_iters
    return schedule.start_factor + (schedule.end_factor - schedule.start_factor) * done


class _Plateau:
    """The state of ``ReduceLROnPlateau`` of every member, as columns [K]."""

    def __init__(self, rule: ReduceLROnPlateau, task: CohortTask) -> None:
        self._rule = rule
        self.lrs = task.hyperparameters.lr.astype(np.float64, copy=True)
        self._best = np.full(task.members, np.inf)
        self._bad = np.zeros(task.members, np.int64)
        self._cooling = np.zeros(task.members, np.int64)

    @property
    def columns(self) -> Columns:
        return {
            "plateau.lr": self.lrs,
            "plateau.best": self._best,
            "plateau.bad": self._bad,
            "plateau.cooling": self._cooling,
        }

    def learn(self, members: Integers, losses: Column) -> None:
        rule, best = self._rule, self._best[members]
        relative = rule.threshold_mode is ThresholdMode.REL
        better = losses < (best * (1 - rule.threshold) if relative else best - rule.threshold)
        self._best[members] = np.where(better, losses, best)
        bad = np.where(better, 0, self._bad[members] + 1)
        cooling = self._cooling[members]
        bad = np.where(cooling > 0, 0, bad)
        cooling = np.maximum(cooling - 1, 0)
        due = bad > rule.patience
        old = self.lrs[members]
        new = np.maximum(old * rule.factor, rule.min_lr)
        self.lrs[members] = np.where(due & (old - new > rule.eps), new, old)
        self._bad[members] = np.where(due, 0, bad)
        self._cooling[members] = np.where(due, rule.cooldown, cooling)
