"""Coefficients of linear models: domain → messages."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from epochd.v1 import preprocessing_pb2 as pb
from epochd_server.codec.tensors import encode_tensor
from epochd_server.domain.coefficients import original_coefficients
from epochd_server.domain.models import VersionCard
from epochd_server.domain.runs import Parameters
from epochd_server.domain.specs import LinearModel

_MAX_NAMES = 250_000
"""Characters."""


def encode_coefficients(
    card: VersionCard, parameters: Parameters, learned: NDArray[np.float64] | None = None
) -> pb.Coefficients | None:
    """The coefficients in the units of the columns.

    None where the model is not linear, has no parameters, or its features' names would fill a message.

    Args:
        card: Of the version.
        parameters: Of a single model, or of all members [K, …].
        learned: Fleets: what members learned of their columns by themselves, [K, S].
    """
    if not isinstance(card.spec.model, LinearModel) or not parameters:
        return None
    if sum(map(len, card.feature_columns)) > _MAX_NAMES:
        return None
    found = original_coefficients(parameters, card.feature_columns, card.preprocess, learned)
    return pb.Coefficients(
        names=found.names, values=encode_tensor(found.values), intercepts=encode_tensor(found.intercepts)
    )
