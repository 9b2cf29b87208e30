"""Parameters by name ↔ repeated NamedTensor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import numpy as np
from numpy.typing import NDArray

from epochd.v1 import tensor_pb2 as pb
from epochd_server.codec.tensors import decode_tensor, encode_tensor
from epochd_server.domain.errors import EpochdError, Reason, Violations
from epochd_server.domain.runs import Parameters


def encode_parameters(parameters: Parameters | None) -> list[pb.NamedTensor]:
    """The messages of parameters, in their order; none for None."""
    if not parameters:
        return []
    return [pb.NamedTensor(name=name, tensor=encode_tensor(value)) for name, value in parameters.items()]


def decode_parameters(messages: Iterable[pb.NamedTensor]) -> Parameters | None:
    """Parameters that this server once encoded; None where there are none.

    Raises:
        EpochdError: ARTIFACT_CORRUPT where one is no floating-point tensor.
    """
    violations = Violations()
    parameters: dict[str, NDArray[np.floating]] = {}
    for message in messages:
        value = decode_tensor(message.tensor, violations)
        if value is None or not np.issubdtype(value.dtype, np.floating):
            raise EpochdError(Reason.ARTIFACT_CORRUPT)
        parameters[message.name] = cast("NDArray[np.floating]", value)
    return parameters or None
