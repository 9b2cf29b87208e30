"""Resource names: the one place that builds and parses them.

runs/{run}    models/{model}    models/{model}/versions/{version}    models/{model}@{alias}    datasets/{dataset}
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

NAME_RULE = "1 to 64 lower-case letters, digits and hyphens, starting with a letter"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
_RUN = re.compile(r"runs/([0-9A-HJKMNP-TV-Z]{26})")
_DATASET = re.compile(r"datasets/([0-9a-f]{64})")
_VERSION = re.compile(r"models/([a-z][a-z0-9-]{0,63})/versions/([1-9][0-9]{0,8})")
_MODEL = re.compile(r"models/([a-z][a-z0-9-]{0,63})")
_ALIAS = re.compile(r"models/([a-z][a-z0-9-]{0,63})@([a-z][a-z0-9-]{0,63})")
_LONGEST = 136
"""Characters that the name of a version may have; what is longer is not looked at, nor remembered."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
REQUEST_ID_RULE = "1 to 128 letters, digits and '-_.', starting with a letter or digit"


def is_name(text: str) -> bool:
    """Whether ``text`` may name a model or an alias (see NAME_RULE)."""
    return _NAME.fullmatch(text) is not None


def is_request_id(text: str) -> bool:
    """Whether ``text`` may be a request_id (see REQUEST_ID_RULE)."""
    return _REQUEST_ID.fullmatch(text) is not None


def run_name(run_id: str) -> str:
    """``runs/{run_id}``."""
    return f"runs/{run_id}"


def parse_run(name: str) -> str | None:
    """The run's id (a ULID), or None where ``name`` is no run's name."""
    match = _RUN.fullmatch(name)
    return match[1] if match else None


def dataset_name(digest: str) -> str:
    """``datasets/{digest}``."""
    return f"datasets/{digest}"


def parse_dataset(name: str) -> str | None:
    """The dataset's digest, or None where ``name`` is no dataset's name."""
    match = _DATASET.fullmatch(name)
    return match[1] if match else None


def model_name(model: str) -> str:
    """``models/{model}``."""
    return f"models/{model}"


def parse_model(name: str) -> str | None:
    """The model's id, or None where ``name`` is not ``models/{model}``."""
    match = _MODEL.fullmatch(name)
    return match[1] if match else None


def version_name(model: str, version: int) -> str:
    """``models/{model}/versions/{version}``."""
    return f"models/{model}/versions/{version}"


class VersionReference(NamedTuple):
    """A way to say which version of a model is meant.

    Attributes:
        model: The model's id.
        version: Its number, or None.
        alias: The alias to follow, or None. With neither, the newest version is meant.
    """

    model: str
    version: int | None = None
    alias: str | None = None

    def __str__(self) -> str:
        if self.version is not None:
            return version_name(self.model, self.version)
        return model_name(self.model) + (f"@{self.alias}" if self.alias else "")


VERSION_REFERENCE_RULE = "must be models/{model}, models/{model}/versions/{version} or models/{model}@{alias}"


def parse_version_reference(name: str) -> VersionReference | None:
    """What ``name`` refers to, or None where it fits none of the three forms."""
    return _parse_version_reference(name) if len(name) <= _LONGEST else None


@lru_cache(maxsize=4096)
def _parse_version_reference(name: str) -> VersionReference | None:
    if match := _VERSION.fullmatch(name):
        return VersionReference(match[1], version=int(match[2]))
    if match := _ALIAS.fullmatch(name):
        return VersionReference(match[1], alias=match[2])
    if match := _MODEL.fullmatch(name):
        return VersionReference(match[1])
    return None
