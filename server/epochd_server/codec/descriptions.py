"""Descriptions of datasets' columns: domain ↔ JSON for storage, domain → messages; and tables → messages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from epochd.v1 import datasets_pb2 as pb
from epochd.v1 import tensor_pb2
from epochd_server.codec.preprocessing import encode_kind
from epochd_server.codec.tensors import encode_tensor
from epochd_server.domain.data import Column, ColumnKind, Table
from epochd_server.domain.descriptions import ColumnDescription


def pack_descriptions(columns: Sequence[ColumnDescription]) -> bytes:
    """The descriptions for storage."""
    return json.dumps([{**asdict(column), "kind": column.kind.value} for column in columns]).encode()


def unpack_descriptions(data: bytes) -> tuple[ColumnDescription, ...]:
    """What :func:`pack_descriptions` made."""
    return tuple(ColumnDescription(**{**one, "kind": ColumnKind(one["kind"])}) for one in json.loads(data))


def encode_description(column: ColumnDescription) -> pb.ColumnDescription:
    """The message of a column's description."""
    return pb.ColumnDescription(
        name=column.name,
        kind=encode_kind(column.kind),
        missing=column.missing,
        distinct=column.distinct,
        distinct_is_estimate=column.distinct_is_estimate,
        min=column.min,
        max=column.max,
        mean=column.mean,
        std=column.std,
        earliest_microseconds=column.earliest,
        latest_microseconds=column.latest,
    )


def encode_table(table: Table) -> tensor_pb2.Table:
    """The message of a table."""
    return tensor_pb2.Table(columns=map(_encode_column, table.columns))


def _encode_column(column: Column) -> tensor_pb2.Column:
    match column.kind:
        case ColumnKind.TEXT:
            texts = column.values.tolist()
            missing = [row for row, text in enumerate(texts) if text is None]
            values = tensor_pb2.Strings(values=["" if text is None else text for text in texts])
            return tensor_pb2.Column(name=column.name, strings=values, missing_rows=missing)
        case ColumnKind.TIMESTAMP:
            times = tensor_pb2.Timestamps(microseconds=column.values.view(np.int64))
            gone = np.flatnonzero(np.isnat(column.values.view("M8[us]"))).tolist()
            return tensor_pb2.Column(name=column.name, timestamps=times, missing_rows=gone)
        case _:
            return tensor_pb2.Column(name=column.name, tensor=encode_tensor(column.values))
