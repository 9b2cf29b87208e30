"""Every kind of database, and runs and models to put there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import create_engine, text

from epochd.v1.trainer_pb2 import TrainRequest
from epochd_server.codec.asked import asked
from epochd_server.domain.datasets import DatasetColumn, DatasetFormat, DatasetSummary
from epochd_server.domain.fleets import HeldOut, Keys, Members, MemberState, Sweep
from epochd_server.domain.models import TrainedModel, VersionCard
from epochd_server.domain.once import AskedOnce
from epochd_server.domain.records import FIRST_CLAIM, Append, NewRun, RunWrite, Success
from epochd_server.domain.runs import Event, EventBody, Parameters, Queued, RunState
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
from epochd_server.storage import SqlRunStore, Storage, open_storage
from epochd_server.storage.engines import parse_url
from epochd_server.storage.schema import metadata

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
SPEC = TrainingSpec(
    model=LinearModel(in_features=4, out_features=1),
    loss=Loss(kind=LossKind.MSE),
    fit=GradientFit(optimizer=Optimizer(kind=OptimizerKind.SGD, lr=0.01), epochs=2000),
    init=Init.DEFAULT,
    precision=Precision.FLOAT32,
    seed=7,
    logging=Logging(every=100),
)


@dataclass(slots=True)
class Maker:
    """Makes runs, events and models, each run newer than the one before."""

    made: int = field(default=0)

    def run_id(self) -> str:
        """A ULID larger than all before."""
        self.made += 1
        digits, rest = "", self.made
        for _ in range(6):
            digits, rest = ALPHABET[rest % 32] + digits, rest // 32
        return "01J" + "0" * 17 + digits

    def run(self, **changed: object) -> NewRun:
        """A run to be accepted."""
        values: dict[str, object] = {
            "run_id": self.run_id(),
            "model": "house-price",
            "spec": SPEC,
            "request": b"request",
            "asked": None,
            "fingerprint": bytes(32),
            "client": "tests",
            "create_time": START + timedelta(seconds=self.made),
        }
        return NewRun(**(values | changed))  # type: ignore[arg-type]

    def asked(self, request_id: str, name: str = "house-price", **fields: object) -> AskedOnce:
        """A request to train, as it is remembered."""
        request = TrainRequest(model_name=name, **fields)  # type: ignore[arg-type]
        return asked(request, request_id, request.SerializeToString(deterministic=True))

    def event(self, sequence: int, body: EventBody) -> Event:
        """An event, as many seconds after START as its sequence says."""
        return Event(sequence, START + timedelta(seconds=sequence), body)

    def queued(self, run: NewRun) -> Event:
        """A run's first event."""
        return self.event(1, Queued(run_id=run.run_id, model=run.model))

    async def append(
        self,
        store: SqlRunStore,
        run_id: str,
        events: Sequence[Event],
        *,
        state: RunState | None = None,
        claim: int = FIRST_CLAIM,
    ) -> None:
        """One write to one log; raises why it could not be made."""
        await _write(store, Append(run_id=run_id, claim=claim, events=events, state=state))

    async def succeed(
        self,
        store: SqlRunStore,
        run_id: str,
        sequence: int,
        time: datetime,
        trained: TrainedModel,
        training_seconds: float,
        before: Sequence[Event] = (),
        claim: int = FIRST_CLAIM,
    ) -> Event:
        """One success; its last event, or raises why it could not be written."""
        write = Success(
            run_id=run_id,
            claim=claim,
            sequence=sequence,
            time=time,
            trained=trained,
            training_seconds=training_seconds,
            before=before,
        )
        return await _write(store, write)

    def trained(self, run_id: str, parameters: Parameters | None = None) -> TrainedModel:
        """What a training hands over."""
        card = VersionCard(
            run_id=run_id,
            spec=SPEC,
            feature_columns=("a", "b", "c", "d"),
            target_columns=("y",),
            classes=None,
            parameters=5,
            rows=3,
            epochs=2000,
            final_loss=8e-06,
        )
        small = {
            "linear.weight": np.arange(4, dtype=np.float32).reshape(1, 4),
            "linear.bias": np.array([0.5], dtype=np.float32),
        }
        return TrainedModel(card=card, parameters=parameters if parameters is not None else small)

    def fleet(
        self, run_id: str, members: int = 5, *, sweep: Sweep | None = None, held_out: HeldOut | None = None
    ) -> TrainedModel:
        """What the training of a fleet hands over: keys by city and shop, or by what was swept; the last failed."""
        rng = np.random.default_rng(members)
        cities = np.array([f"city-{n // 3:05}" for n in range(members)], object)
        keys = Keys(("city", "shop"), (cities, np.arange(members) % 3)) if sweep is None else sweep.keys()
        states = np.full(members, MemberState.SUCCEEDED, np.uint8)
        states[-1] = MemberState.FAILED
        losses = rng.random(members)
        losses[-1] = np.nan
        parameters = {
            "linear.weight": rng.normal(size=(members, 1, 4)).astype(np.float32),
            "linear.bias": rng.normal(size=(members, 1)).astype(np.float32),
        }
        card = replace(
            self.trained(run_id).card,
            spec=replace(SPEC, key_columns=keys.names, sweep=sweep),
            members=members,
            failed_members=1,
            key_columns=keys.names,
        )
        return TrainedModel(
            card=card,
            parameters=parameters,
            members=Members(
                keys=keys,
                states=states,
                rows=rng.integers(1, 99, members),
                epochs=rng.integers(1, 99, members),
                final_losses=losses,
                reasons={members - 1: "ONE_CLASS_ONLY"},
                held_out=held_out,
            ),
        )


