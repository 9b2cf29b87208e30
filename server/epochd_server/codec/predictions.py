"""Predict: requests → commands, predictions → responses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from epochd.v1 import trainer_pb2 as pb
from epochd_server.codec.labels import encode_classes, encode_label_array
from epochd_server.codec.tables import decode_table
from epochd_server.codec.tensors import decode_tensor, encode_tensor
from epochd_server.domain.commands import PredictCommand
from epochd_server.domain.data import Table
from epochd_server.domain.errors import Violations
from epochd_server.domain.predictions import Prediction
from epochd_server.domain.resources import (
    VERSION_REFERENCE_RULE,
    parse_version_reference,
    version_name,
)


def decode_predict(request: pb.PredictRequest, violations: Violations) -> PredictCommand | None:
    """The command of a request; whether the rows suit the model is not looked at here.

    Returns:
        None, and everything wrong in ``violations``, where the request is malformed.
    """
    reference = parse_version_reference(request.model)
    if reference is None:
        violations.add("model", f"{VERSION_REFERENCE_RULE}, is {request.model[:80]!r}")
    rows = _decode_rows(request, violations)
    if reference is None or rows is None:
        return None
    return PredictCommand(
        reference=reference, rows=rows, probabilities=request.probabilities, logits=request.logits
    )


def encode_prediction(prediction: Prediction) -> pb.PredictResponse:
    """The response that holds predictions."""
    version = prediction.version
    response = pb.PredictResponse(model_version=version_name(version.model, version.version))
    classes = encode_classes(version.card.classes)
    if classes is None:
        response.values.CopyFrom(encode_tensor(prediction.values))
    else:
        response.labels.CopyFrom(encode_label_array(prediction.values))
        response.classes.CopyFrom(classes)
    if prediction.probabilities is not None:
        response.probabilities.CopyFrom(encode_tensor(prediction.probabilities))
    if prediction.logits is not None:
        response.logits.CopyFrom(encode_tensor(prediction.logits))
    return response


def _decode_rows(request: pb.PredictRequest, violations: Violations) -> Table | NDArray[np.generic] | None:
    kind = request.WhichOneof("rows")
    if kind is None:
        violations.add("rows", "must be set: table or tensor")
        return None
    with violations.within(kind):
        if kind == "table":
            return decode_table(request.table, violations)
        tensor = decode_tensor(request.tensor, violations)
        if tensor is not None and tensor.ndim not in (1, 2):
            violations.add("shape", f"must be [rows, features] or [features], has {tensor.ndim} dimensions")
            return None
        return tensor
