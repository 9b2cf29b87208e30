"""The plain values of the API from their messages."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC

from epochd._wire.events import decode_started
from epochd._wire.registry import decode_canary
from epochd._wire.tensors import decode_tensor, dtype_name
from epochd.v1 import datasets_pb2, differentiate_pb2, models_pb2, preprocessing_pb2, tensor_pb2, trainer_pb2
from epochd.values import Dataset, Derivatives, Estimate, RegisteredModel, Value


def decode_estimate(message: trainer_pb2.TrainEstimate) -> Estimate:
    """What a training would be."""
    return Estimate(
        started=decode_started(message.started), steps=message.steps, memory_bytes=message.memory_bytes
    )


def decode_dataset(message: datasets_pb2.Dataset) -> Dataset:
    """An uploaded table."""
    return Dataset(
        name=message.name,
        rows=message.rows,
        columns={column.name: _type_name(column) for column in message.columns},
        size_bytes=message.size_bytes,
        create_time=message.create_time.ToDatetime(tzinfo=UTC),
    )


def _type_name(column: datasets_pb2.DatasetColumn) -> str:
    is_time = column.kind == preprocessing_pb2.COLUMN_KIND_TIMESTAMP
    return dtype_name(column.dtype) or ("timestamp" if is_time else "text")


def decode_registered(message: models_pb2.Model) -> RegisteredModel:
    """A model with its aliases."""
    return RegisteredModel(
        name=message.name,
        latest_version=message.latest_version,
        aliases={alias.alias: alias.version for alias in message.aliases},
        etags={alias.alias: alias.etag for alias in message.aliases},
        canaries={
            alias.alias: canary for alias in message.aliases if (canary := decode_canary(alias)) is not None
        },
        labels=dict(sorted(message.labels.items())),
        create_time=message.create_time.ToDatetime(tzinfo=UTC),
        update_time=message.update_time.ToDatetime(tzinfo=UTC),
    )


def decode_derivatives(message: differentiate_pb2.DifferentiateResponse) -> Derivatives:
    """Value and gradients."""
    return Derivatives(
        value=_value(message.value),
        gradients=_values(message.gradients),
        intermediates=_values(message.intermediates),
        history=[_values(once.gradients) for once in message.history],
    )


def _values(tensors: Iterable[tensor_pb2.NamedTensor]) -> dict[str, Value]:
    return {named.name: _value(named.tensor) for named in tensors}


def _value(tensor: tensor_pb2.Tensor) -> Value:
    array = decode_tensor(tensor)
    return float(array) if array.ndim == 0 else array
