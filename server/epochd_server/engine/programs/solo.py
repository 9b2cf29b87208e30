"""Big members, those with large rows, dropout or normalisation: one at a time, each step a few products of PyTorch's.

At this size the products cost more than all the rest, so nothing is won by stacking members, and a member's
bits cannot depend on neighbours it never meets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from epochd_server.engine import windows
from epochd_server.engine.chain import Chain
from epochd_server.engine.checkpointing import Columns
from epochd_server.engine.programs import epoch_progress
from epochd_server.engine.programs.epoch_progress import EpochProgress
from epochd_server.engine.programs.solo_network import SoloNetwork
from epochd_server.engine.reporting import Reporter
from epochd_server.engine.row_optimizer import RowOptimizer
from epochd_server.engine.rows import Rows
from epochd_server.engine.shuffling import derived_seed, epoch_permutation
from epochd_server.engine.task import CohortTask, Floats, Integers, MemberState
from epochd_server.engine.validation import Scores, Validator, watched_losses
from epochd_server.engine.windows import Batch, LargeRows

_ACTIVE = np.ones(1, np.bool_)
_PLACE = np.zeros(1, np.int64)


def train(
    task: CohortTask, chain: Chain, rows: Rows, members: Integers, start: Floats, reporter: Reporter
) -> None:
    """Trains ``members`` one after the other.

    Args:
        task: The whole cohort.
        chain: Its network.
        rows: Its rows.
        members: Which of them to train.
        start: [K, P] initial parameters.
        reporter: Is told everything.
    """
    for k in members:
        _train_member(task, _Member(task, chain, rows, int(k), start[k]), reporter)


def _train_member(task: CohortTask, member: _Member, reporter: Reporter) -> None:
    k, state, loss = member.index, MemberState.FINISHED, math.nan
    epochs = int(task.epochs[k])
    begun = epoch = member.resume(reporter)
    for epoch in range(begun, epochs):
        began, rows = reporter.clock(), member.rows_left
        if not _make_epoch(member, epoch, reporter):
            state = MemberState.STOPPED
            break
        loss = member.end_epoch()
        if not member.healthy(loss):
            state = MemberState.DIVERGED
            break
        rate = rows / max(reporter.clock() - began, 1e-9)
        scores, stopping = member.validate(reporter.validator, epoch)
        if epoch % task.log_every[k] == 0 or epoch == epochs - 1 or scores is not None:
            snapshots: list[Floats | None] | None = [member.flat.copy()] if task.log_parameters[k] else None
            point = np.array([epoch]), np.array([loss]), np.array([rate])
            reporter.log(member.column, *point, snapshots, scores)
        reporter.rates.learn(member.column, epoch, watched_losses(np.array([loss]), scores))
        reporter.flush_if_due()
        if stopping or epoch == epochs - 1:
            break
        reporter.checkpoint_if_due(member.column, member.columns, _PLACE, epoch + 1)
    done = epoch + 1 if state is MemberState.FINISHED else epoch
    reporter.end(member.column, np.array([state]), np.array([done]), member.flat[None])


def _make_epoch(member: _Member, epoch: int, reporter: Reporter) -> bool:
    """Makes what is missing of an epoch; False where the member was stopped before its end."""
    if _stops(member, epoch, reporter):
        return False
    look_at = reporter.clock() + epoch_progress.LOOK_SECONDS
    lr = float(reporter.rates.at(member.column, np.array([epoch]))[0])
    for _ in member.make_batches(epoch, lr):
        if reporter.clock() < look_at:
            continue
        if _stops(member, epoch, reporter):
            return False
        reporter.checkpoint_if_due(member.column, member.columns, _PLACE, epoch)
        look_at = reporter.clock() + epoch_progress.LOOK_SECONDS
    return True


def _stops(member: _Member, epoch: int, reporter: Reporter) -> bool:
    """Whether the observer wants the member stopped; it is saved then."""
    if member.index not in reporter.stopped():
        return False
    reporter.checkpoint(member.column, member.columns, _PLACE, epoch)
    return True


class _Member:
    """One member's parameters, optimizer state and rows."""

    def __init__(self, task: CohortTask, chain: Chain, rows: Rows, index: int, start: Floats) -> None:
        self.index = index
        self.column = np.array([index])
        self.flat = start.copy()
        self._task = task
        self._network = SoloNetwork(chain, self.flat)
        self._large = LargeRows(task, rows, index) if rows.large[index] else None
        piece = slice(int(rows.starts[index]), int(rows.starts[index] + rows.counts[index]))
        self._features = torch.from_numpy(rows.features[piece])
        self._targets = torch.from_numpy(rows.targets[piece])
        self._weights = None if rows.weights is None else torch.from_numpy(rows.weights[piece])
        self._batch = int(rows.batch[index])
        self._optimizer = RowOptimizer(task, self.column, chain.slots)
        self._in_pieces = self._large is not None and self._batch == len(self._large)
        shared = self._in_pieces or task.accumulation_steps > 1
        self._progress = EpochProgress(
            1, len(self.flat) if shared else 0, np.float64 if self._in_pieces else self.flat.dtype
        )

    @property
    def columns(self) -> Columns:
        """What changes from batch to batch, [1, …] each."""
        return {
            "parameters": self.flat[None],
            **self._optimizer.columns,
            **self._progress.columns,
            **self._network.columns,
        }

    @property
    def rows_left(self) -> int:
        """Rows that an epoch has still to take."""
        size = windows.WHOLE_ROWS if self._in_pieces else self._batch
        return max(len(self._features) - self._progress.batches * size, 0)

    def resume(self, reporter: Reporter) -> int:
        """Puts the member where it was when it was saved; returns the epoch that it is in."""
        epoch = reporter.resume(self.column, self.columns)
        self._network.restored()
        return epoch

    def healthy(self, loss: float) -> bool:
        """Whether the loss and all parameters are finite."""
        extent = np.abs(self.flat).max(initial=0.0)
        return math.isfinite(loss) and math.isfinite(extent)

    def validate(self, validator: Validator | None, epoch: int) -> tuple[Scores | None, bool]:
        """What is reached after an epoch on the held-out rows, where that is due, and whether to stop."""
        if validator is None or not validator.due(self.column, np.array([epoch]))[0]:
            return None, False
        scores, stopping = validator.observe(self.column, epoch, self.flat[None], self._network.forward)
        return scores, bool(stopping[0])

    def make_batches(self, epoch: int, lr: float) -> Iterator[None]:
        """Makes the batches that are missing of an epoch; after each of them the member can be saved."""
        self._optimizer.set_rates(np.array([lr]))
        if self._progress.batches == 0:
            self._network.draw_from(derived_seed(int(self._task.seeds[self.index]), "dropout", epoch))
        if self._in_pieces and self._large is not None:
            return self._make_pieces(self._large)
        return self._make_steps(epoch)

    def end_epoch(self) -> float:
        """The loss of the epoch whose batches are made."""
        return float(self._progress.end()[0])

    def _make_steps(self, epoch: int) -> Iterator[None]:
        """A step for every batch, or for some together."""
        steps, first = self._task.accumulation_steps, self._progress.batches
        count = math.ceil(len(self._features) / self._batch)
        for number, (features, targets, weights) in enumerate(self._batches(epoch, first), first):
            loss, weight = self._network.loss_and_gradient(self._task.loss, features, targets, weights)
            gradient, gathered = self._network.gradient, number % steps
            group = min(steps, count - (number - gathered))
            if steps > 1:
                gradient = self._progress.gathered[0]
                self._accumulate(gradient, first=gathered == 0, share=1 / group)
            if weight > 0 and gathered + 1 == group:
                self._optimizer.step(self.flat[None], gradient[None], _ACTIVE)
            self._progress.add(loss * weight, weight)
            yield

    def _make_pieces(self, rows: LargeRows) -> Iterator[None]:
        """One step by the gradient of all rows, whose pieces' gradients are added in float64."""
        total = self._progress.gathered[0]
        if self._progress.batches == 0:
            total[:] = 0
        for features, targets, weights in map(_tensors, rows.pieces(self._progress.batches)):
            loss, weight = self._network.loss_and_gradient(self._task.loss, features, targets, weights)
            if weight > 0:
                total += self._network.gradient.astype(np.float64) * weight
            self._progress.add(loss * weight, weight)
            yield
        weight_sum = float(self._progress.weights[0])
        if weight_sum > 0:
            gradient = (total / weight_sum).astype(self.flat.dtype)
            self._optimizer.step(self.flat[None], gradient[None], _ACTIVE)

    def _accumulate(self, total: Floats, *, first: bool, share: float) -> None:
        if first:
            total[:] = 0
        total += self._network.gradient * total.dtype.type(share)

    def _batches(self, epoch: int, first: int) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """The batches of an epoch from the ``first`` on."""
        count = len(self._features)
        if self._large is not None:
            yield from map(_tensors, self._large.batches(epoch, self._batch, first))
            return
        if self._batch == count and first == 0:
            yield self._features, self._targets, self._weights
            return
        order: Tensor | None = None
        if self._task.shuffle:
            order = torch.from_numpy(epoch_permutation(int(self._task.seeds[self.index]), epoch, count))
        for begin in range(first * self._batch, count, self._batch):
            piece = slice(begin, min(begin + self._batch, count))
            if order is None:
                weights = None if self._weights is None else self._weights[piece]
                yield self._features[piece], self._targets[piece], weights
            else:
                chosen = order[piece]
                weights = None if self._weights is None else self._weights[chosen]
                yield self._features[chosen], self._targets[chosen], weights


def _tensors(batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
    weights = None if batch.weights is None else torch.from_numpy(batch.weights)
    return torch.from_numpy(batch.features), torch.from_numpy(batch.targets), weights
