"""What runs begin with that continue a version."""

from __future__ import annotations

import asyncio

import numpy as np

from epochd_server.domain.data import TrainingArrays
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.fleets import Keys
from epochd_server.domain.lineage import ParentKind
from epochd_server.domain.resources import VersionReference, parse_version_reference
from epochd_server.domain.runs import Parameters, Started
from epochd_server.domain.warm_starts import start_values
from epochd_server.domain.work import DatasetFile
from epochd_server.runs.ports import Versions


class Starts:
    """Finds the values that runs begin with.

    Args:
        versions: The registered versions.
    """

    def __init__(self, versions: Versions) -> None:
        self._versions = versions

    async def of(self, started: Started, data: TrainingArrays | DatasetFile) -> Parameters | None:
        """Start values by name, as :class:`RunWork` has them; None where a run begins afresh.

        Raises:
            EpochdError: MODEL_NOT_FOUND, VERSION_NOT_FOUND where the version was deleted meanwhile;
                ARTIFACT_CORRUPT.
        """
        reference = _continued(started)
        if reference is None:
            return None
        version = await self._versions.get_version(reference)
        parameters = await self._versions.load_parameters(version.model, version.version)
        members = None
        if version.card.members:
            members = await self._versions.load_members(version.model, version.version)
        dtype = np.dtype(started.spec.precision.value)
        return await asyncio.to_thread(start_values, parameters, members, _keys(started, data), dtype)


def _continued(started: Started) -> VersionReference | None:
    parent = None if started.lineage is None else started.lineage.parent
    if parent is None or parent.kind is not ParentKind.WARM_START:
        return None
    reference = parse_version_reference(parent.name)
    if reference is None:
        raise EpochdError(Reason.ARTIFACT_CORRUPT)
    return reference


def _keys(started: Started, data: TrainingArrays | DatasetFile) -> Keys | None:
    if started.spec.sweep is not None:
        return started.spec.sweep.keys()
    return None if data.groups is None else data.groups.keys
