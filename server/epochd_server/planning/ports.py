"""What planning needs of the world around it; implemented by ``storage`` and over ``engine``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from epochd_server.domain.models import ModelVersion
from epochd_server.domain.resources import VersionReference
from epochd_server.domain.specs import ModuleModel


class Datasets(Protocol):
    """The stored datasets."""

    async def path_of(self, digest: str) -> Path:
        """A local Arrow IPC file with a dataset's rows.

        Raises:
            EpochdError: DATASET_NOT_FOUND, ARTIFACT_CORRUPT, STORAGE_UNAVAILABLE.
        """


@dataclass(frozen=True, slots=True)
class ModuleFacts:
    """What is known of a registered module with given arguments.

    Attributes:
        parameters: Number of its trainable parameters.
        outputs: Size of its output for rows of the features asked about; None where that was not asked.
    """

    parameters: int
    outputs: int | None


class Versions(Protocol):
    """The registered versions."""

    async def get_version(self, reference: VersionReference) -> ModelVersion:
        """The version that is meant.

        Raises:
            EpochdError: MODEL_NOT_FOUND, VERSION_NOT_FOUND, ALIAS_NOT_FOUND.
        """


class Modules(Protocol):
    """The modules that the operator registered."""

    def inspect(self, model: ModuleModel, features: int | None) -> ModuleFacts:
        """Constructs the module and, where the number of features is known, tries its forward on their shape.

        Raises:
            EpochdError: MODULE_NOT_FOUND where nothing is registered under this name.
            InvalidInput: Its constructor refuses the arguments, or its forward the features; field paths are
                those of a TrainRequest.
        """
