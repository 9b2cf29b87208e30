"""A real store, a planner over pickled plans, and an executor inside the loop whose every step a test decides."""

from __future__ import annotations

import asyncio
import hashlib
import math
import pickle
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from epochd_server.domain.data import TrainingArrays
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.fleets import Groups, Keys, Members
from epochd_server.domain.models import ModelVersion
from epochd_server.domain.once import AskedOnce
from epochd_server.domain.resources import VersionReference
from epochd_server.domain.runs import EpochLog, Event, Failure, Parameters, Started
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
from epochd_server.domain.stopping import RunLimits
from epochd_server.domain.work import (
    CohortWork,
    RunBegan,
    RunFailed,
    RunLogged,
    RunStopped,
    RunTrained,
    WorkerDied,
    WorkMessage,
)
from epochd_server.runs.clock import SteadyClock
from epochd_server.runs.ports import Plan, RunWrite
from epochd_server.runs.service import RunService
from epochd_server.runs.settings import RunSettings
from epochd_server.storage import Answers, Database, ModelChanges, SqlCheckpoints, SqlClaims, SqlRunStore
from epochd_server.storage.local_artifacts import LocalArtifacts


def tutorial_spec(**changes: object) -> TrainingSpec:
    """The three-point tutorial; ``epochs``, ``lr``, ``seed``, ``every`` and ``parameters`` may be changed."""
    return TrainingSpec(
        model=LinearModel(in_features=1, out_features=1),
        loss=Loss(kind=LossKind.MSE),
        fit=GradientFit(
            optimizer=Optimizer(kind=OptimizerKind.SGD, lr=changes.get("lr", 0.01)),
            epochs=changes.get("epochs", 20),
        ),
        init=Init.DEFAULT,
        precision=Precision.FLOAT32,
        seed=changes.get("seed", 1),
        logging=Logging(every=changes.get("every", 5), parameters=changes.get("parameters", False)),
    )


def tutorial_rows() -> TrainingArrays:
    return TrainingArrays(
        features=np.array([[1], [2], [3]], np.float32),
        targets=np.array([[2], [4], [6]], np.float32),
        feature_columns=("x0",),
        target_columns=("y",),
    )


def fleet_rows(members: int = 60) -> TrainingArrays:
    """Two features; member k has 1 + k % 20 rows and the key (k,); members 7 and 8 are no good."""
    generator = np.random.default_rng(members)
    sizes = 1 + np.arange(members) % 20
    features = generator.normal(size=(int(sizes.sum()), 2)).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    features[offsets[8]] = 1e18
    return TrainingArrays(
        features=features,
        targets=features @ np.array([[1], [2]], np.float32),
        feature_columns=("x0", "x1"),
        target_columns=("y",),
        groups=Groups(
            keys=Keys(("store",), (np.arange(members),)), offsets=offsets, unfit={7: "TARGET_NOT_FINITE"}
        ),
    )


def asked_of(request_id: str, request: bytes) -> AskedOnce:
    """A request as it is remembered."""
    return AskedOnce(
        request_id=request_id,
        message="epochd.v1.TrainRequest",
        fingerprint=hashlib.sha256(request).digest(),
        fields=b"",
    )


def plan_of(request_id: str | None = None, model: str | None = "line", **changes: object) -> Plan:
    request = pickle.dumps((model, changes))
    spec, data = tutorial_spec(**changes), tutorial_rows()
    groups = None
    if "members" in changes:
        data = fleet_rows(changes["members"])
        groups = data.groups
        spec = replace(spec, model=LinearModel(in_features=2, out_features=1), key_columns=groups.keys.names)
        spec = replace(spec, logging=replace(spec.logging, members=((0,), (20,))))
    started = Started(
        spec=spec,
        parameters=2,
        rows=data.rows,
        feature_columns=data.feature_columns,
        target_columns=data.target_columns,
        classes=None,
        device="cpu",
        members=0 if groups is None else len(groups.keys),
        key_columns=spec.key_columns,
    )
    return Plan(
        request=request,
        asked=None if request_id is None else asked_of(request_id, request),
        model=model,
        fingerprint=hashlib.sha256(request).digest(),
        spec=spec,
        data=data,
        dataset=None,
        started=started,
        steps=spec.fit.epochs,
        memory_bytes=data.nbytes,
        limits=changes.get("limits", RunLimits()),
    )


class PicklePlanner:
    """Plans the requests that :func:`plan_of` made."""

    def __init__(self) -> None:
        self.replanned = 0
        self.refusal: EpochdError | None = None

    async def replan(self, request: bytes) -> Plan:
        self.replanned += 1
        if self.refusal is not None:
            raise self.refusal
        model, changes = pickle.loads(request)
        return plan_of(model=model, **changes)


