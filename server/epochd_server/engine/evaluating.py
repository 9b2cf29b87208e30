"""What members that ended reach on their held-out rows, where the fit itself did not measure it; and reports on runs.

Outputs are those that Predict will give. Legend: M members, n held-out rows of one, o outputs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from epochd_server.domain.specs import CLASSIFICATION_LOSSES, Loss
from epochd_server.domain.validation import Evaluation
from epochd_server.engine.class_weights import class_weighted
from epochd_server.engine.exact.task import ExactTask
from epochd_server.engine.inference import Predictor
from epochd_server.engine.losses import mean_loss
from epochd_server.engine.metrics import evaluate, measure
from epochd_server.engine.modules import ModuleRegistry
from epochd_server.engine.task import (
    CohortData,
    CohortTask,
    EndBatch,
    Floats,
    Integers,
    LogBatch,
    MemberState,
    Observer,
    ProgressBatch,
)


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutRows:
    """The held-out rows of one member, and what a model makes of them."""

    outputs: Floats
    """[n, o]"""
    targets: NDArray[np.generic]
    weights: Floats | None
    """Their own, as metrics take them."""
    places: slice
    """Where they are among those of all members."""


class EvaluatingObserver:
    """Passes on what it is told; members of an exact fit that ended well are measured first.

    Args:
        task: What is fitted.
        held_out: Its held-out rows.
        observer: Who is told.
    """

    def __init__(self, task: ExactTask, held_out: CohortData, observer: Observer) -> None:
        self._task = task
        self._held_out = held_out
        self._loss_weights = class_weighted(task, held_out, np.dtype(np.float64))
        self._observer = observer

    def logs(self, batch: LogBatch) -> None:
        """Passes log points on: nothing is measured of them."""
        self._observer.logs(batch)

    def ended(self, batch: EndBatch) -> None:
        """Measures members, and passes them on."""
        task = self._task
        losses = np.full(len(batch.members), np.nan)
        metrics = np.full((len(batch.members), len(task.metrics)), np.nan)
        for position, rows in _rows_of(task, self._held_out, batch, None):
            weights = None if self._loss_weights is None else self._loss_weights[rows.places]
            losses[position] = loss_of(task.loss, rows, weights)
            metrics[position] = measure(task.metrics, task.loss, rows.outputs, rows.targets, rows.weights)
        self._observer.ended(replace(batch, validation_losses=losses, metrics=metrics))

    def progress(self, batch: ProgressBatch) -> None:
        """Passes on where members are."""
        self._observer.progress(batch)

    def stopped_members(self) -> Collection[int]:
        """As the observer says."""
        return self._observer.stopped_members()


def reports(
    task: CohortTask | ExactTask, batch: EndBatch, modules: ModuleRegistry | None
) -> tuple[Evaluation, ...]:
    """All that is to be known of members that ended, one by one.

    Args:
        task: What was trained.
        batch: The ends; of members that did not finish the reports hold NaN.
        modules: Where a registered module is found.
    """
    held_out = task.validation
    if held_out is None:
        return ()
    sizes = np.diff(held_out.offsets)[batch.members].tolist()
    found = [
        Evaluation(
            rows=rows,
            loss=loss,
            metrics=tuple(zip(task.metrics, values, strict=True)),
            best_epoch=None if epoch < 0 else epoch,
        )
        for rows, loss, values, epoch in zip(
            sizes,
            batch.validation_losses.tolist(),
            batch.metrics.tolist(),
            batch.best_epochs.tolist(),
            strict=True,
        )
    ]
    if task.loss.kind in CLASSIFICATION_LOSSES:
        for position, rows in _rows_of(task, held_out, batch, modules):
            report = evaluate((), task.loss, 0.0, rows.outputs, rows.targets, rows.weights)
            found[position] = replace(
                found[position],
                classes=report.classes,
                confusion=report.confusion,
                calibration=report.calibration,
            )
    return tuple(found)


def loss_of(loss: Loss, rows: HeldOutRows, weights: Floats | None) -> float:
    """The mean loss by ``weights`` [n], in float64; NaN where there are no rows or none has any weight."""
    if not len(rows.outputs):
        return float("nan")
    targets = torch.from_numpy(np.array(rows.targets))
    if targets.is_floating_point():
        targets = targets.double()
    weighing = None if weights is None else torch.from_numpy(weights.astype(np.float64))
    return float(mean_loss(loss, torch.from_numpy(rows.outputs.astype(np.float64)), targets, weighing))


def _rows_of(
    task: CohortTask | ExactTask, held_out: CohortData, batch: EndBatch, modules: ModuleRegistry | None
) -> Iterator[tuple[int, HeldOutRows]]:
    """Positions of the members that finished, and their rows."""
    finished = np.flatnonzero(batch.states == MemberState.FINISHED)
    if not len(finished):
        return
    predictor = Predictor(task.model, batch.parameters, modules=modules)
    targets = held_out.targets
    if targets.ndim == 1 and targets.dtype.kind == "f":
        targets = targets[:, None]
    for position in finished.tolist():
        member = int(batch.members[position])
        rows = slice(int(held_out.offsets[member]), int(held_out.offsets[member + 1]))
        features = held_out.features[rows]
        places: Integers = np.full(len(features), position)
        weights = None if held_out.weights is None else held_out.weights[rows]
        yield position, HeldOutRows(predictor.predict(features, places), targets[rows], weights, rows)
