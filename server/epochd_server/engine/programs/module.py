"""Registered modules: any ``nn.Module``, called as it is, differentiated by PyTorch.

Members of one row count run as one ``vmap`` over ``functional_call``, always at least two: with a stack of one,
PyTorch takes other kernels, and the bits of a lone member would differ from those it has in company. A module that
cannot be vmapped (it looks at values, draws random numbers), or that has buffers or hooks, trains member by member
instead; that is decided by the module alone. Either way the module's ``__call__`` runs, hooks included.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from epochd_server.engine.allocation import is_out_of_memory
from epochd_server.engine.chain import Slot
from epochd_server.engine.checkpointing import Columns
from epochd_server.engine.programs import epoch_progress
from epochd_server.engine.programs.epoch_progress import EpochProgress, batches_made
from epochd_server.engine.programs.module_gradient import ModuleProgram
from epochd_server.engine.reporting import Reporter
from epochd_server.engine.row_optimizer import RowOptimizer
from epochd_server.engine.rows import Rows
from epochd_server.engine.shuffling import derived_seed, epoch_permutation
from epochd_server.engine.task import CohortTask, Floats, Integers, MemberState
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
        program = ModuleProgram(task, module, slots)
        together = program.can_be_vmapped(rows)
        begun = reporter.begun, batches_made(task)
        for members in _blocks(rows, begun, MOST_MEMBERS if together else 1):
            block_program = program if together else program.alone()
            _Block(block_program, rows, members, start[members], together).run(reporter)


def _blocks(rows: Rows, begun: tuple[Integers, Integers], most: int) -> Iterator[Integers]:
    """Members of one row count that begin with one batch of one epoch, ``most`` at a time."""
    keys = np.stack([rows.counts, *begun])
    order = np.lexsort(keys[::-1])
    differs = (np.diff(keys[:, order]) != 0).any(0)
    for same in np.split(order, np.flatnonzero(differs) + 1):
        for begin in range(0, len(same), most):
            yield same[begin : begin + most]


class _ModuleRaisedError(Exception):
    """The module raised an error, which is the cause of this one."""


@contextmanager
def _calling_the_module() -> Iterator[None]:
    """Tells the errors of a module from those of whoever is told of it."""
    try:
        yield
    except Exception as error:
        raise _ModuleRaisedError from error


class _Block:
    """Members of one row count on their way through all their epochs."""

    def __init__(
        self, program: ModuleProgram, rows: Rows, members: Integers, start: Floats, together: bool
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
        gathered = program.trained if task.accumulation_steps > 1 else 0
        self._progress = EpochProgress(len(members), gathered, task.dtype)
        self._pending = np.zeros(len(members), np.bool_)
        self._draws = torch.get_rng_state()

    def run(self, reporter: Reporter) -> None:
        """Trains to the end of the last member."""
        epoch = reporter.resume(self._members, self._columns)
        if not self._together:
            torch.set_rng_state(self._draws)
        try:
            while self._alive.any():
                self._train_epoch(epoch, reporter)
                epoch += 1
        except _ModuleRaisedError as error:
            self._fail(reporter, epoch, error.__cause__)

    def _train_epoch(self, epoch: int, reporter: Reporter) -> None:
        """Makes what is missing of an epoch, and tells of it; all members may leave before its end."""
        began, rows = reporter.clock(), max(self._count - self._progress.batches * self._batch, 0)
        if not self._make_batches_unless_stopped(epoch, reporter):
            return
        losses = self._progress.end()
        healthy = np.isfinite(losses) & np.isfinite(self._trained).all(1)
        self._end(reporter, self._alive & ~healthy, MemberState.DIVERGED, epoch)
        rate = rows / max(reporter.clock() - began, 1e-9)
        scores, leaving = self._validate(reporter.validator, epoch)
        self._log(reporter, epoch, losses, rate, scores)
        reporter.rates.learn(self._members, epoch, watched_losses(losses, scores))
        leaving |= self._program.task.epochs[self._members] == epoch + 1
        self._end(reporter, self._alive & leaving, MemberState.FINISHED, epoch + 1)
        reporter.flush_if_due()
        self._save_if_due(reporter, epoch + 1)

    def _make_batches_unless_stopped(self, epoch: int, reporter: Reporter) -> bool:
        """Whether anybody is left after them; within the epoch it is looked who shall stop, and members are saved."""
        self._optimizer.set_rates(reporter.rates.at(self._members, np.full(len(self._members), epoch)))
        if not self._go_on(reporter, epoch):
            return False
        look_at = reporter.clock() + epoch_progress.LOOK_SECONDS
        for _ in self._make_batches(epoch):
            if reporter.clock() < look_at:
                continue
            if not self._go_on(reporter, epoch):
                return False
            self._save_if_due(reporter, epoch)
            look_at = reporter.clock() + epoch_progress.LOOK_SECONDS
        return True

    @property
    def _columns(self) -> Columns:
        """What changes from batch to batch, [M, …] each; a call may write to what is not trained."""
        columns = {
            "trained": self._trained,
            "fixed": self._fixed,
            "pending": self._pending,
            **self._optimizer.columns,
            **self._progress.columns,
        }
        if self._together:
            return columns
        self._draws.copy_(torch.get_rng_state())
        return {**columns, **self._program.counters, "draws": self._draws.numpy()[None]}

    def _go_on(self, reporter: Reporter, epoch: int) -> bool:
        """Saves and ends the members that the observer wants stopped; whether there are others."""
        stopping = self._alive & np.isin(self._members, list(reporter.stopped()))
        places = np.flatnonzero(stopping)
        if len(places):
            reporter.checkpoint(self._members[places], self._columns, places, epoch)
            self._end(reporter, stopping, MemberState.STOPPED, epoch)
        return bool(self._alive.any())

    def _save_if_due(self, reporter: Reporter, epoch: int) -> None:
        places = np.flatnonzero(self._alive)
        reporter.checkpoint_if_due(self._members[places], self._columns, places, epoch)

    def _make_batches(self, epoch: int) -> Iterator[None]:
        """Makes the batches that are missing of an epoch; after each of them members can be saved."""
        if (
            not self._together and self._progress.batches == 0
        ):  # dropout and its kin draw from the global generator
            seed = int(self._program.task.seeds[self._members[0]])
            torch.manual_seed(derived_seed(seed, "module", epoch) >> 1)
        steps, first = self._program.task.accumulation_steps, self._progress.batches
        total = self._progress.gathered if steps > 1 else np.zeros_like(self._trained)
        batches = math.ceil(self._count / self._batch)
        for number, (features, targets, weights) in enumerate(self._batches(epoch, first), first):
            gathered = number % steps
            if gathered == 0:
                total[:], self._pending[:] = 0, False
            group = min(steps, batches - (number - gathered))
            gradients, losses = self._gradient(features, targets, weights)
            weight = weights.sum(1).numpy().astype(np.float64)
            some = weight > 0
            self._pending |= some
            total[some] += gradients[some] / total.dtype.type(group)
            if gathered + 1 == group:
                self._optimizer.step(self._trained, total, self._alive & self._pending)
            self._progress.add(np.where(some, losses * weight, 0.0), weight)
            yield

    def _gradient(
        self, features: Tensor, targets: Tensor, weights: Tensor
    ) -> tuple[Floats, NDArray[np.float64]]:
        trained, fixed = torch.from_numpy(self._trained), torch.from_numpy(self._fixed)
        with _calling_the_module():
            gradients, losses = self._program.gradient(
                trained, fixed, features, targets, weights, self._together
            )
        return gradients.numpy(), losses.numpy().astype(np.float64)

    def _batches(self, epoch: int, first: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The batches of an epoch from the ``first`` on."""
        rows, task = self._rows, self._program.task
        if rows.large[self._members[0]]:  # as all of them then: they have one row count
            yield from self._large_batches(epoch, first)
            return
        order = np.broadcast_to(np.arange(self._count), (len(self._members), self._count))
        if task.shuffle and self._batch < self._count:
            seeds = task.seeds[self._members]
            order = np.stack([epoch_permutation(int(seed), epoch, self._count) for seed in seeds])
        order = order + rows.starts[self._members, None]
        for begin in range(first * self._batch, self._count, self._batch):
            chosen = order[:, begin : begin + self._batch]
            weights = np.ones(chosen.shape, task.dtype) if rows.weights is None else rows.weights[chosen]
            yield (
                torch.from_numpy(rows.features[chosen]),
                torch.from_numpy(rows.targets[chosen]),
                torch.from_numpy(weights),
            )

    def _large_batches(self, epoch: int, first: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        task = self._program.task
        members = [LargeRows(task, self._rows, member) for member in self._members.tolist()]
        for batches in zip(*(member.batches(epoch, self._batch, first) for member in members), strict=True):
            weights = [np.ones(len(b), task.dtype) if b.weights is None else b.weights for b in batches]
            yield (
                torch.from_numpy(np.stack([batch.features for batch in batches])),
                torch.from_numpy(np.stack([batch.targets for batch in batches])),
                torch.from_numpy(np.stack(weights)),
            )

    def _fail(self, reporter: Reporter, epoch: int, error: BaseException | None) -> None:
        """Ends all members, unless memory ran out, which is not the module's fault: each may have enough alone."""
        if error is not None and is_out_of_memory(error):
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
            with _calling_the_module():
                measured, leaving[due] = validator.observe(
                    self._members[due], epoch, flat, self._program.forward
                )
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
