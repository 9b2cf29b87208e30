"""The one place that builds everything a server serves with. Importing it takes a while: it brings in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import torch

from epochd.v1 import datasets_pb2_grpc, models_pb2_grpc, runs_pb2_grpc, trainer_pb2_grpc
from epochd_server.data.roots import DataRoots
from epochd_server.domain.specs import Precision
from epochd_server.engine.inference import Predictor
from epochd_server.engine.modules import ModuleRegistry, ModuleSourceError
from epochd_server.engine.warmup import warm_up_prediction
from epochd_server.planning.limits import PlanLimits
from epochd_server.planning.planner import RequestPlanner
from epochd_server.planning.registered import RegisteredModules
from epochd_server.rpc.activation import Activations
from epochd_server.rpc.activation_stream import ActivationStreams
from epochd_server.rpc.admission import Admission
from epochd_server.rpc.computing import Computer
from epochd_server.rpc.datasets import DatasetsServicer
from epochd_server.rpc.differentiate import Differentiator
from epochd_server.rpc.interceptors import MAX_MESSAGE_BYTES, Guard, Registrar
from epochd_server.rpc.models import ModelsServicer
from epochd_server.rpc.mutations import Mutations
from epochd_server.rpc.runs import RunsServicer
from epochd_server.rpc.standard import Health, add_reflection
from epochd_server.rpc.trainer import TrainerServicer
from epochd_server.rpc.transfers import TransferCalls
from epochd_server.runs.ports import Executor
from epochd_server.runs.service import RunService
from epochd_server.runs.settings import RunSettings
from epochd_server.serving import PredictionService
from epochd_server.serving.exporting.exporter import Exporter
from epochd_server.settings import Settings
from epochd_server.storage import Storage

__all__ = ["ModuleSourceError", "Parts", "build", "load_modules"]

_SERVER_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a port that another server has is taken, not shared
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Windows grow with what a call asks for, never by themselves: what nobody has asked for yet stays at the client.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.max_concurrent_streams", 10_000),  # a connection; each followed run is one
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a running server consists of."""

    storage: Storage
    runs: RunService
    server: grpc.aio.Server
    guard: Guard
    health: Health
    computer: Computer


def load_modules(settings: Settings) -> ModuleRegistry:
    """Imports the modules that may be trained by name; blocks until done.

    Raises:
        ModuleSourceError: One of them cannot be imported; says why in one line.
    """
    return ModuleRegistry.load(settings.modules)


def warm_up() -> None:
    """Loads the kernels that predict, which the workers have compiled by now; blocks until done."""
    for precision in Precision:
        warm_up_prediction(precision)


def build(settings: Settings, storage: Storage, modules: ModuleRegistry, executor: Executor) -> Parts:
    """Builds a server that is not bound to a port yet; call it inside the loop."""
    torch.set_num_threads(1)  # the workers have the cores; a large request has a thread of its own
    limits = PlanLimits(
        max_parameters=settings.max_parameters,
        max_exact_bytes=settings.max_exact_bytes,
        max_exact_operations=settings.max_exact_operations,
    )
    planner = RequestPlanner(
        datasets=storage.datasets,
        versions=storage.models,
        modules=RegisteredModules(modules),
        limits=limits,
    )
    bounds = RunSettings(
        cohorts=settings.cohorts == "on",
        gather_seconds=settings.cohort_window,
        max_queued=settings.max_queued_runs,
        max_queued_per_client=settings.max_queued_runs_per_client,
        checkpoint_seconds=settings.checkpoint_interval,
    )
    runs = RunService(
        storage.runs, planner, executor, bounds, storage.models, storage.claims, storage.checkpoints
    )
    predictor = PredictionService(
        storage.models, partial(Predictor, modules=modules), cache_bytes=settings.predict_cache_bytes
    )
    computer = Computer(settings.workers)
    trainer = TrainerServicer(
        planner=planner,
        runs=runs,
        predictor=predictor,
        activations=Activations(computer),
        streams=ActivationStreams(computer, storage.folder.uploads, settings.max_stream_bytes),
        differentiator=Differentiator(computer),
    )
    mutations = Mutations(storage.answers)
    exporter = Exporter(storage.models, settings.modules)
    transfers = TransferCalls(storage.models, exporter, modules, limits, storage.folder.uploads, mutations)
    roots = DataRoots(
        settings.data_root, copies=storage.folder.uploads, most_bytes=settings.max_dataset_bytes
    )
    datasets = DatasetsServicer(storage.datasets, roots, mutations)
    server = grpc.aio.server(options=(*_SERVER_OPTIONS, *_keepalive(settings.keepalive)))
    guard = Guard(Admission(settings.request_memory_bytes, settings.stall_timeout))
    registrar = Registrar(server, guard)
    services: tuple[tuple[Callable[[Any, Any], None], object], ...] = (
        (trainer_pb2_grpc.add_TrainerServicer_to_server, trainer),
        (runs_pb2_grpc.add_RunsServicer_to_server, RunsServicer(runs, mutations)),
        (models_pb2_grpc.add_ModelsServicer_to_server, ModelsServicer(storage.models, transfers, mutations)),
        (datasets_pb2_grpc.add_DatasetsServicer_to_server, datasets),
    )
    for add, servicer in services:
        add(servicer, registrar)
    add_reflection(server, registrar.services)
    health = Health(server, registrar.services)
    return Parts(storage, runs, server, guard, health, computer)


def _keepalive(seconds: float) -> tuple[tuple[str, int], ...]:
    """Options that close a connection whose other end has vanished without a word."""
    every = round(seconds * 1000)
    return (
        ("grpc.keepalive_time_ms", every),
        ("grpc.keepalive_timeout_ms", every // 3),
        ("grpc.http2.ping_timeout_ms", every // 3),  # or else the ping itself is waited for, for a minute
    )
