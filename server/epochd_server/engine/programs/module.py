"""Registered modules: any ``nn.Module``, called as it is, differentiated by PyTorch.

Members of one row count run as one ``vmap`` over ``functional_call``, always at least two: with a stack of one,
PyTorch takes other kernels, and the bits of a lone member would differ from those it has in company. A module that
cannot be vmapped (it looks at values, draws random numbers), or that has buffers or hooks, trains member by member
instead; that is decided by the module alone. Either way the module's ``__call__`` runs, hooks included.
"""

from __future__ import annotations

import copy
import logging
import math
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, vmap

from epochd_server.engine.allocation import is_out_of_memory
from epochd_server.engine.chain import Slot, total_size
from epochd_server.engine.checkpointing import Columns
from epochd_server.engine.losses import row_losses
from epochd_server.engine.reporting import Reporter
from epochd_server.engine.row_optimizer import RowOptimizer
from epochd_server.engine.rows import Rows
from epochd_server.engine.shuffling import derived_seed, epoch_permutation
from epochd_server.engine.task import CohortTask, Floats, Integers, MemberState
from epochd_server.engine.tracing import is_watched
from epochd_server.engine.validation import Scores, Validator, no_scores, watched_losses
from epochd_server.engine.windows import LargeRows

MOST_MEMBERS = 64
FAILED_MESSAGE = "the module raised an error in epoch {}; the server's log has the details"

_logger = logging.getLogger(__name__)


def train(
    task: CohortTask,
    module: nn.Module,
    slots: tuple[Slot, ...],
    rows: Rows,
    start: Floats,
    reporter: Reporter,
) -> None:
    """Trains all members of a task whose model is a registered module.

    Args:
        task: What to train.
        module: Is called; its own parameters do not matter.
        slots: Its parameters and buffers.
        rows: The task's rows.
        start: [K, P] initial values.
        reporter: Is told everything.
    """
    with torch.random.fork_rng(devices=[]):
        program = _Program(task, module, slots)
        together = program.can_be_vmapped(rows)
        for members in _blocks(rows, reporter.begun, MOST_MEMBERS if together else 1):
            block_program = program if together else program.alone()
            _Block(block_program, rows, members, start[members], together).run(reporter)


def _blocks(rows: Rows, begun: Integers, most: int) -> Iterator[Integers]:
    """Members of one row count that begin with one epoch, ``most`` at a time."""
    order = np.lexsort((begun, rows.counts))
    differs = (np.diff(rows.counts[order]) != 0) | (np.diff(begun[order]) != 0)
    for same in np.split(order, np.flatnonzero(differs) + 1):
        for begin in range(0, len(same), most):
            yield same[begin : begin + most]


class _Program:
    """The gradient of a module's loss, for one member or for a stack of them."""

    def __init__(self, task: CohortTask, module: nn.Module, slots: tuple[Slot, ...]) -> None:
        self.task = task
        self.slots = slots
        self._module = module
        trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
        self.trained = total_size(slot for slot in slots if slot.name in trained)
        """How many of the flat vector's numbers are trained; they come first."""
        self._stacked = vmap(self._outputs, randomness="error")

    def alone(self) -> _Program:
        """A copy with a module of its own, for one member: calls may change the module's state."""
        return _Program(self.task, copy.deepcopy(self._module), self.slots)

    def can_be_vmapped(self, rows: Rows) -> bool:
        """Whether the module runs under vmap; found by trying on two rows of zeros.

        Buffers are a reason not to: under vmap PyTorch may lose what a call writes to them. Hooks are another: they
        shall see a member's own rows, not batched tensors.
        """
        if is_watched(self._module) or any(True for _ in self._module.buffers()):
            return False
        features = torch.zeros(2, 2, rows.features.shape[1], dtype=torch.from_numpy(rows.features[:0]).dtype)
        flat = torch.ones(2, total_size(self.slots), dtype=features.dtype)
        stacked = self.alone().gradient
        targets = torch.zeros(2, 2, *rows.targets.shape[1:], dtype=torch.from_numpy(rows.targets[:0]).dtype)
        weights = torch.ones(2, 2, dtype=features.dtype)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                stacked(flat[:, : self.trained], flat[:, self.trained :], features, targets, weights, True)
        except Exception:
            return False
        return True

    def gradient(
        self,
        trained: Tensor,
        fixed: Tensor,
        features: Tensor,
        targets: Tensor,
        weights: Tensor,
        together: bool,
    ) -> tuple[Tensor, Tensor]:
        """The gradient of every member's loss of a batch of m rows.

        Args:
            trained: [K, T]
            fixed: [K, P − T]
            features: [K, m, d]
            targets: [K, m, t], or [K, m] class indices.
            weights: [K, m]
            together: Whether the members are stacked; K is 1 otherwise.

        Returns:
            Gradients [K, T] and losses [K].
        """
        members = len(trained)
        if together and members == 1:
            trained, fixed, features, targets, weights = (
                torch.cat([tensor, tensor]) for tensor in (trained, fixed, features, targets, weights)
            )
        trained = trained.detach().requires_grad_()
        if together:
            outputs = self._stacked(trained, fixed, features)
        else:
            outputs = self._outputs(trained[0], fixed[0], features[0])[None]
        count = outputs.shape[0] * outputs.shape[1]
        rows = row_losses(
            self.task.loss, outputs.reshape(count, -1), targets.reshape(count, *targets.shape[2:])
        )
        losses = (rows.view(weights.shape) * weights).sum(1) / weights.sum(1)
        (gradients,) = torch.autograd.grad(losses.sum(), trained)
        return gradients[:members], losses[:members].detach()

    def forward(self, flat: Floats, rows: Floats, places: Integers) -> Floats:
        """Outputs of held-out rows, each member's together: a :data:`epochd_server.engine.validation.Forward`.

        The module is called in evaluation mode, once for each member.
        """
        module, states = copy.deepcopy(self._module).eval(), torch.from_numpy(flat)
        ends = np.searchsorted(places, np.arange(len(flat)), "right").tolist()
        pieces, begin = [], 0
        with torch.no_grad():
            for state, end in zip(states, ends, strict=True):
                if end > begin:
                    named = {slot.name: state[slot.offset : slot.end].view(slot.shape) for slot in self.slots}
                    outputs = functional_call(module, named, (torch.from_numpy(rows[begin:end]),))
                    pieces.append(outputs.reshape(end - begin, -1).numpy())
                begin = end
        return np.concatenate(pieces) if pieces else np.empty((0, 1), flat.dtype)

    def _outputs(self, trained: Tensor, fixed: Tensor, features: Tensor) -> Tensor:
        """One member's outputs [m, t]."""
        state = {}
        for slot in self.slots:
            vector, shift = (trained, 0) if slot.end <= self.trained else (fixed, self.trained)
            state[slot.name] = vector[slot.offset - shift : slot.end - shift].view(slot.shape)
        outputs: Tensor = functional_call(self._module, state, (features,))
        return outputs if outputs.dim() > 1 else outputs[:, None]


