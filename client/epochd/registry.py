"""What the registry tells of models: aliases and their history, where versions come from, comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

_EXACT = 2.0**53
ExportFormat = Literal["safetensors", "card", "onnx", "pt2"]
"""What a version is exported as; ``card`` is JSON."""
ParentKindName = Literal["", "WARM_START", "PROMOTION", "IMPORT"]
"""How a version came from another; empty where it did not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """A second version behind an alias, which predicts for a share of the keys: always for the same ones."""

    version: str
    """``models/{model}/versions/{version}``."""

    percent: float
    """Percent of the keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasMove:
    """A move of an alias; see ``Client.alias_moves``."""

    version: str
    """Where it pointed from then on, ``models/{model}/versions/{version}``; empty where it was deleted."""

    canary: Canary | None
    """The canary from then on; None where there was none."""

    time: datetime
    """When it was moved, in UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where a version comes from; see ``Model.lineage``."""

    dataset: str
    """The dataset it was trained on, ``datasets/{dataset}``; empty where the rows came with the request."""

    data_digest: str
    """SHA-256 in hex of the dataset, or of the rows that came with the request."""

    parent: str
    """The version it came from, ``models/{model}/versions/{version}``; empty where there is none."""

    parent_kind: ParentKindName
    """How it came from its parent."""

    libraries: Mapping[str, str]
    """Versions of what trained it: ``epochd``, ``numpy``, ``python``, ``torch``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldComparison:
    """A field of two versions side by side; None where a version has none."""

    field: str
    """Its path, such as ``final_loss`` or ``gradient.optimizer.adam.lr``."""

    base: float | str | None
    """Its value in the first version."""

    other: float | str | None
    """Its value in the second version."""

    same: bool
    """Whether both are the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two versions compared; prints as a table. See ``Client.diff``."""

    base: str
    """The first version, ``models/{model}/versions/{version}``."""

    other: str
    """The second version."""

    fields: Sequence[FieldComparison]
    """Results whether they differ or not, then every other field that differs."""

    def __getitem__(self, field: str) -> FieldComparison:
        """The comparison of one field.

        Raises:
            KeyError: It is the same in both, or there is no such field.
        """
        for comparison in self.fields:
            if comparison.field == field:
                return comparison
        raise KeyError(field)

    def __str__(self) -> str:
        cells = [["", self.base.removeprefix("models/"), self.other.removeprefix("models/")]]
        cells += [[field.field, _shown(field.base), _shown(field.other)] for field in self.fields]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


def _shown(value: float | str | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return str(int(value)) if value.is_integer() and abs(value) < _EXACT else f"{value:.6g}"
