"""Exact fits run as the workers run them, and what became of every member in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from epochd_server.domain.exact_fits import ExactFit
from epochd_server.domain.specs import Init, LinearModel, Loss, LossKind, Precision, SequentialModel
from epochd_server.engine.exact.task import ExactTask
from epochd_server.engine.fitting import fit_members
from epochd_server.engine.task import CohortData, EndBatch, LogBatch, ProgressBatch

Doubles = NDArray[np.float64]


@dataclass
class Watcher:
    """An observer that keeps everything; ``stop`` names members that shall stop once ``after`` logs were seen."""

    stop: Collection[int] = ()
    after: int = 0
    logged: list[LogBatch] = field(default_factory=list)
    ends: list[EndBatch] = field(default_factory=list)
    places: list[ProgressBatch] = field(default_factory=list)

    def logs(self, batch: LogBatch) -> None:
        self.logged.append(batch)

    def ended(self, batch: EndBatch) -> None:
        self.ends.append(batch)

    def progress(self, batch: ProgressBatch) -> None:
        self.places.append(batch)

    def stopped_members(self) -> Collection[int]:
        return self.stop if len(self.logged) >= self.after else ()


@dataclass
class Fitted:
    """The result of members, in their order."""

    states: NDArray[np.int64]
    epochs: NDArray[np.int64]
    losses: Doubles
    parameters: dict[str, NDArray[np.floating]]
    statistics: dict[str, Doubles]
    logs: list[LogBatch]

    @property
    def weight(self) -> NDArray[np.floating]:
        return self.parameters["linear.weight"]

    @property
    def bias(self) -> NDArray[np.floating]:
        return self.parameters["linear.bias"]


def _fitted(watcher: Watcher) -> Fitted:
    order = np.argsort(np.concatenate([end.members for end in watcher.ends]))

    def joined(name: str, of: Callable[[EndBatch], Any]) -> Any:
        return np.concatenate([of(end) for end in watcher.ends])[order]

    names, statistics = watcher.ends[0].parameters, watcher.ends[0].statistics
    return Fitted(
        states=joined("states", lambda end: end.states),
        epochs=joined("epochs", lambda end: end.epochs_done),
        losses=joined("losses", lambda end: end.final_losses),
        parameters={name: joined(name, lambda end, name=name: end.parameters[name]) for name in names},
        statistics={name: joined(name, lambda end, name=name: end.statistics[name]) for name in statistics},
        logs=watcher.logged,
    )


@pytest.fixture(scope="session")
def fit() -> Callable[..., Fitted]:
    """Fits one model, or one for each of ``offsets``, to features [N, d] and targets."""

    def run(
        features: Doubles,
        targets: NDArray[np.generic],
        how: ExactFit,
        *,
        loss: LossKind | Loss = LossKind.MSE,
        model: LinearModel | SequentialModel | None = None,
        offsets: NDArray[np.int64] | None = None,
        weights: Doubles | None = None,
        bias: bool = True,
        outputs: int = 1,
        precision: Precision = Precision.FLOAT64,
        log_parameters: bool = False,
        watcher: Watcher | None = None,
        seeds: NDArray[np.int64] | None = None,
        clock: Callable[[], float] = time.monotonic,
        **checkpoints: Any,
    ) -> Fitted:
        features = np.asarray(features, np.float64)
        offsets = np.array([0, len(features)]) if offsets is None else offsets
        members = len(offsets) - 1
        task = ExactTask(
            model=model or LinearModel(in_features=features.shape[1], out_features=outputs, bias=bias),
            loss=loss if isinstance(loss, Loss) else Loss(kind=loss),
            fit=how,
            init=Init.DEFAULT,
            precision=precision,
            data=CohortData(features=features, targets=targets, offsets=offsets, weights=weights),
            seeds=np.zeros(members, np.int64) if seeds is None else seeds,
            log_every=np.ones(members, np.int64),
            log_parameters=np.full(members, log_parameters),
            **checkpoints,
        )
        watcher = watcher or Watcher()
        fit_members(task, watcher, clock=clock)
        return _fitted(watcher)

    return run


@pytest.fixture(scope="session")
def watcher() -> type[Watcher]:
    return Watcher


@pytest.fixture(scope="session")
def digits() -> Callable[[Any, Any], float]:
    """Correct significant digits of the worst of some numbers, 16 at most."""

    def count(found: Any, right: Any) -> float:
        worst = 16.0
        for value, certified in zip(np.ravel(found), np.ravel(right), strict=True):
            error = abs(value - certified) / (abs(certified) or 1.0)
            worst = min(worst, -np.log10(error) if error else 16.0)
        return float(worst)

    return count