@dataclass
class StepExecutor:
    """Trains inside the loop by a formula. Cohorts wait for ``go`` before they begin and before they end.

    Seeds in ``deadly`` kill the worker at the epoch of the same number.
    """

    slots: int = 1
    begin: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    cohorts: list[list[str]] = field(default_factory=list)
    works: list[CohortWork] = field(default_factory=list)
    stops: set[str] = field(default_factory=set)
    deadly: dict[int, int] = field(default_factory=dict)
    error: Exception | None = None
    closed: bool = False
    launched: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, cohorts: int) -> None:
        """Returns once so many cohorts were started."""
        async with asyncio.timeout(5):
            while len(self.cohorts) < cohorts:
                self.launched.clear()
                await self.launched.wait()

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        self.closed = True
        self.stops.clear()

    def stop_runs(self, run_ids: Sequence[str]) -> None:
        self.stops.update(run_ids)

    async def run(self, work: CohortWork) -> AsyncGenerator[Sequence[WorkMessage], None]:
        self.works.append(work)
        self.cohorts.append([run.run_id for run in work.runs])
        self.launched.set()
        await self.begin.wait()
        yield [RunBegan(run_id=run.run_id, device="cpu") for run in work.runs]
        for run in work.runs:
            for epoch in range(run.spec.fit.epochs):
                if run.run_id in self.stops:
                    break
                if self.deadly.get(run.spec.seed) == epoch:
                    raise WorkerDied("was killed by SIGKILL")
                if epoch % run.spec.logging.every == 0:
                    yield [RunLogged(run_id=run.run_id, logs=(formula(run.spec.seed, epoch),))]
        await self.go.wait()
        if self.error is not None:
            raise self.error
        for run in work.runs:
            yield [self._end(run.run_id, run.spec)]

    def _end(self, run_id: str, spec: TrainingSpec) -> WorkMessage:
        if run_id in self.stops:
            return RunStopped(run_id=run_id, epochs=7)
        if spec.fit.optimizer.lr > 1e3:
            return RunFailed(run_id=run_id, failure=Failure(reason="LOSS_NOT_FINITE", message="", epoch=3))
        weight = np.full((1, 1), math.sin(spec.seed), np.float32)
        return RunTrained(
            run_id=run_id,
            parameters={"linear.weight": weight, "linear.bias": weight[0]},
            epochs=spec.fit.epochs,
            final_loss=formula(spec.seed, spec.fit.epochs - 1).loss,
            training_seconds=0.5,
        )


def formula(seed: int, epoch: int) -> EpochLog:
    return EpochLog(epoch=epoch, loss=math.cos(seed * 1_000 + epoch) + 2.0, lr=0.01)


class FlakyStore(SqlRunStore):
    """A store that does not answer ``failures`` times; half of the writes that fail are made all the same."""

    failures = 0
    broken: str | None = None
    """A run whose log cannot be written, for a reason that no retry helps."""

    async def record(self, writes: Sequence[RunWrite]) -> list[Event | Exception | None]:
        good = [write for write in writes if write.run_id != self.broken]
        if self.failures:
            self.failures -= 1
            if self.failures % 2:
                await super().record(good)
            raise EpochdError(Reason.STORAGE_UNAVAILABLE)
        results = iter(await super().record(good))
        return [RuntimeError("a bug") if write.run_id == self.broken else next(results) for write in writes]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'runs.db'}")
    yield database
    database.close()


@pytest.fixture
def store(database: Database, tmp_path: Path) -> FlakyStore:
    return FlakyStore(
        database, LocalArtifacts(tmp_path / "artifacts"), ModelChanges(), Answers(database, 86_400.0)
    )


@pytest.fixture
def claims(database: Database) -> SqlClaims:
    return SqlClaims(database, ModelChanges(), Answers(database, 86_400.0))


@pytest.fixture
def checkpoints(database: Database, tmp_path: Path) -> SqlCheckpoints:
    return SqlCheckpoints(database, LocalArtifacts(tmp_path / "artifacts"))


@pytest.fixture
def planner() -> PicklePlanner:
    return PicklePlanner()


@pytest.fixture
async def executor() -> StepExecutor:
    """One slot; cohorts begin and end by themselves unless a test clears ``begin`` or ``go``."""
    executor = StepExecutor()
    executor.begin.set()
    executor.go.set()
    return executor


@pytest.fixture
def plan() -> Callable[..., Plan]:
    return plan_of


@pytest.fixture
def started_of() -> Callable[..., Started]:
    def started(rows: int = 3, **changes: object) -> Started:
        return replace(plan_of(**changes).started, rows=rows)

    return started


class NoVersions:
    """A registry without versions."""

    async def get_version(self, reference: VersionReference) -> ModelVersion:
        raise EpochdError(Reason.MODEL_NOT_FOUND)

    async def load_parameters(self, model: str, version: int) -> Parameters:
        raise EpochdError(Reason.MODEL_NOT_FOUND)

    async def load_members(self, model: str, version: int) -> Members:
        raise EpochdError(Reason.MODEL_NOT_FOUND)


ServiceFactory = Callable[..., Awaitable[RunService]]


@pytest.fixture
async def make_service(
    store: FlakyStore,
    claims: SqlClaims,
    checkpoints: SqlCheckpoints,
    planner: PicklePlanner,
    executor: StepExecutor,
) -> AsyncIterator[ServiceFactory]:
    """Starts services on the same store, and closes those that a test left open."""
    services: list[RunService] = []

    async def make(used: object = None, clock: SteadyClock | None = None, **settings: object) -> RunService:
        bounds = RunSettings(**settings)
        service = RunService(
            store, planner, used or executor, bounds, NoVersions(), claims, checkpoints, clock
        )
        services.append(service)
        await service.start()
        return service

    yield make
    for service in services:
        await service.close()


@pytest.fixture
async def service(make_service: ServiceFactory) -> RunService:
    return await make_service()


@pytest.fixture
def watch_all() -> Callable[..., Awaitable[list[Event]]]:
    """Collects a run's events to its end."""

    async def collect(service: RunService, run_id: str, after: int = 0) -> list[Event]:
        return [event async for page in service.watch(run_id, after) for event in page]

    return collect
