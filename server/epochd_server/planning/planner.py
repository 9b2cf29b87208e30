"""The planner: from a TrainRequest to a plan in which nothing is left open."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

from google.protobuf.message import DecodeError

from epochd.v1.trainer_pb2 import TrainRequest
from epochd_server.codec.requests import decode_train
from epochd_server.domain.commands import TrainCommand
from epochd_server.domain.data import DatasetReference, DataSource
from epochd_server.domain.errors import EpochdError, Reason, Violations
from epochd_server.domain.models import ModelVersion
from epochd_server.domain.plans import Plan
from epochd_server.domain.resources import parse_dataset, parse_version_reference, version_name
from epochd_server.domain.runs import Started
from epochd_server.domain.specs import Logging, TrainingSpec
from epochd_server.planning.class_weights import with_every_class
from epochd_server.planning.cost import count_steps, solving_bytes, training_bytes
from epochd_server.planning.drafting import Draft, Drafting
from epochd_server.planning.familiar import FamiliarRequests
from epochd_server.planning.limits import PlanLimits
from epochd_server.planning.lineage import lineage_of
from epochd_server.planning.ports import Datasets, Modules, Versions
from epochd_server.planning.requests import read_sent

_SEED_BITS = 32
"""Drawn seeds are short enough to be typed, and exact as a float64, which is all that some languages have."""
_LOGS = 100
_Found = tuple[Path | None, EpochdError | None]
"""A dataset's file, or why there is none; neither where none was asked for."""
_FoundVersion = tuple[ModelVersion | None, EpochdError | None]
"""A version, or why there is none; neither where none was asked for."""


class RequestPlanner:
    """Plans requests; implements ``runs.ports.Planner``.

    Args:
        datasets: The stored datasets.
        versions: The registered versions.
        modules: The registered modules.
        limits: How large a training may be.
        device: Where runs will be trained, such as ``cpu``.
    """

    def __init__(
        self,
        *,
        datasets: Datasets,
        versions: Versions,
        modules: Modules,
        limits: PlanLimits | None = None,
        device: str = "cpu",
    ) -> None:
        self._datasets = datasets
        self._versions = versions
        self._modules = modules
        self._limits = limits or PlanLimits()
        self._device = device
        self._familiar = FamiliarRequests()

    async def plan(self, request: TrainRequest) -> Plan:
        """The plan of a request; whatever takes long is done in a thread.

        Raises:
            InvalidInput: Everything that is wrong with it.
            EpochdError: MODULE_NOT_FOUND, DATASET_NOT_FOUND, MODEL_TOO_LARGE or DATA_TOO_LARGE, where nothing
                else is wrong.
        """
        names = (request.data.dataset, request.validation.dataset)
        if any(names) or request.initial_version:
            data, held_out = [await self._find(name) for name in names]
            initial = await self._find_initial(request.initial_version)
            return await asyncio.to_thread(self._plan, request, data, held_out, initial)
        # A registered module's own code runs when it is looked at; the first fleet of all imports pyarrow.
        extras = request.HasField("sweep") or request.HasField("preprocess")
        lengthy = extras or request.model.HasField("module") or request.data.group_columns
        if lengthy or request.ByteSize() > self._limits.inline_bytes:
            return await asyncio.to_thread(self._plan, request)
        if (plan := self._familiar.plan(request)) is None:
            plan = self._plan(request)
            self._familiar.remember(request, plan)
        return plan

    async def replan(self, request: bytes) -> Plan:
        """The plan of a request that was accepted before, as it was stored.

        Raises:
            EpochdError: Where it can no longer be trained: its dataset or its registered module is gone.
        """
        try:
            stored = TrainRequest.FromString(request)
        except DecodeError:
            raise EpochdError(Reason.ARTIFACT_CORRUPT) from None
        return await self.plan(stored)

    async def _find(self, name: str) -> _Found:
        digest = parse_dataset(name)
        if digest is None:
            return None, None
        try:
            return await self._datasets.path_of(digest), None
        except EpochdError as error:
            if error.reason is not Reason.DATASET_NOT_FOUND:
                raise
            return None, error

    async def _find_initial(self, name: str) -> _FoundVersion:
        reference = parse_version_reference(name)
        if reference is None:
            return None, None
        try:
            return await self._versions.get_version(reference), None
        except EpochdError as error:
            return None, error

    def _plan(
        self,
        request: TrainRequest,
        dataset: _Found = (None, None),
        held_out: _Found = (None, None),
        initial: _FoundVersion = (None, None),
    ) -> Plan:
        violations = Violations()
        command = decode_train(request, violations)
        seed = _seed(command)
        drafting = Drafting(
            command=command,
            violations=violations,
            dataset=dataset[0],
            validation_dataset=held_out[0],
            modules=self._modules,
            limits=self._limits,
            seed=seed,
            initial=initial[0],
        )
        missing = {
            "data.dataset": dataset[1],
            "validation.dataset": held_out[1],
            "initial_version": initial[1],
        }
        return self._complete(request, command, drafting.draft(missing), seed, initial[0])

    def _complete(
        self,
        request: TrainRequest,
        command: TrainCommand,
        draft: Draft,
        seed: int,
        initial: ModelVersion | None,
    ) -> Plan:
        spec = _spec(command, draft, seed)
        parent = "" if initial is None else version_name(initial.model, initial.version)
        sent = read_sent(request, seed, parent)
        source = command.source
        return Plan(
            request=sent.stored,
            asked=sent.asked,
            model=command.model_name,
            fingerprint=sent.fingerprint,
            spec=spec,
            data=draft.data,
            dataset=_dataset(source),
            validation_dataset=_dataset(command.validation_source),
            started=Started(
                spec=spec,
                parameters=draft.parameters,
                rows=draft.rows,
                feature_columns=draft.roles.features,
                target_columns=draft.roles.targets,
                classes=draft.classes,
                device=self._device,
                members=0 if draft.keys is None else len(draft.keys),
                key_columns=spec.key_columns,
                weight_column=draft.roles.weight,
                lineage=lineage_of(request, source, parent),
                preprocess=draft.preprocess,
            ),
            steps=count_steps(spec.fit, draft.sizes),
            memory_bytes=training_bytes(
                spec.fit, spec.precision, draft.parameters * len(draft.sizes), draft.data_bytes
            )
            + solving_bytes(spec.fit, spec.model, draft.sizes),
            validate_only=command.validate_only,
            labels=command.labels,
            limits=command.limits,
        )


def _dataset(source: DataSource | None) -> str | None:
    """The digest of the stored dataset that rows are in; the run keeps it from being deleted."""
    return source.digest if isinstance(source, DatasetReference) else None


def _seed(command: TrainCommand) -> int:
    """The seed that was asked for, the first one of a sweep over seeds, or a drawn one."""
    if command.seed is not None:
        return command.seed
    if command.sweep is not None and command.sweep.seed:
        return command.sweep.seed[0]
    return secrets.randbits(_SEED_BITS)


def _spec(command: TrainCommand, draft: Draft, seed: int) -> TrainingSpec:
    if command.loss is None:
        raise EpochdError(Reason.INTERNAL)
    epochs = draft.fit.epochs
    every = -(-epochs // _LOGS) if command.log_every is None else command.log_every
    return TrainingSpec(
        model=draft.model,
        loss=with_every_class(command.loss, draft.classes),
        fit=draft.fit,
        init=command.init,
        precision=command.precision,
        seed=seed,
        logging=Logging(every=every, parameters=command.log_parameters, members=draft.log_members),
        key_columns=() if draft.keys is None else draft.keys.names,
        sweep=command.sweep,
        validation=command.validation,
    )
