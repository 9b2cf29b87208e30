"""What a training's model will come from."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version

from epochd.v1.trainer_pb2 import TrainRequest
from epochd_server.domain.data import DatasetReference, DataSource
from epochd_server.domain.lineage import Lineage, Parent, ParentKind

_LIBRARIES = ("epochd", "numpy", "torch")


def lineage_of(request: TrainRequest, source: DataSource | None, parent: str = "") -> Lineage:
    """The lineage of what a request trains: its data, and the libraries in use.

    Args:
        request: The request; hashing its rows takes about two milliseconds a mebibyte.
        source: The same rows, decoded.
        parent: The version whose parameters it begins with; empty where there is none.
    """
    dataset = source.digest if isinstance(source, DatasetReference) else None
    return Lineage(
        dataset=dataset,
        data_digest=dataset or _digest_of_rows(request),
        parent=Parent(name=parent, kind=ParentKind.WARM_START) if parent else None,
        libraries=libraries(),
    )


def _digest_of_rows(request: TrainRequest) -> str:
    rows = request.data.tensors if request.data.HasField("tensors") else request.data.table
    return hashlib.sha256(rows.SerializeToString(deterministic=True)).hexdigest()


@cache
def libraries() -> Mapping[str, str]:
    """Versions of what trains, by name."""
    return {**{name: version(name) for name in _LIBRARIES}, "python": platform.python_version()}
