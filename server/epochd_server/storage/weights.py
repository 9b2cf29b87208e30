"""Parameters as safetensors bytes.

Nothing here depends on shapes: the stacked [K, …] parameters of many models are packed like those of one.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
from safetensors.numpy import load, save

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.resources import version_name
from epochd_server.domain.runs import Parameters

INLINE_BYTES = 256 * 1024
"""Weights up to this size are stored in the database, in the same transaction as their version."""

_ORDER = "parameters"
_HEADER_LENGTH_BYTES = 8


def pack(parameters: Parameters) -> bytes:
    """A safetensors file; the same parameters always give the same bytes.

    The format sorts tensors by its own rules, so that their order is kept in the file's metadata.
    """
    tensors = {name: np.asarray(value, order="C") for name, value in parameters.items()}
    return bytes(save(tensors, metadata={_ORDER: json.dumps(list(parameters))}))


def unpack(data: bytes) -> Parameters:
    """The parameters of a file that :func:`pack` made, in their order."""
    length = int.from_bytes(data[:_HEADER_LENGTH_BYTES], "little")
    header = json.loads(data[_HEADER_LENGTH_BYTES : _HEADER_LENGTH_BYTES + length])
    tensors = load(data)
    return {name: tensors[name] for name in json.loads(header["__metadata__"][_ORDER])}


def digest_of(data: bytes) -> str:
    """SHA-256 in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def artifact_name(run_id: str, digest: str) -> str:
    """Where a run's weights lie. Named by run too: no two versions share a file, so deleting one is safe."""
    return f"weights/{run_id}.{digest}.safetensors"


def damaged(model: str, version: int) -> EpochdError:
    """The error for weights that are missing or do not have their digest."""
    name = version_name(model, version)
    return EpochdError(Reason.ARTIFACT_CORRUPT, f"The weights of {name} are damaged.", {"name": name})
