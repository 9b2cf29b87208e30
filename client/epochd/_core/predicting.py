"""Predictions: rows in any form and number, in as many requests as they need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochd._core.calling import call
from epochd._core.effects import Program
from epochd._core.methods import PREDICT
from epochd._core.routing import Route
from epochd._wire.labels import decode_labels
from epochd._wire.tables import Table, as_table, is_table
from epochd._wire.tensors import as_array, decode_tensor, encode_tensor
from epochd.errors import Internal
from epochd.policy import Policy
from epochd.v1 import tensor_pb2, trainer_pb2
from epochd.values import Prediction

BATCH_BYTES = 3_000_000
"""Rows of one request, and of its answer, take no more; gRPC allows 4 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What to predict with, and what to return."""

    model: str
    """A model's, version's or alias's full name."""

    probabilities: bool = False
    """Whether to return probabilities."""

    logits: bool = False
    """Whether to return logits."""

    features: Sequence[str] = ()
    """The model's features, if known: one feature makes one dimension a column of rows."""

    targets: Sequence[str] = ()
    """The model's targets and weights, if known: a table may have them, and they are left out."""

    outputs: int = 1
    """Numbers that the model gives for a row, if known."""

    keys: Sequence[str] = ()
    """Fleets: the key columns, if known; a table has them unless the route says how else rows find their members."""

    route: Route = field(default_factory=Route)
    """Fleets: how rows find their members."""

    routing_key: str = ""
    """What decides between an alias's version and its canary; empty: each row's key or features."""

    @property
    def answer_bytes(self) -> int:
        """About how many bytes a row's answer has."""
        return 16 + 8 * self.outputs * (1 + self.probabilities + self.logits)


def predict(query: Query, data: Any, policy: Policy) -> Program[Prediction]:
    """Predicts for all rows of an array or a table."""
    parts = []
    for rows in _batches(query, data):
        request = trainer_pb2.PredictRequest(
            model=query.model,
            probabilities=query.probabilities,
            logits=query.logits,
            routing_key=query.routing_key,
            **query.route.fields(),
            **rows,
        )
        parts.append(_decode((yield from call(PREDICT, request, policy))))
    return _join(parts)


def probability_columns(prediction: Prediction) -> NDArray[Any]:
    """Probabilities as [rows, classes], also where two classes share one logit.

    Raises:
        Internal: When the server gave none, though asked.
    """
    p = prediction.probabilities
    if p is None:
        raise Internal("The server returned no probabilities.", reason="BAD_RESPONSE")
    return np.stack([1 - p, p], axis=1) if p.ndim == 1 else p


def _batches(query: Query, data: Any) -> Iterator[dict[str, Any]]:
    if is_table(data):
        table = _without_spare(query, as_table(data))
        rows_of: Callable[[int, int], dict[str, Any]] = lambda i, j: {"table": table.encode(i, j)}  # noqa: E731
        return _cut(table.rows, table.nbytes, query, rows_of)
    array = as_array(data)
    keys = query.route.keys
    if array.ndim == 1 and len(query.features) == 1:
        array = array.reshape(-1, 1)
    if array.ndim != 2:  # one row, or wrong: the server says so
        return iter([{"tensor": encode_tensor(array), **query.route.key_rows(0, None)}])
    nbytes = array.nbytes + (0 if keys is None else keys.nbytes)
    return _cut(
        len(array),
        nbytes,
        query,
        lambda i, j: {"tensor": encode_tensor(array[i:j]), **query.route.key_rows(i, j)},
    )


def _without_spare(query: Query, table: Table) -> Table:
    """The table with its keys, without targets and, where the route names the member, without key columns."""
    keys = query.route.keys
    if keys is not None:
        table = Table(tuple(c for c in table.columns if c.name not in keys.names) + keys.columns)
    spare = {*query.targets} - {*query.features}
    if query.route.member is not None:
        spare |= {*query.keys}
    return Table(tuple(column for column in table.columns if column.name not in spare))


def _cut(
    rows: int, nbytes: int, query: Query, rows_of: Callable[[int, int], dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """One request's rows after the other; also no rows are one request."""
    row_bytes = max(nbytes // max(1, rows) + 1, query.answer_bytes)
    step = max(1, BATCH_BYTES // row_bytes)
    return (rows_of(start, min(start + step, rows)) for start in range(0, max(1, rows), step))


def _decode(response: trainer_pb2.PredictResponse) -> Prediction:
    classes = decode_labels(response.classes)
    if response.WhichOneof("predictions") == "labels":
        values = decode_labels(response.labels)
    else:
        values = decode_tensor(response.values)
    if values is None:  # no rows: labels of no type
        values = np.empty(0, dtype=np.int64 if classes is None else classes.dtype)
    return Prediction(
        values=values,
        probabilities=_optional(response, "probabilities"),
        logits=_optional(response, "logits"),
        classes=classes,
        model_version=response.model_version,
        canary_version=response.canary_version,
        canary_rows=np.array(response.canary_rows, np.int64) if response.canary_rows else None,
    )


def _optional(response: trainer_pb2.PredictResponse, field: str) -> NDArray[Any] | None:
    tensor: tensor_pb2.Tensor = getattr(response, field)
    return decode_tensor(tensor) if response.HasField(field) else None  # type: ignore[arg-type]


def _join(parts: Sequence[Prediction]) -> Prediction:
    first = parts[0]
    if len(parts) == 1:
        return first
    canary, canary_rows = _joined_canary(parts)
    return Prediction(
        values=np.concatenate([part.values for part in parts]),
        probabilities=_concatenate([part.probabilities for part in parts]),
        logits=_concatenate([part.logits for part in parts]),
        classes=first.classes,
        model_version=_main_version(parts, canary),
        canary_version=canary,
        canary_rows=canary_rows,
    )


def _main_version(parts: Sequence[Prediction], canary: str) -> str:
    """The version that predicted the rows which the canary did not."""
    return next(
        (part.model_version for part in parts if part.model_version != canary), parts[0].model_version
    )


def _joined_canary(parts: Sequence[Prediction]) -> tuple[str, NDArray[Any] | None]:
    """The canary of some parts and its rows among all; of a part whose rows are all its own, these."""
    canary = next((part.canary_version for part in parts if part.canary_version), "")
    if not canary:
        return "", None
    rows, begin = [], 0
    for part in parts:
        own = np.arange(len(part.values)) if part.model_version == canary else part.canary_rows
        rows.append(begin + (np.empty(0, np.int64) if own is None else own))
        begin += len(part.values)
    return canary, np.concatenate(rows)


def _concatenate(arrays: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    present = [array for array in arrays if array is not None]
    return np.concatenate(present) if present else None
