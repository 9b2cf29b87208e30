"""Work for real worker processes, and executors that are closed after their test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import numpy as np
import pytest

from epochd_server.domain.data import TrainingArrays
from epochd_server.domain.specs import (
    GradientFit,
    Init,
    LinearModel,
    Logging,
    Loss,
    LossKind,
    Optimizer,
    OptimizerKind,
    Precision,
    TrainingSpec,
)
from epochd_server.domain.work import CohortWork, RunLogged, RunWork, WorkMessage
from epochd_server.executor.local import LocalExecutor

SPEC = TrainingSpec(
    model=LinearModel(in_features=1, out_features=1),
    loss=Loss(kind=LossKind.MSE),
    fit=GradientFit(optimizer=Optimizer(kind=OptimizerKind.SGD, lr=0.01), epochs=100),
    init=Init.DEFAULT,
    precision=Precision.FLOAT32,
    seed=1,
    logging=Logging(every=10),
)
FOREVER = 2_000_000_000


def spec_of(**changes: object) -> TrainingSpec:
    """The three-point tutorial with other ``epochs``, ``lr``, ``seed``, ``model``, ``every``, ``parameters``."""
    optimizer = replace(SPEC.fit.optimizer, lr=changes.get("lr", 0.01))
    return replace(
        SPEC,
        model=changes.get("model", SPEC.model),
        fit=replace(SPEC.fit, optimizer=optimizer, epochs=changes.get("epochs", 100)),
        seed=changes.get("seed", 1),
        logging=Logging(every=changes.get("every", 10), parameters=changes.get("parameters", False)),
    )


def rows_of(scale: float = 1.0) -> TrainingArrays:
    return TrainingArrays(
        features=np.array([[1], [2], [3]], np.float32),
        targets=np.array([[2], [4], [6]], np.float32) * np.float32(scale),
        feature_columns=("x0",),
        target_columns=("y",),
    )


@pytest.fixture
def run_work() -> Callable[..., RunWork]:
    def make(run_id: str = "run", data: TrainingArrays | None = None, **changes: object) -> RunWork:
        return RunWork(run_id=run_id, spec=spec_of(**changes), data=data or rows_of())

    return make


@pytest.fixture
def forever(run_work: Callable[..., RunWork]) -> Callable[..., RunWork]:
    """A run that would take hours, and logs its first epoch at once."""

    def make(run_id: str = "forever", **changes: object) -> RunWork:
        return run_work(run_id, epochs=FOREVER, every=FOREVER, **changes)

    return make


@pytest.fixture
def cohort() -> Callable[..., CohortWork]:
    def make(*runs: RunWork) -> CohortWork:
        return CohortWork(cohort_id="cohort", runs=runs)

    return make


@pytest.fixture
async def make_executor() -> AsyncIterator[Callable[..., Awaitable[LocalExecutor]]]:
    executors: list[LocalExecutor] = []

    async def make(workers: int = 1, **settings: object) -> LocalExecutor:
        executor = LocalExecutor(workers, **settings)
        executors.append(executor)
        await executor.start()
        return executor

    yield make
    await asyncio.gather(*(executor.close() for executor in executors))


@pytest.fixture
async def executor(make_executor: Callable[..., Awaitable[LocalExecutor]]) -> LocalExecutor:
    """One worker."""
    return await make_executor()


@pytest.fixture
def train() -> Callable[..., Awaitable[list[WorkMessage]]]:
    """Runs a cohort to its end; calls ``on`` with every message as it comes."""

    async def run(
        executor: LocalExecutor, work: CohortWork, on: Callable[[WorkMessage], None] = lambda message: None
    ) -> list[WorkMessage]:
        messages: list[WorkMessage] = []
        async for delivery in executor.run(work):
            for message in delivery:
                on(message)
                messages.append(message)
        return messages

    return run


@pytest.fixture
def logs_of() -> Callable[..., list[tuple[int, float]]]:
    """Epochs and losses of a run."""

    def collect(messages: list[WorkMessage], run_id: str) -> list[tuple[int, float]]:
        return [
            (log.epoch, log.loss)
            for message in messages
            if isinstance(message, RunLogged) and message.run_id == run_id
            for log in message.logs
        ]

    return collect
