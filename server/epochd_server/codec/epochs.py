"""Logged epochs as the bytes of their events: what ``events.encode`` would make of each, an order faster.

Legend: P epochs.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from epochd.v1 import run_pb2, tensor_pb2
from epochd_server.codec.tensors import encode_tensor
from epochd_server.codec.times import encode_time
from epochd_server.codec.wire import delimited, tag, varint
from epochd_server.domain.epoch_columns import EpochColumns

_EVENT, _LOG = run_pb2.Event.DESCRIPTOR, run_pb2.EpochLog.DESCRIPTOR
_NAMED, _TENSOR = tensor_pb2.NamedTensor.DESCRIPTOR, tensor_pb2.Tensor.DESCRIPTOR
_SEQUENCE, _TIME, _EPOCH_LOG = tag(_EVENT, "sequence"), tag(_EVENT, "time"), tag(_EVENT, "epoch_log")
_EPOCH, _PARAMETERS = tag(_LOG, "epoch"), tag(_LOG, "parameters")
_NUMBERS = struct.Struct("<sdsdsd")
_LOSS, _LR, _RATE = tag(_LOG, "loss"), tag(_LOG, "lr"), tag(_LOG, "rows_per_second")
_NAMED_TENSOR, _DATA = tag(_NAMED, "tensor"), tag(_TENSOR, "data")


def encode_epochs(first: int, time: datetime, logs: EpochColumns) -> list[bytes]:
    """The message of an event for each epoch.

    Args:
        first: Sequence of the first one.
        time: When they all happened.
        logs: The epochs.
    """
    when = delimited(_TIME, encode_time(time).SerializeToString())
    columns = zip(logs.epochs, logs.losses, logs.lrs, logs.rows_per_second, strict=True)
    parameters = _parameters(logs.parameters, len(logs))
    messages: list[bytes] = []
    for index, (epoch, loss, lr, rate) in enumerate(columns):
        numbers = _NUMBERS.pack(_LOSS, loss, _LR, lr, _RATE, rate)
        log = b"%b%b%b%b" % (_EPOCH, varint(epoch), numbers, parameters[index])
        messages.append(
            b"%b%b%b%b%b%b" % (_SEQUENCE, varint(first + index), when, _EPOCH_LOG, varint(len(log)), log)
        )
    return messages


def _parameters(parameters: Mapping[str, NDArray[np.floating]], count: int) -> Sequence[bytes]:
    """The field ``parameters`` of each of so many epochs."""
    if not parameters:
        return [b""] * count
    return [b"".join(parts) for parts in zip(*(_tensors(*item) for item in parameters.items()), strict=True)]


def _tensors(name: str, array: NDArray[np.floating]) -> list[bytes]:
    """One tensor of each epoch, of [P, …]: all are as long, and differ in their last bytes only."""
    head, size = _before_data(name, array.dtype, array.shape[1:])
    data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return [head + data[start : start + size] for start in range(0, len(data), size)]


@lru_cache(maxsize=256)
def _before_data(name: str, dtype: np.dtype[np.floating], shape: tuple[int, ...]) -> tuple[bytes, int]:
    """What comes before the elements of a tensor in the field ``parameters``, and how many bytes these are."""
    tensor = encode_tensor(np.zeros(shape, dtype))
    size = len(tensor.data)
    tensor.ClearField("data")
    before = tensor.SerializeToString() + _DATA + varint(size)
    named = tensor_pb2.NamedTensor(name=name).SerializeToString() + _NAMED_TENSOR
    named += varint(len(before) + size) + before
    return _PARAMETERS + varint(len(named) + size) + named, size
