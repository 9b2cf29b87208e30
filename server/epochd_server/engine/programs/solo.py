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

from epochd_server.engine.chain import Chain
from epochd_server.engine.checkpointing import Columns
from epochd_server.engine.programs.solo_network import SoloNetwork
from epochd_server.engine.reporting import Reporter
from epochd_server.engine.row_optimizer import RowOptimizer
from epochd_server.engine.rows import Rows
from epochd_server.engine.shuffling import derived_seed, epoch_permutation
from epochd_server.engine.task import CohortTask, Floats, Integers, MemberState
from epochd_server.engine.validation import Scores, Validator, watched_losses
from epochd_server.engine.windows import Batch, LargeRows

_ACTIVE = np.ones(1, np.bool_)


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
    for member in members:
        _train_member(task, rows, _Member(task, chain, rows, int(member), start[member]), reporter)


def _train_member(task: CohortTask, rows: Rows, member: _Member, reporter: Reporter) -> None:
    k, state, loss = member.index, MemberState.FINISHED, math.nan
    epochs, column, place = int(task.epochs[k]), np.array([k]), np.array([0])
    begun = epoch = reporter.resume(column, member.columns)
    for epoch in range(begun, epochs):
        if k in reporter.stopped():
            state = MemberState.STOPPED
            reporter.checkpoint(column, member.columns, place, epoch)
            break
        began = reporter.clock()
        lr = float(reporter.rates.at(column, np.array([epoch]))[0])
        loss = member.run_epoch(epoch, lr)
        if not member.healthy(loss):
            state = MemberState.DIVERGED
            break
        rate = rows.counts[k] / max(reporter.clock() - began, 1e-9)
        scores, stopping = member.validate(reporter.validator, epoch)
        if epoch % task.log_every[k] == 0 or epoch == epochs - 1 or scores is not None:
            snapshots: list[Floats | None] | None = [member.flat.copy()] if task.log_parameters[k] else None
            reporter.log(column, np.array([epoch]), np.array([loss]), np.array([rate]), snapshots, scores)
        reporter.rates.learn(column, epoch, watched_losses(np.array([loss]), scores))
        reporter.flush_if_due()
        if stopping or epoch == epochs - 1:
            break
        reporter.checkpoint_if_due(column, member.columns, place, epoch + 1)
    done = epoch + 1 if state is MemberState.FINISHED else epoch
    reporter.end(column, np.array([state]), np.array([done]), member.flat[None])


class _Member:
    """One member's parameters, optimizer state and rows."""

    def __init__(self, task: CohortTask, chain: Chain, rows: Rows, index: int, start: Floats) -> None:
        self.index = index
        self.flat = start.copy()
        self._task = task
        self._network = SoloNetwork(chain, self.flat)
        self._large = LargeRows(task, rows, index) if rows.large[index] else None
        piece = slice(int(rows.starts[index]), int(rows.starts[index] + rows.counts[index]))
        self._features = torch.from_numpy(rows.features[piece])
        self._targets = torch.from_numpy(rows.targets[piece])
        self._weights = None if rows.weights is None else torch.from_numpy(rows.weights[piece])
        self._batch = int(rows.batch[index])
        self._total = np.zeros_like(self.flat)
        self._optimizer = RowOptimizer(task, np.array([index]), chain.slots)

    @property
    def columns(self) -> Columns:
        """What changes from epoch to epoch, [1, …] each."""
        return {"parameters": self.flat[None], **self._optimizer.columns}

    def healthy(self, loss: float) -> bool:
        """Whether the loss and all parameters are finite."""
        extent = np.abs(self.flat).max(initial=0.0)
        return math.isfinite(loss) and math.isfinite(extent)

    def validate(self, validator: Validator | None, epoch: int) -> tuple[Scores | None, bool]:
        """What is reached after an epoch on the held-out rows, where that is due, and whether to stop."""
        members = np.array([self.index])
        if validator is None or not validator.due(members, np.array([epoch]))[0]:
            return None, False
        scores, stopping = validator.observe(members, epoch, self.flat[None], self._network.forward)
        return scores, bool(stopping[0])

    def run_epoch(self, epoch: int, lr: float) -> float:
        """Makes all steps of an epoch and returns its loss."""
        self._optimizer.set_rates(np.array([lr]))
        self._network.draw_from(derived_seed(int(self._task.seeds[self.index]), "dropout", epoch))
        if self._large is not None and self._batch == len(self._large):
            return self._run_whole_epoch(self._large)
        steps = self._task.accumulation_steps
        batches = math.ceil(len(self._features) / self._batch)
        loss_sum, weight_sum = 0.0, 0.0
        for number, (features, targets, weights) in enumerate(self._batches(epoch)):
            gathered = number % steps
            loss, weight = self._network.loss_and_gradient(self._task.loss, features, targets, weights)
            loss_sum += loss * weight
            weight_sum += weight
            if steps > 1:
                group = min(steps, batches - (number - gathered))
                self._accumulate(first=gathered == 0, share=1 / group)
                if gathered + 1 < group:
                    continue
            gradient = self._total if steps > 1 else self._network.gradient
            if weight > 0:
                self._optimizer.step(self.flat[None], gradient[None], _ACTIVE)
        return loss_sum / weight_sum if weight_sum > 0 else math.nan

    def _run_whole_epoch(self, rows: LargeRows) -> float:
        """One step by the gradient of all rows, whose pieces' gradients are added in float64."""
        total = np.zeros(len(self.flat))
        loss_sum, weight_sum = 0.0, 0.0
        for features, targets, weights in map(_tensors, rows.pieces()):
            loss, weight = self._network.loss_and_gradient(self._task.loss, features, targets, weights)
            loss_sum += loss * weight
            weight_sum += weight
            if weight > 0:
                total += self._network.gradient.astype(np.float64) * weight
        if weight_sum == 0:
            return math.nan
        self._total[:] = total / weight_sum
        self._optimizer.step(self.flat[None], self._total[None], _ACTIVE)
        return loss_sum / weight_sum

    def _accumulate(self, first: bool, share: float) -> None:
        if first:
            self._total[:] = 0
        self._total += self._network.gradient * self._total.dtype.type(share)

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        count = len(self._features)
        if self._large is not None:
            yield from map(_tensors, self._large.batches(epoch, self._batch))
            return
        if self._batch == count:
            yield self._features, self._targets, self._weights
            return
        order: Tensor | None = None
        if self._task.shuffle:
            order = torch.from_numpy(epoch_permutation(int(self._task.seeds[self.index]), epoch, count))
        for begin in range(0, count, self._batch):
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
