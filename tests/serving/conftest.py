"""Models to predict with, in a real registry, computed by PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from epochd_server.domain.commands import PredictCommand
from epochd_server.domain.data import Classes, Column, Table
from epochd_server.domain.fleets import Keys, Members
from epochd_server.domain.models import TrainedModel, VersionCard
from epochd_server.domain.records import FIRST_CLAIM, NewRun, Success
from epochd_server.domain.resources import VersionReference
from epochd_server.domain.runs import Event, Parameters, Queued
from epochd_server.domain.specs import (
    GradientFit,
    Init,
    LinearModel,
    Logging,
    Loss,
    LossKind,
    Model,
    Optimizer,
    OptimizerKind,
    Precision,
    TrainingSpec,
)
from epochd_server.engine.inference import Predictor
from epochd_server.serving import PredictionService
from epochd_server.storage import Storage, open_storage

NOW = datetime(2026, 1, 2, tzinfo=UTC)


class TorchLinear:
    """A linear model, computed by PyTorch; counts how often it was made."""

    made = 0
    calls_module = False

    def __init__(self, model: Model, parameters: Parameters) -> None:
        type(self).made += 1
        self._weight = torch.from_numpy(parameters["linear.weight"].copy())
        self._bias = torch.from_numpy(parameters["linear.bias"].copy())

    def predict(
        self, rows: NDArray[np.floating], members: NDArray[np.int64] | None = None
    ) -> NDArray[np.floating]:
        return torch.nn.functional.linear(torch.from_numpy(rows), self._weight, self._bias).numpy()


def table(columns: Mapping[str, Sequence[object]]) -> Table:
    """A table; lists of strings are text columns."""
    made = []
    for name, values in columns.items():
        is_text = any(isinstance(value, str) for value in values)
        made.append(Column(name, np.array(values, dtype=object if is_text else None)))
    return Table(tuple(made))


def command(
    rows, model="m", version=None, alias=None, probabilities=False, logits=False, **fleet
) -> PredictCommand:
    return PredictCommand(
        reference=VersionReference(model, version, alias),
        rows=rows,
        probabilities=probabilities,
        logits=logits,
        **fleet,
    )


@pytest.fixture
def storage(tmp_path: Path):
    storage = open_storage(tmp_path / "data", convert=lambda *_: None, most_dataset_bytes=1)
    yield storage
    storage.close()


class Registry:
    """Adds versions to a storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._made = 0

    async def add(
        self,
        weight,
        bias=0.0,
        *,
        model: str = "m",
        features: Sequence[str] | None = None,
        classes: Classes | None = None,
        precision: Precision = Precision.FLOAT32,
    ) -> int:
        """A version of a linear model with this weight [outputs, features]; returns its number."""
        weight = np.atleast_2d(np.asarray(weight, precision.value))
        outputs, _ = weight.shape
        parameters = {
            "linear.weight": weight,
            "linear.bias": np.broadcast_to(np.asarray(bias, precision.value), (outputs,)).copy(),
        }
        card = self._card(weight.shape, features, classes, precision)
        return await self._store(model, TrainedModel(card=card, parameters=parameters))

    async def add_fleet(
        self,
        weights,
        biases,
        keys: Mapping[str, Sequence[object]],
        *,
        failed: Mapping[int, str] | None = None,
        model: str = "fleet",
        features: Sequence[str] | None = None,
        classes: Classes | None = None,
    ) -> int:
        """A fleet of linear models: weights [K, outputs, features], biases [K, outputs]; returns its version."""
        failed = failed or {}
        weights, biases = np.float32(weights), np.float32(biases)
        weights[list(failed)], biases[list(failed)] = np.nan, np.nan
        columns = tuple(column.values for column in table(keys).columns)
        count = len(weights)
        members = Members(
            keys=Keys(tuple(keys), columns),
            states=np.array([2 if member in failed else 1 for member in range(count)], np.uint8),
            rows=np.arange(10, 10 + count),
            epochs=np.arange(1, 1 + count),
            final_losses=np.array([np.nan if n in failed else 1 / (n + 1) for n in range(count)]),
            reasons=failed,
        )
        card = replace(
            self._card(weights.shape[1:], features, classes, Precision.FLOAT32),
            members=count,
            failed_members=len(failed),
            key_columns=tuple(keys),
        )
        parameters = {"linear.weight": weights, "linear.bias": biases}
        return await self._store(model, TrainedModel(card=card, parameters=parameters, members=members))

    async def _store(self, model: str, trained: TrainedModel) -> int:
        self._made += 1
        run_id = f"01J{self._made:023d}"
        trained = replace(trained, card=replace(trained.card, run_id=run_id))
        run = NewRun(
            run_id=run_id, model=model, spec=trained.card.spec, request=b"", asked=None, fingerprint=b"",
            client="", create_time=NOW,
        )  # fmt: skip
        await self._storage.runs.accept(run, Event(1, NOW, Queued(run_id=run_id, model=model)))
        success = Success(
            run_id=run_id, claim=FIRST_CLAIM, sequence=2, time=NOW, trained=trained, training_seconds=1.0
        )
        return (await self._storage.runs.record([success]))[0].body.version

    def _card(self, shape, features, classes, precision) -> VersionCard:
        outputs, width = shape
        kind = LossKind.MSE
        if classes is not None:
            kind = LossKind.BCE_WITH_LOGITS if outputs == 1 else LossKind.CROSS_ENTROPY
        spec = TrainingSpec(
            model=LinearModel(in_features=width, out_features=outputs),
            loss=Loss(kind=kind),
            fit=GradientFit(optimizer=Optimizer(kind=OptimizerKind.SGD, lr=0.1), epochs=1),
            init=Init.ZEROS,
            precision=precision,
            seed=0,
            logging=Logging(every=1),
        )
        return VersionCard(
            run_id="",
            spec=spec,
            feature_columns=tuple(features or [f"x{n}" for n in range(width)]),
            target_columns=("y",) if outputs == 1 or classes else tuple(f"y{n}" for n in range(outputs)),
            classes=classes,
            parameters=outputs * (width + 1),
            rows=3,
            epochs=1,
            final_loss=0.0,
        )


@pytest.fixture
def registry(storage: Storage) -> Registry:
    return Registry(storage)


@pytest.fixture
def service(storage: Storage) -> PredictionService:
    TorchLinear.made = 0
    return PredictionService(storage.models, TorchLinear, cache_bytes=1 << 20)


@pytest.fixture
def fleets(storage: Storage) -> PredictionService:
    """Predicts with the engine's own predictor."""
    return PredictionService(storage.models, Predictor, cache_bytes=1 << 20)


@pytest.fixture
def tables() -> Callable[..., Table]:
    return table


@pytest.fixture
def ask() -> Callable[..., PredictCommand]:
    return command


@pytest.fixture
def builds() -> Callable[[], int]:
    """How many predictors were made."""
    return lambda: TorchLinear.made


@pytest.fixture
def predictor() -> type[TorchLinear]:
    """Makes predictors."""
    return TorchLinear