class _Block:
    """Members of one row count on their way through all their epochs."""

    def __init__(
        self, program: _Program, rows: Rows, members: Integers, start: Floats, together: bool
    ) -> None:
        task = program.task
        self._program, self._rows, self._members, self._together = program, rows, members, together
        self._count = int(rows.counts[members[0]])
        self._batch = int(rows.batch[members[0]])
        self._trained = np.ascontiguousarray(start[:, : program.trained])
        self._fixed = np.ascontiguousarray(start[:, program.trained :])
        self._alive = np.ones(len(members), np.bool_)
        trained = [slot for slot in program.slots if slot.end <= program.trained]
        self._optimizer = RowOptimizer(task, members, trained)

    def run(self, reporter: Reporter) -> None:
        """Trains to the end of the last member."""
        task, epoch = self._program.task, reporter.resume(self._members, self._columns)
        while self._alive.any():
            self._stop(reporter, epoch)
            if not self._alive.any():
                return
            began = reporter.clock()
            self._optimizer.set_rates(reporter.rates.at(self._members, np.full(len(self._members), epoch)))
            try:
                losses = self._epoch(epoch)
            except Exception as error:
                self._fail(reporter, epoch, error)
                return
            healthy = np.isfinite(losses) & np.isfinite(self._trained).all(1)
            self._end(reporter, self._alive & ~healthy, MemberState.DIVERGED, epoch)
            rate = self._count / max(reporter.clock() - began, 1e-9)
            try:
                scores, leaving = self._validate(reporter.validator, epoch)
            except Exception as error:
                self._fail(reporter, epoch, error)
                return
            self._log(reporter, epoch, losses, rate, scores)
            reporter.rates.learn(self._members, epoch, watched_losses(losses, scores))
            epoch += 1
            leaving |= task.epochs[self._members] == epoch
            self._end(reporter, self._alive & leaving, MemberState.FINISHED, epoch)
            reporter.flush_if_due()
            places = np.flatnonzero(self._alive)
            reporter.checkpoint_if_due(self._members[places], self._columns, places, epoch)

    @property
    def _columns(self) -> Columns:
        """What changes from epoch to epoch, [M, …] each; a call may write to what is not trained."""
        return {"trained": self._trained, "fixed": self._fixed, **self._optimizer.columns}

    def _stop(self, reporter: Reporter, epoch: int) -> None:
        """Ends the members that the observer wants stopped."""
        wanted = reporter.stopped()
        if not wanted:
            return
        stopping = self._alive & np.isin(self._members, list(wanted))
        places = np.flatnonzero(stopping)
        reporter.checkpoint(self._members[places], self._columns, places, epoch)
        self._end(reporter, stopping, MemberState.STOPPED, epoch)

    def _epoch(self, epoch: int) -> NDArray[np.float64]:
        """All steps of an epoch; its losses [K]."""
        if not self._together:  # dropout and its kin draw from the global generator
            seed = int(self._program.task.seeds[self._members[0]])
            torch.manual_seed(derived_seed(seed, "module", epoch) >> 1)
        steps, total = self._program.task.accumulation_steps, np.zeros_like(self._trained)
        loss_sum, weight_sum = np.zeros(len(self._members)), np.zeros(len(self._members))
        pending = np.zeros(len(self._members), np.bool_)
        batches = math.ceil(self._count / self._batch)
        for number, (features, targets, weights) in enumerate(self._batches(epoch)):
            gathered = number % steps
            if gathered == 0:
                total[:], pending[:] = 0, False
            group = min(steps, batches - (number - gathered))
            gradients, losses = self._gradient(features, targets, weights)
            weight = weights.sum(1).numpy().astype(np.float64)
            some = weight > 0
            loss_sum[some] += (losses * weight)[some]
            weight_sum += weight
            pending |= some
            total[some] += gradients[some] / total.dtype.type(group)
            if gathered + 1 == group:
                self._optimizer.step(self._trained, total, self._alive & pending)
        with np.errstate(invalid="ignore"):
            return loss_sum / weight_sum

    def _gradient(
        self, features: Tensor, targets: Tensor, weights: Tensor
    ) -> tuple[Floats, NDArray[np.float64]]:
        trained, fixed = torch.from_numpy(self._trained), torch.from_numpy(self._fixed)
        gradients, losses = self._program.gradient(trained, fixed, features, targets, weights, self._together)
        return gradients.numpy(), losses.numpy().astype(np.float64)

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        rows, task = self._rows, self._program.task
        if rows.large[self._members[0]]:  # as all of them then: they have one row count
            yield from self._large_batches(epoch)
            return
        order = np.broadcast_to(np.arange(self._count), (len(self._members), self._count))
        if task.shuffle and self._batch < self._count:
            seeds = task.seeds[self._members]
            order = np.stack([epoch_permutation(int(seed), epoch, self._count) for seed in seeds])
        order = order + rows.starts[self._members, None]
        for begin in range(0, self._count, self._batch):
            chosen = order[:, begin : begin + self._batch]
            weights = np.ones(chosen.shape, task.dtype) if rows.weights is None else rows.weights[chosen]
            yield (
                torch.from_numpy(rows.features[chosen]),
                torch.from_numpy(rows.targets[chosen]),
                torch.from_numpy(weights),
            )

    def _large_batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        task = self._program.task
        members = [LargeRows(task, self._rows, member) for member in self._members.tolist()]
        for batches in zip(*(member.batches(epoch, self._batch) for member in members), strict=True):
            weights = [np.ones(len(b), task.dtype) if b.weights is None else b.weights for b in batches]
            yield (
                torch.from_numpy(np.stack([batch.features for batch in batches])),
                torch.from_numpy(np.stack([batch.targets for batch in batches])),
                torch.from_numpy(np.stack(weights)),
            )

    def _fail(self, reporter: Reporter, epoch: int, error: Exception) -> None:
        """Ends all members, unless memory ran out, which is not the module's fault: each may have enough alone."""
        if is_out_of_memory(error):
            raise error
        _logger.error("module %s failed in training", self._program.task.model, exc_info=error)
        self._end(reporter, self._alive, MemberState.FAILED, epoch, FAILED_MESSAGE.format(epoch))

    def _validate(self, validator: Validator | None, epoch: int) -> tuple[Scores | None, NDArray[np.bool_]]:
        """What members reach after an epoch on their held-out rows [K], where that is due, and who [K] shall leave."""
        leaving = np.zeros(len(self._members), np.bool_)
        if validator is None:
            return None, leaving
        scores = no_scores(len(self._members), len(self._program.task.metrics))
        due = np.flatnonzero(self._alive & validator.due(self._members, np.array(epoch)))
        if len(due):
            flat = self._flat()[due]
            measured, leaving[due] = validator.observe(self._members[due], epoch, flat, self._program.forward)
            scores.put(due, measured)
        return scores, leaving

    def _flat(self) -> Floats:
        return np.concatenate([self._trained, self._fixed], 1)

    def _log(
        self, reporter: Reporter, epoch: int, losses: NDArray[np.float64], rate: float, scores: Scores | None
    ) -> None:
        task = self._program.task
        every, epochs = task.log_every[self._members], task.epochs[self._members]
        wanted = (epoch % every == 0) | (epoch == epochs - 1)
        if reporter.validator is not None:
            wanted |= reporter.validator.due(self._members, np.array(epoch))
        chosen = np.flatnonzero(self._alive & wanted)
        members = self._members[chosen]
        asking = task.log_parameters[members]
        flat = self._flat()[chosen] if asking.any() else None
        snapshots = (
            None if flat is None else [row if ask else None for row, ask in zip(flat, asking, strict=True)]
        )
        rates = np.full(len(chosen), rate)
        scored = None if scores is None else scores.of(chosen)
        reporter.log(members, np.full(len(chosen), epoch), losses[chosen], rates, snapshots, scored)

    def _end(
        self,
        reporter: Reporter,
        which: NDArray[np.bool_],
        state: MemberState,
        epoch: int,
        message: str | None = None,
    ) -> None:
        chosen = np.flatnonzero(which)
        self._alive[chosen] = False
        states, done = np.full(len(chosen), int(state)), np.full(len(chosen), epoch)
        reporter.end(self._members[chosen], states, done, self._flat()[chosen], message)
