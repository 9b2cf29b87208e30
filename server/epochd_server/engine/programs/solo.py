"""Big members: one at a time, each step a few matrix products of PyTorch's, gradients written by hand.

At this size the products cost more than all the rest, so nothing is won by stacking members, and a member's
bits cannot depend on neighbours it never meets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from epochd_server.domain.specs import Loss
from epochd_server.engine.chain import Affine, Chain
from epochd_server.engine.elementwise import ACTIVATIONS
from epochd_server.engine.losses import mean_loss, output_gradient
from epochd_server.engine.optimizers import RowOptimizer, hyperparameter_table
from epochd_server.engine.reporting import Reporter
from epochd_server.engine.rows import Rows
from epochd_server.engine.shuffling import epoch_permutation
from epochd_server.engine.task import CohortTask, Floats, Integers, MemberState
from epochd_server.engine.validation import Scores, Validator

_ACTIVE = np.ones(1, np.bool_)
_FORWARD_ROWS = 8192
"""Held-out rows that go through a network at once."""


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
    k, state, loss, epoch = member.index, MemberState.FINISHED, math.nan, 0
    epochs = int(task.epochs[k])
    column = np.array([k])
    for epoch in range(epochs):
        if k in reporter.stopped():
            state = MemberState.STOPPED
            break
        began = reporter.clock()
        loss = member.run_epoch(epoch)
        if not member.healthy(loss):
            state = MemberState.DIVERGED
            break
        rate = rows.counts[k] / max(reporter.clock() - began, 1e-9)
        scores, stopping = member.validate(reporter.validator, epoch)
        if epoch % task.log_every[k] == 0 or epoch == epochs - 1 or scores is not None:
            snapshots: list[Floats | None] | None = [member.flat.copy()] if task.log_parameters[k] else None
            reporter.log(column, np.array([epoch]), np.array([loss]), np.array([rate]), snapshots, scores)
        reporter.flush_if_due()
        if stopping:
            break
    done = epoch + 1 if state is MemberState.FINISHED else epoch
    reporter.end(column, np.array([state]), np.array([done]), member.flat[None])


class _Member:
    """One member's parameters, optimizer state and rows."""

    def __init__(self, task: CohortTask, chain: Chain, rows: Rows, index: int, start: Floats) -> None:
        self.index = index
        self.flat = start.copy()
        self._task = task
        self._network = _Network(chain, self.flat)
        piece = slice(int(rows.starts[index]), int(rows.starts[index] + rows.counts[index]))
        self._features = torch.from_numpy(rows.features[piece])
        self._targets = torch.from_numpy(rows.targets[piece])
        self._weights = None if rows.weights is None else torch.from_numpy(rows.weights[piece])
        self._batch = int(rows.batch[index])
        self._total = np.zeros_like(self.flat)
        table = hyperparameter_table(task.hyperparameters, np.array([index]))
        self._optimizer = RowOptimizer(
            task.optimizer_kind, table, task.hyperparameters.nesterov, (1, len(self.flat)), task.dtype
        )

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

    def run_epoch(self, epoch: int) -> float:
        """Makes all steps of an epoch and returns its loss."""
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

    def _accumulate(self, first: bool, share: float) -> None:
        if first:
            self._total[:] = 0
        self._total += self._network.gradient * self._total.dtype.type(share)

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        count = len(self._features)
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


class _Network:
    """Forward and backward of a chain over one flat parameter vector."""

    def __init__(self, chain: Chain, flat: Floats) -> None:
        self.gradient = np.zeros_like(flat)
        self._chain = chain
        self._parameters = _tensors(chain, torch.from_numpy(flat))
        self._gradients = _tensors(chain, torch.from_numpy(self.gradient))

    def loss_and_gradient(
        self, loss: Loss, features: Tensor, targets: Tensor, weights: Tensor | None
    ) -> tuple[float, float]:
        """Fills ``gradient`` with that of the batch's loss.

        Returns:
            The batch's loss and the sum of its rows' weights.
        """
        values = self._forward(features)
        outputs = values[-1]
        value = float(mean_loss(loss, outputs, targets, weights))
        per_row = 1 if targets.dim() == 1 else targets.shape[1]
        if weights is None:
            weight = float(len(features))
            self._backward(values, output_gradient(loss, outputs, targets, 1 / (len(features) * per_row)))
        else:
            weight = float(weights.sum())
            scale = (weights / (weights.sum() * per_row))[:, None]
            self._backward(values, output_gradient(loss, outputs, targets, scale))
        return (value, weight) if weight > 0 else (0.0, 0.0)

    def forward(self, _: Floats, rows: Floats, __: Integers) -> Floats:
        """Outputs of rows under the parameters as they are; a :data:`epochd_server.engine.validation.Forward`."""
        pieces = torch.split(torch.from_numpy(rows), _FORWARD_ROWS)
        return np.concatenate([self._forward(piece)[-1].numpy() for piece in pieces])

    def _forward(self, features: Tensor) -> list[Tensor]:
        values = [features]
        for step, (weight, bias) in zip(self._chain.steps, self._parameters, strict=True):
            if not isinstance(step, Affine):
                values.append(ACTIVATIONS[step.function].forward(values[-1], step.arguments))
            elif step.bias is None:
                values.append(torch.mm(values[-1], weight.t()))
            else:
                values.append(torch.addmm(bias, values[-1], weight.t()))
        return values

    def _backward(self, values: list[Tensor], gradient: Tensor) -> None:
        for index in range(len(self._chain.steps) - 1, -1, -1):
            step = self._chain.steps[index]
            if not isinstance(step, Affine):
                activation = ACTIVATIONS[step.function]
                gradient = activation.backward(gradient, values[index], values[index + 1], step.arguments)
                continue
            to_weight, to_bias = self._gradients[index]
            torch.mm(gradient.t(), values[index], out=to_weight)
            if step.bias is not None:
                torch.sum(gradient, 0, out=to_bias)
            if index > 0:
                gradient = torch.mm(gradient, self._parameters[index][0])


def _tensors(chain: Chain, flat: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of every step as views of ``flat``; empty tensors where a step has none."""
    empty = flat[:0]
    views = []
    for step in chain.steps:
        if not isinstance(step, Affine):
            views.append((empty, empty))
            continue
        weight = flat[step.weight.offset : step.weight.end].view(step.weight.shape)
        bias = empty if step.bias is None else flat[step.bias.offset : step.bias.end]
        views.append((weight, bias))
    return views
