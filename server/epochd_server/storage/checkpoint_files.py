"""Checkpoints as safetensors bytes: one tensor for each array, and the numbers in the file's metadata."""

from __future__ import annotations

import json
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from epochd_server.domain.checkpoints import FORMAT, Checkpoint, MemberCheckpoint
from epochd_server.domain.errors import EpochdError, Reason

_HEADER_LENGTH_BYTES = 8
_ENDED = "ended"


class _Facts(TypedDict):
    """The numbers of a checkpoint; members are named by their numbers."""

    format: int
    epochs: dict[str, int]
    training_seconds: float


def pack(checkpoint: Checkpoint) -> bytes:
    """The file of a checkpoint; the same checkpoint always gives the same bytes."""
    tensors = {f"{_ENDED}/{name}": np.ascontiguousarray(array) for name, array in checkpoint.ended.items()}
    for member, place in checkpoint.members.items():
        for name, array in place.state.items():
            tensors[f"{member}/{name}"] = np.asarray(array, order="C")
    facts: _Facts = {
        "format": FORMAT,
        "epochs": {str(member): place.epoch for member, place in checkpoint.members.items()},
        "training_seconds": checkpoint.training_seconds,
    }
    return bytes(save(tensors, metadata={"checkpoint": json.dumps(facts)}))


def unpack(data: memoryview) -> Checkpoint | None:
    """The checkpoint of a file that :func:`pack` made; None where a server with another format made it.

    Raises:
        EpochdError: ARTIFACT_CORRUPT.
    """
    try:
        facts = _facts(data)
        if facts["format"] != FORMAT:
            return None
        tensors = load(bytes(data))
    except (SafetensorError, ValueError, KeyError) as error:
        raise EpochdError(Reason.ARTIFACT_CORRUPT) from error
    states: dict[str, dict[str, NDArray[np.generic]]] = {owner: {} for owner in (_ENDED, *facts["epochs"])}
    for name, array in tensors.items():
        owner, _, column = name.partition("/")
        states[owner][column] = array
    ended = states.pop(_ENDED)
    return Checkpoint(
        members={
            int(member): MemberCheckpoint(facts["epochs"][member], state) for member, state in states.items()
        },
        ended=ended,
        training_seconds=facts["training_seconds"],
    )


def _facts(data: memoryview) -> _Facts:
    begin = _HEADER_LENGTH_BYTES + int.from_bytes(data[:_HEADER_LENGTH_BYTES], "little")
    header = json.loads(bytes(data[_HEADER_LENGTH_BYTES:begin]))
    facts: _Facts = json.loads(header["__metadata__"]["checkpoint"])
    return facts
