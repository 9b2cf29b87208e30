"""Shared by the planning tests: a good request to spoil, a planner, and what it says of a bad one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import ipc
from torch import nn

from epochd.v1.tensor_pb2 import Column, Numbers, Strings
from epochd.v1.trainer_pb2 import TrainRequest
from epochd_server.codec.tensors import encode_tensor
from epochd_server.domain.errors import EpochdError, InvalidInput, Reason
from epochd_server.domain.models import ModelVersion
from epochd_server.domain.plans import Plan
from epochd_server.domain.resources import VersionReference, dataset_name
from epochd_server.engine.modules import ModuleRegistry
from epochd_server.planning.limits import PlanLimits
from epochd_server.planning.planner import RequestPlanner
from epochd_server.planning.registered import RegisteredModules

DIGEST = "ab" * 32


class FolderDatasets:
    """Datasets that are files of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, table: pa.Table) -> str:
        with ipc.new_file(str(self.file_of(DIGEST)), table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
        return f"datasets/{DIGEST}"

    def file_of(self, digest: str) -> Path:
        return self._folder / f"{digest}.arrow"

    async def path_of(self, digest: str) -> Path:
        path = self.file_of(digest)
        if not path.exists():
            raise EpochdError(Reason.DATASET_NOT_FOUND, metadata={"name": dataset_name(digest)})
        return path


class Affine(nn.Module):
    """A weight for each of two features and each output."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.linear = nn.Linear(2, outputs, bias=False)
        self.frozen = nn.Parameter(torch.zeros(7), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


class Constant(nn.Module):
    """Has nothing to train."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :1]


class NoVersions:
    """A registry without versions."""

    async def get_version(self, reference: VersionReference) -> ModelVersion:
        raise EpochdError(Reason.MODEL_NOT_FOUND, metadata={"name": str(reference)})


@pytest.fixture(scope="session")
def modules() -> RegisteredModules:
    registry = ModuleRegistry()
    registry.register(Affine)
    registry.register(Constant)
    return RegisteredModules(registry)


@pytest.fixture
def datasets(tmp_path: Path) -> FolderDatasets:
    return FolderDatasets(tmp_path)


@pytest.fixture
def make_planner(datasets: FolderDatasets, modules: RegisteredModules) -> Callable[..., RequestPlanner]:
    def make(**limits: int) -> RequestPlanner:
        return RequestPlanner(
            datasets=datasets, versions=NoVersions(), modules=modules, limits=PlanLimits(**limits)
        )

    return make


@pytest.fixture
def plan(make_planner: Callable[..., RequestPlanner]) -> Callable[[TrainRequest], Plan]:
    return lambda request: asyncio.run(make_planner().plan(request))


@pytest.fixture
def faults(plan: Callable[[TrainRequest], Plan]) -> Callable[[TrainRequest], dict[str, str]]:
    """Field → description of everything that is wrong with a request."""

    def find(request: TrainRequest) -> dict[str, str]:
        with pytest.raises(InvalidInput) as caught:
            plan(request)
        found = caught.value.violations
        described = {violation.field: violation.description for violation in found}
        assert len(described) == len(found), "a field is named twice"
        return described

    return find


@pytest.fixture(scope="session")
def table_request() -> Callable[..., TrainRequest]:
    """The tutorial's request on the given columns; the last one is the target."""

    def make(**columns: list[float] | list[str] | np.ndarray) -> TrainRequest:
        columns = columns or {"x": [1.0, 2.0, 3.0], "y": [2.0, 4.0, 6.0]}
        request = TrainRequest()
        for name, values in columns.items():
            if isinstance(values, np.ndarray):
                column = Column(name=name, tensor=encode_tensor(values))
            elif values and isinstance(values[0], str):
                column = Column(name=name, strings=Strings(values=values))
            else:
                column = Column(name=name, numbers=Numbers(values=values))
            request.data.table.columns.append(column)
        request.data.target_columns.append(list(columns)[-1])
        request.model.linear.SetInParent()
        request.loss.mse.SetInParent()
        request.gradient.epochs = 2000
        request.gradient.optimizer.sgd.lr = 0.01
        return request

    return make


@pytest.fixture(scope="session")
def tensor_request(table_request: Callable[..., TrainRequest]) -> Callable[..., TrainRequest]:
    """The tutorial's request on tensors."""

    def make(features: object, targets: object) -> TrainRequest:
        request = table_request()
        request.data.Clear()
        request.data.tensors.features.CopyFrom(encode_tensor(np.asarray(features)))
        request.data.tensors.targets.CopyFrom(encode_tensor(np.asarray(targets)))
        return request

    return make
