"""Datasets: domain → messages; upload headers and formats: messages → domain."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from epochd.v1 import datasets_pb2 as pb
from epochd.v1 import tensor_pb2 as pb_tensor
from epochd_server.codec.preprocessing import encode_kind
from epochd_server.codec.tensors import NUMBERS
from epochd_server.codec.times import encode_time
from epochd_server.domain.datasets import Dataset, DatasetColumn, DatasetFormat
from epochd_server.domain.errors import Violations
from epochd_server.domain.resources import dataset_name

_FORMATS: Mapping[int, DatasetFormat] = MappingProxyType(
    {int(pb.DatasetFormat.Value(f"DATASET_FORMAT_{format_.name}")): format_ for format_ in DatasetFormat}
)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def decode_format(number: int, violations: Violations, field: str = "format") -> DatasetFormat | None:
    """A format; None, and a violation, where it is unset or unknown."""
    format_ = _FORMATS.get(number)
    if format_ is None:
        violations.add(field, "must be set" if number == 0 else f"{number} is no known DatasetFormat")
    return format_


def check_digest(text: str, violations: Violations, field: str = "sha256") -> None:
    """Adds a violation where ``text`` is no SHA-256 in lower-case hex."""
    if _SHA256.fullmatch(text) is None:
        violations.add(field, "must be 64 lower-case hex digits")


def encode_dataset(dataset: Dataset) -> pb.Dataset:
    """The message of a dataset."""
    return pb.Dataset(
        name=dataset_name(dataset.digest),
        rows=dataset.rows,
        columns=map(_encode_column, dataset.columns),
        size_bytes=dataset.size_bytes,
        create_time=encode_time(dataset.create_time),
    )


def _encode_column(column: DatasetColumn) -> pb.DatasetColumn:
    dtype = NUMBERS.get(column.dtype or "", pb_tensor.DATA_TYPE_UNSPECIFIED)
    return pb.DatasetColumn(name=column.name, dtype=dtype, kind=encode_kind(column.kind))
