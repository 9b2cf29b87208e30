"""Predict: requests → commands, predictions → responses."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from epochd.v1 import trainer_pb2 as pb
from epochd_server.codec.labels import encode_classes, encode_label_array
from epochd_server.codec.members import decode_key
from epochd_server.codec.tables import decode_table
from epochd_server.codec.tensors import decode_tensor, fill_tensor, plain_tensor
from epochd_server.domain.commands import PredictCommand
from epochd_server.domain.data import Table
from epochd_server.domain.errors import Violations
from epochd_server.domain.fleets import Key
from epochd_server.domain.predictions import Prediction
from epochd_server.domain.resources import (
    VERSION_REFERENCE_RULE,
    parse_version_reference,
    version_name,
)

MAX_ROUTING_KEY_BYTES = 1_024


def decode_predict(request: pb.PredictRequest, violations: Violations) -> PredictCommand | None:
    """The command of a request; whether the rows suit the model is not looked at here.

    Returns:
        None, and everything wrong in ``violations``, where the request is malformed.
    """
    before = len(violations.found)
    reference = parse_version_reference(request.model)
    routing_key = _decode_routing_key(request.routing_key, violations)
    if reference is None:
        violations.add("model", f"{VERSION_REFERENCE_RULE}, is {request.model[:80]!r}")
    rows = _decode_rows(request, violations)
    keys = _decode_keys(request, violations) if request.HasField("keys") else None
    member = _decode_member(request, "member", violations) if request.HasField("member") else None
    fallback = None
    if request.HasField("fallback_member"):
        fallback = _decode_member(request, "fallback_member", violations)
    if reference is None or rows is None or len(violations.found) > before:
        return None
    return PredictCommand(
        reference=reference,
        rows=rows,
        probabilities=request.probabilities,
        logits=request.logits,
        keys=keys,
        member=member,
        unknown_as_nan=request.unknown_as_nan,
        fallback_member=fallback,
        routing_key=routing_key,
    )


def encode_prediction(prediction: Prediction) -> pb.PredictResponse:
    """The response that holds predictions."""
    version = prediction.version
    response = pb.PredictResponse()
    response.model_version = version_name(version.model, version.version)
    classes = None if version.card.classes is None else encode_classes(version.card.classes)
    if classes is None:
        fill_tensor(response.values, prediction.values)
    else:
        response.labels.CopyFrom(encode_label_array(prediction.values))
        response.classes.CopyFrom(classes)
    if prediction.probabilities is not None:
        fill_tensor(response.probabilities, prediction.probabilities)
    if prediction.logits is not None:
        fill_tensor(response.logits, prediction.logits)
    if prediction.canary is not None and prediction.canary_rows is not None:
        response.canary_version = version_name(prediction.canary.model, prediction.canary.version)
        response.canary_rows.extend(prediction.canary_rows.tolist())
    return response


def _decode_routing_key(text: str, violations: Violations) -> str | None:
    size = len(text.encode())
    if size > MAX_ROUTING_KEY_BYTES:
        violations.add("routing_key", f"must have at most {MAX_ROUTING_KEY_BYTES:,} bytes, has {size:,}")
    return text or None


def _decode_rows(request: pb.PredictRequest, violations: Violations) -> Table | NDArray[np.generic] | None:
    kind = request.WhichOneof("rows")
    if kind is None:
        violations.add("rows", "must be set: table or tensor")
        return None
    if kind == "tensor":
        plain = plain_tensor(request.tensor)
        if plain is not None and plain.ndim in (1, 2):
            return plain
    with violations.within(kind):
        if kind == "table":
            return decode_table(request.table, violations)
        tensor = decode_tensor(request.tensor, violations)
        if tensor is not None and tensor.ndim not in (1, 2):
            violations.add("shape", f"must be [rows, features] or [features], has {tensor.ndim} dimensions")
            return None
        return tensor


def _decode_keys(request: pb.PredictRequest, violations: Violations) -> Table | None:
    if request.HasField("table"):
        violations.add("keys", "is for tensor rows; with table rows the key columns are in the table")
    if request.HasField("member"):
        violations.add("keys", "is not needed with member, which predicts every row")
    with violations.within("keys"):
        return decode_table(request.keys, violations)


def _decode_member(
    request: pb.PredictRequest, field: Literal["member", "fallback_member"], violations: Violations
) -> Key | None:
    with violations.within(field):
        return decode_key(getattr(request, field), violations)
