"""Where a version comes from."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class ParentKind(enum.Enum):
    """How a version came from another."""

    WARM_START = "warm_start"
    PROMOTION = "promotion"
    IMPORT = "import"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """The version that another came from.

    Attributes:
        name: Its resource name; of an imported version, on the server that exported it.
    """

    name: str
    kind: ParentKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """What a version was made of, besides its spec and seed.

    Attributes:
        dataset: Digest of the dataset; None where the rows came with the request.
        data_digest: SHA-256 in hex of the dataset, or of the serialised rows.
        libraries: Versions by name: epochd, numpy, python, torch.
    """

    dataset: str | None
    data_digest: str
    parent: Parent | None = None
    libraries: Mapping[str, str] = field(default_factory=dict)
