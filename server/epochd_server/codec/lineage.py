"""Lineage: message ↔ domain."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from epochd.v1 import run_pb2 as pb
from epochd_server.domain.lineage import Lineage, Parent, ParentKind
from epochd_server.domain.resources import dataset_name, parse_dataset

_NUMBERS: Mapping[ParentKind, pb.ParentKind.ValueType] = MappingProxyType(
    {kind: pb.ParentKind.Value(f"PARENT_KIND_{kind.name}") for kind in ParentKind}
)
_KINDS: Mapping[int, ParentKind] = MappingProxyType({int(number): kind for kind, number in _NUMBERS.items()})


def encode_lineage(lineage: Lineage | None) -> pb.Lineage | None:
    """The message of a lineage; None for None."""
    if lineage is None:
        return None
    parent = lineage.parent
    return pb.Lineage(
        dataset="" if lineage.dataset is None else dataset_name(lineage.dataset),
        data_digest=lineage.data_digest,
        parent="" if parent is None else parent.name,
        parent_kind=pb.PARENT_KIND_UNSPECIFIED if parent is None else _NUMBERS[parent.kind],
        libraries=lineage.libraries,
    )


def stored_lineage(message: pb.Lineage) -> Lineage:
    """The lineage of a message that this server made, or that another did."""
    kind = _KINDS.get(message.parent_kind)
    return Lineage(
        dataset=parse_dataset(message.dataset),
        data_digest=message.data_digest,
        parent=None if kind is None else Parent(name=message.parent, kind=kind),
        libraries=dict(sorted(message.libraries.items())),
    )
