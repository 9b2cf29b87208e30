"""Predict: names resolved, weights resident, one hop to the numbers."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Protocol

from epochd_server.domain.commands import PredictCommand
from epochd_server.domain.fleets import Members
from epochd_server.domain.models import Canary, ModelVersion
from epochd_server.domain.predictions import Prediction
from epochd_server.domain.resources import VersionReference
from epochd_server.domain.runs import Parameters
from epochd_server.domain.specs import Model, ModuleModel
from epochd_server.serving.canaries import canary_rows, merged, part_of
from epochd_server.serving.members import MemberMatcher
from epochd_server.serving.module_threads import ModuleThreads
from epochd_server.serving.names import RECHECK_S, VersionNames, VersionSource
from epochd_server.serving.resident import Batch, Resident, RowPredictor, command_rows
from epochd_server.serving.single_flight import SingleFlight

BuildPredictor = Callable[[Model, Parameters], RowPredictor]
"""Makes a predictor of a model with every size filled in and its parameters."""

_OVERHEAD_BYTES = 8_192
"""About what a resident takes besides its parameters."""
_INLINE_RAW_ROWS = 1_000
"""Rows up to which preprocessing (about a millisecond) is not worth a thread."""
_INLINE_WORK = 1_000_000
"""Rows times parameters up to which a batch (well under a millisecond) is not worth a thread."""


_Identity = tuple[str, str, int, datetime]


class ChangeNews(Protocol):
    """Tells which models this server changes."""

    def subscribe(self, subscriber: Callable[[str], None]) -> None:
        """Has ``subscriber`` called with each changed model's id."""


class ModelSource(VersionSource, Protocol):
    """The registry, as far as serving reads it."""

    @property
    def changes(self) -> ChangeNews:
        """News of this server's changes."""

    @property
    def is_shared(self) -> bool:
        """Whether other servers change models too."""

    async def load_parameters(self, model: str, version: int) -> Parameters:
        """The parameters of a version."""

    async def load_members(self, model: str, version: int) -> Members:
        """The members of a fleet."""


class PredictionService:
    """Predicts with any version, and keeps those in memory that were used last.

    A version is kept by what made it and when: a name that is deleted and given again never meets old weights.

    Args:
        models: Where versions and parameters come from.
        build: Makes predictors.
        cache_bytes: Memory for resident versions; the one used last stays even if it alone is larger.
    """

    def __init__(self, models: ModelSource, build: BuildPredictor, *, cache_bytes: int) -> None:
        self._models = models
        self._build = build
        self._cache_bytes = cache_bytes
        self._names = VersionNames(models, recheck_s=RECHECK_S if models.is_shared else None)
        self._residents: OrderedDict[_Identity, Resident] = OrderedDict()
        self._resident_bytes = 0
        self._loads: SingleFlight[_Identity, Resident] = SingleFlight()
        # Of their own: what else waits for a thread here must not hold up predictions.
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="predict")
        self._modules = ModuleThreads()
        models.changes.subscribe(self._names.forget)

    @property
    def resident_bytes(self) -> int:
        """Memory that resident versions take, about."""
        return self._resident_bytes

    async def predict(self, command: PredictCommand) -> Prediction:
        """Predictions for a request's rows. With a resident version and a small batch it never waits.

        What calls a registered module does: it has a thread, with those of its kind.

        Raises:
            InvalidInput: The rows do not suit the model; names every column that is missing or too many, and the
                first keys without a trained member.
            EpochdError: MODEL_NOT_FOUND, VERSION_NOT_FOUND, ALIAS_NOT_FOUND, MEMBER_NOT_FOUND, MEMBER_FAILED,
                ARTIFACT_CORRUPT; MODULE_FAILED where a registered module raises, or its calls do not return.
        """
        version = self._names.known(command.reference) or await self._names.look_up(command.reference)
        resident = self._touch(version) or await self._load(version)
        if version.canary is not None:
            return await self._predict_with_canary(command, resident, version.canary)
        batch = await self._batch(command, resident) if resident.is_raw else resident.batch(command)
        return await self._predict(command, resident, batch)

    async def _predict_with_canary(
        self, command: PredictCommand, main: Resident, canary: Canary
    ) -> Prediction:
        batch = await self._batch(command, main)
        reference = VersionReference(command.reference.model, canary.version)
        version = self._names.known(reference) or await self._names.look_up(reference)
        other = self._touch(version) or await self._load(version)
        chosen = canary_rows(command, main.version.card, canary.hundredths)
        if not chosen.any():
            return await self._predict(command, main, batch)
        if chosen.all():
            return await self._predict(command, other, await self._batch(command, other))
        ours = await self._predict(command, main, batch.part(~chosen))
        return merged(
            ours,
            await self._predict(command, other, await self._batch(part_of(command, chosen), other)),
            chosen,
        )

    async def _batch(self, command: PredictCommand, resident: Resident) -> Batch:
        """What the model reads; many rows that preprocessing makes features of have a thread."""
        if not resident.is_raw or command_rows(command) <= _INLINE_RAW_ROWS:
            return resident.batch(command)
        return await asyncio.get_running_loop().run_in_executor(self._threads, resident.batch, command)

    async def _predict(self, command: PredictCommand, resident: Resident, batch: Batch) -> Prediction:
        module = resident.called_module
        is_small = len(batch.features) * resident.version.card.parameters <= _INLINE_WORK
        if is_small and module is None:
            return resident.predict(batch, probabilities=command.probabilities, logits=command.logits)
        work = partial(resident.predict, batch, probabilities=command.probabilities, logits=command.logits)
        if module is not None:
            return await self._modules.run(module, work)
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """Waits for batches that run, and starts no more."""
        self._threads.shutdown(cancel_futures=True)

    def _touch(self, version: ModelVersion) -> Resident | None:
        identity = _identity(version)
        resident = self._residents.get(identity)
        if resident is not None:
            self._residents.move_to_end(identity)
        return resident

    async def _load(self, version: ModelVersion) -> Resident:
        return await self._loads.do(_identity(version), lambda: self._make_resident(version))

    async def _make_resident(self, version: ModelVersion) -> Resident:
        parameters = await self._models.load_parameters(version.model, version.version)
        members = None
        if version.card.members:
            members = await self._models.load_members(version.model, version.version)
        assemble = partial(self._assemble, version, parameters, members)
        model = version.card.spec.model
        if isinstance(model, ModuleModel):
            resident = await self._modules.patiently(model.name, assemble)
        else:
            resident = await asyncio.to_thread(assemble)
        self._residents[_identity(version)] = resident
        self._resident_bytes += resident.nbytes
        self._evict()
        return resident

    def _assemble(self, version: ModelVersion, parameters: Parameters, members: Members | None) -> Resident:
        predictor = self._build(version.card.spec.model, parameters)
        nbytes = sum(value.nbytes for value in parameters.values()) + _OVERHEAD_BYTES
        if members is None:
            return Resident(version, predictor, None, nbytes)
        matcher = MemberMatcher(version, members)
        return Resident(version, predictor, matcher, nbytes + matcher.nbytes)

    def _evict(self) -> None:
        while self._resident_bytes > self._cache_bytes and len(self._residents) > 1:
            _, oldest = self._residents.popitem(last=False)
            self._resident_bytes -= oldest.nbytes


def _identity(version: ModelVersion) -> _Identity:
    return version.card.run_id, version.model, version.version, version.create_time