async def _write(store: SqlRunStore, write: RunWrite) -> Event:
    (result,) = await store.record([write])
    if isinstance(result, Exception):
        raise result
    return result


@pytest.fixture
def make() -> Maker:
    """Makes runs and models."""
    return Maker()


@pytest.fixture(scope="session")
def postgres_url(postgres: Any) -> str:
    """A database of that server."""
    return postgres.url


@pytest.fixture
def emptied_postgres_url(postgres_url: str) -> str:
    """An empty database on PostgreSQL."""
    return _emptied(postgres_url)


def _emptied(url: str) -> str:
    engine = create_engine(parse_url(url))
    with engine.begin() as connection:
        names = ", ".join(metadata.tables)
        if connection.scalar(text("SELECT to_regclass('runs')")) is not None:
            connection.execute(text(f"TRUNCATE {names}"))
    engine.dispose()
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'epochd.db'}"
    return str(request.getfixturevalue("emptied_postgres_url"))


def convert(source: Path, format_: DatasetFormat, destination: Path) -> DatasetSummary:
    """Stands for the conversion to Arrow, which has tests of its own."""
    shutil.copyfile(source, destination)
    columns = (DatasetColumn("x", "float64"), DatasetColumn("city", None))
    return DatasetSummary(rows=source.stat().st_size, columns=columns)


@pytest.fixture
def open_at(tmp_path: Path, database_url: str) -> Iterator[Callable[[str], Storage]]:
    """Opens a storage with a data folder of that name, all on one database and artifacts; the same is a restart."""
    opened: dict[str, Storage] = {}

    def open_one(name: str) -> Storage:
        if name in opened:
            opened.pop(name).close()
        opened[name] = open_storage(
            tmp_path / name,
            convert=convert,
            most_dataset_bytes=1 << 20,
            database_url=database_url,
            artifacts_url=str(tmp_path / "data" / "artifacts"),
        )
        return opened[name]

    yield open_one
    for storage in opened.values():
        storage.close()


@pytest.fixture
def storage(open_at: Callable[[str], Storage]) -> Storage:
    """An empty storage on each kind of database."""
    return open_at("data")
