"""Held-out rows: what members' losses and metrics are on them, and when a training no longer gets better.

Everything is measured of the parameters *after* an epoch's update. Members meet here only as places in arrays: what
is measured of one, and when it stops, depends on its own parameters and rows alone.
Legend: K members of the cohort, M of those in question, n held-out rows of these, o outputs, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.schedules import ReduceLROnPlateau
from epochd_server.domain.validation import EarlyStopping, Metric
from epochd_server.engine.chain import Chain
from epochd_server.engine.checkpointing import Columns
from epochd_server.engine.held_out_kernel import held_out_losses
from epochd_server.engine.inference import predict_rows
from epochd_server.engine.metrics import measure_members
from epochd_server.engine.programs import lane_losses
from epochd_server.engine.programs.lane_layers import WIDTH_OUT, network_of
from epochd_server.engine.rows import Rows, rows_of
from epochd_server.engine.task import CohortData, CohortTask, Floats, Integers

GROUP_ROWS = 1 << 15
"""Rows that are evaluated at once, about: members are taken together up to this many."""

Forward = Callable[[Floats, Floats, Integers], Floats]
"""(parameters [M, P], rows [n, d], the row's place among the M members [n], ascending) → outputs [n, o]."""


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What members reach on their held-out rows."""

    losses: NDArray[np.float64]
    """[M]; NaN where a member has no held-out rows."""
    metrics: NDArray[np.float64]
    """[M, metrics] in the order of the task."""

    def of(self, positions: Integers) -> Scores:
        """Those of some members."""
        return Scores(self.losses[positions], self.metrics[positions])

    def put(self, positions: Integers, scores: Scores) -> None:
        """Replaces those of some members."""
        self.losses[positions] = scores.losses
        self.metrics[positions] = scores.metrics


def no_scores(members: int, metrics: int) -> Scores:
    """Scores of members that have none."""
    return Scores(np.full(members, np.nan), np.full((members, metrics), np.nan))


def watched_losses(losses: NDArray[np.float64], scores: Scores | None) -> NDArray[np.float64]:
    """What a learning rate follows: members' losses on held-out rows, where they have any, else in training [M]."""
    if scores is None:
        return losses
    return np.where(np.isnan(scores.losses), losses, scores.losses)


def joined(pieces: Sequence[Scores]) -> Scores:
    """Scores one after the other; there is at least one piece."""
    return Scores(
        np.concatenate([piece.losses for piece in pieces]),
        np.concatenate([piece.metrics for piece in pieces]),
    )


class Validator:
    """Measures the members of a task as they go along, and remembers the best that each has reached.

    Args:
        task: Has a ``validation``.
        data: It.
        size: P.
    """

    def __init__(self, task: CohortTask, data: CohortData, size: int) -> None:
        self._task = task
        self._rows = rows_of(task, data)
        self._row_weights = data.weights  # the loss has weights of classes too, metrics have not
        self._rule = task.early_stopping
        self._follows = isinstance(task.schedule, ReduceLROnPlateau)
        self._metrics, self._watched = _measured(task.metrics, self._rule)
        self._targets, self._weights = _kernel_rows(self._rows, task.dtype)
        keeps = self._rule is not None and self._rule.restore_best
        members = task.members
        self._best = np.full(members, np.nan)
        self._waited = np.zeros(members, np.int64)
        self._best_epochs = np.full(members, -1, np.int64)
        self._best_flat = np.zeros((members if keeps else 0, size), task.dtype)
        self._best_scores = no_scores(members, len(task.metrics))

    @property
    def columns(self) -> Columns:
        """What is remembered from epoch to epoch, [K, …] each."""
        if self._rule is None:
            return {}
        kept = {"best.parameters": self._best_flat} if len(self._best_flat) else {}
        return kept | {
            "best.value": self._best,
            "best.epoch": self._best_epochs,
            "best.loss": self._best_scores.losses,
            "best.metrics": self._best_scores.metrics,
            "best.waited": self._waited,
        }

    def due(self, members: Integers, epochs: Integers) -> NDArray[np.bool_]:
        """Whether members are measured after these epochs: logged ones, those of early stopping, the last.

        All of them, where learning rates follow the loss.

        Args:
            members: [M]
            epochs: [M], or of any shape that broadcasts with it.
        """
        every = 1 if self._follows else self._task.log_every[members]
        logged: NDArray[np.bool_] = epochs % every == 0
        return logged | self._decides(members, epochs)

    def epochs_until_due(self, members: Integers, epoch: int) -> int:
        """How many epochs can be made, the next being ``epoch``, until the first of the members is to be measured."""
        if self._follows:
            return 1
        every = self._task.log_every[members]
        if self._rule is not None:
            every = np.append(every, self._rule.every)
        distance = min(int((-epoch % every).min()), int(self._task.epochs[members].min()) - 1 - epoch)
        return distance + 1

    def observe(
        self, members: Integers, epoch: int, flat: Floats, forward: Forward
    ) -> tuple[Scores, NDArray[np.bool_]]:
        """Measures members after an epoch in which they are due.

        Args:
            members: [M]
            epoch: Which epoch that was.
            flat: [M, P] their parameters now, in the task's precision.
            forward: Their network.

        Returns:
            What they reach, and which of them [M] have waited long enough for something better.
        """
        scores = self._measure(members, flat, forward)
        stopping = np.zeros(len(members), np.bool_)
        if self._rule is not None:
            stopping = self._watch(self._rule, members, epoch, flat, scores)
        return Scores(scores.losses, scores.metrics[:, : len(self._task.metrics)]), stopping

    def restored(self, members: Integers) -> NDArray[np.bool_]:
        """Which members [M] shall end with the parameters of their best evaluation."""
        if not len(self._best_flat):
            return np.zeros(len(members), np.bool_)
        found: NDArray[np.bool_] = self._best_epochs[members] >= 0
        return found

    def best(self, members: Integers) -> tuple[Integers, Floats, Scores]:
        """The best evaluation of members that are ``restored``: its epoch [M], parameters [M, P] and scores."""
        return self._best_epochs[members], self._best_flat[members], self._best_scores.of(members)

    def _decides(self, members: Integers, epochs: Integers) -> NDArray[np.bool_]:
        decides: NDArray[np.bool_] = epochs == self._task.epochs[members] - 1
        if self._rule is not None:
            decides = decides | (epochs % self._rule.every == 0)
        return decides

    def _measure(self, members: Integers, flat: Floats, forward: Forward) -> Scores:
        scores = no_scores(len(members), len(self._metrics))
        for group in self._groups(members):
            scores.losses[group], scores.metrics[group] = self._measure_group(
                members[group], flat[group], forward
            )
        return scores

    def _groups(self, members: Integers) -> Iterator[slice]:
        """Runs of members with few enough rows together."""
        ends = np.cumsum(self._rows.counts[members])
        begin = 0
        while begin < len(members):
            before = ends[begin - 1] if begin else 0
            end = max(int(np.searchsorted(ends, before + GROUP_ROWS, "right")), begin + 1)
            yield slice(begin, end)
            begin = end

    def _measure_group(
        self, members: Integers, flat: Floats, forward: Forward
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        rows, loss = self._rows, self._task.loss
        counts = rows.counts[members]
        ends = np.cumsum(counts)
        places = np.repeat(np.arange(len(members)), counts)
        sources = np.arange(len(places)) + np.repeat(rows.starts[members] - (ends - counts), counts)
        outputs = forward(flat, rows.features[sources], places)
        losses = np.empty(len(members))
        held_out_losses(
            lane_losses.CODES[loss.kind],
            lane_losses.parameter_of(loss),
            outputs,
            self._targets,
            sources,
            self._weights,
            counts,
            losses,
        )
        if not self._metrics:
            return losses, np.empty((len(members), 0))
        weights = None if self._row_weights is None else self._row_weights[sources]
        return losses, measure_members(self._metrics, loss, outputs, rows.targets[sources], weights, counts)

    def _watch(
        self, rule: EarlyStopping, members: Integers, epoch: int, flat: Floats, scores: Scores
    ) -> NDArray[np.bool_]:
        """Notes improvements, and says which members [M] have gone without one for too long."""
        values = scores.losses if self._watched is None else scores.metrics[:, self._watched]
        falling = values if rule.metric is None or not rule.metric.greater_is_better else -values
        decides = self._decides(members, np.full(len(members), epoch))
        first = np.isnan(self._best[members]) & ~np.isnan(falling)
        better = decides & (first | (falling < self._best[members] - rule.min_delta))
        self._waited[members] = np.where(better, 0, self._waited[members] + (decides & ~np.isnan(falling)))
        leading = members[better]
        self._best[leading] = falling[better]
        self._best_epochs[leading] = epoch
        self._best_scores.losses[leading] = scores.losses[better]
        self._best_scores.metrics[leading] = scores.metrics[better, : len(self._task.metrics)]
        if len(self._best_flat):
            self._best_flat[leading] = flat[better]
        stopping: NDArray[np.bool_] = decides & (self._waited[members] >= rule.patience)
        return stopping


def _measured(asked: tuple[Metric, ...], rule: EarlyStopping | None) -> tuple[tuple[Metric, ...], int | None]:
    """The metrics to compute, those asked for first, and which of them early stopping watches (None: the loss)."""
    if rule is None or rule.metric is None:
        return asked, None
    metrics = asked if rule.metric in asked else (*asked, rule.metric)
    return metrics, metrics.index(rule.metric)


def _kernel_rows(rows: Rows, dtype: np.dtype[np.floating]) -> tuple[Floats, Floats]:
    """Targets [N, t] and weights [N or 0] as compiled kernels take them."""
    targets = rows.targets[:, None] if rows.classes else rows.targets
    weights = np.empty(0, dtype) if rows.weights is None else rows.weights
    return np.ascontiguousarray(targets, dtype), weights


def chain_forward(chain: Chain) -> Forward:
    """The outputs of a network, row by row and every sum in one fixed order, as :class:`Predictor` computes them."""
    tables = network_of(chain)
    widest = max(chain.in_features, int(tables.steps[:, WIDTH_OUT].max()))

    def forward(flat: Floats, rows: Floats, places: Integers) -> Floats:
        outputs = np.empty((len(rows), chain.out_features), rows.dtype)
        room = np.empty((2, widest), rows.dtype)
        predict_rows(tables.steps, tables.arguments, flat, places, rows, outputs, room)
        return outputs

    return forward
