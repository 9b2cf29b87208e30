"""Plans of requests that differ from an earlier one in their rows' values, their seed and their names only.

A thousand strangers who train the same model on rows of their own ask the same question a thousand times. All that a
plan says of such a request but its values was found out the first time.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from epochd.v1.tensor_pb2 import Tensor
from epochd.v1.trainer_pb2 import TrainRequest
from epochd_server.codec.tensors import plain_tensor
from epochd_server.domain.data import TrainingArrays
from epochd_server.domain.plans import Plan
from epochd_server.domain.resources import is_name, is_request_id
from epochd_server.planning.lineage import lineage_of
from epochd_server.planning.requests import read_sent

_MOST = 256
_LARGEST_KEY = 16_384


class FamiliarRequests:
    """Remembers plans of small regressions on tensors, the latest of each kind."""

    def __init__(self) -> None:
        self._plans: OrderedDict[bytes, Plan] = OrderedDict()

    def plan(self, request: TrainRequest) -> Plan | None:
        """The plan of a request whose like was planned before; None where it has to be looked at afresh."""
        key = _key(request)
        known = None if key is None else self._plans.get(key)
        if key is None or known is None or not _are_names_sound(request):
            return None
        self._plans.move_to_end(key)
        data = _rows(request, known)
        return None if data is None else _like(known, request, data)

    def remember(self, request: TrainRequest, plan: Plan) -> None:
        """Notes the plan of a request, if others may be like it."""
        key = _key(request)
        if key is None or len(key) > _LARGEST_KEY or not _is_simple(plan):
            return
        self._plans[key] = plan
        if len(self._plans) > _MOST:
            self._plans.popitem(last=False)


def _key(request: TrainRequest) -> bytes | None:
    """Everything that must be the same: all but values, seed and names; None where values are no raw bytes."""
    tensors = request.data.tensors
    if not (
        tensors.features.HasField("data") and tensors.targets.HasField("data") and request.HasField("seed")
    ):
        return None
    rest = TrainRequest()
    rest.CopyFrom(request)
    for field in ("request_id", "model_name", "seed"):
        rest.ClearField(field)
    rest.data.tensors.features.ClearField("data")
    rest.data.tensors.targets.ClearField("data")
    return rest.SerializeToString(deterministic=True)


def _is_simple(plan: Plan) -> bool:
    """Whether nothing in a plan but its rows and its lineage follows from the rows' values."""
    data, started = plan.data, plan.started
    if not isinstance(data, TrainingArrays) or data.weights is not None or data.validation is not None:
        return False
    follows = (data.groups, started.classes, started.preprocess, plan.spec.sweep)
    return not started.members and all(part is None for part in follows)


def _are_names_sound(request: TrainRequest) -> bool:
    request_id, model = request.request_id, request.model_name
    return (
        request.seed >= 0 and (not request_id or is_request_id(request_id)) and (not model or is_name(model))
    )


def _rows(request: TrainRequest, known: Plan) -> TrainingArrays | None:
    """The request's rows; None where they need a closer look."""
    if not isinstance(known.data, TrainingArrays):
        return None
    features = _values(request.data.tensors.features, known.data.features)
    targets = _values(request.data.tensors.targets, known.data.targets)
    if features is None or targets is None:
        return None
    return replace(known.data, features=features, targets=targets)


def _values(message: Tensor, like: NDArray[np.generic]) -> NDArray[np.floating] | None:
    """A tensor as an array of the same type and shape as another that came in a tensor of this one's shape."""
    array = plain_tensor(message)
    if array is None or array.dtype != like.dtype or array.size != like.size or not np.isfinite(array).all():
        return None
    values: NDArray[np.floating] = np.array(array.reshape(like.shape))
    return values


def _like(known: Plan, request: TrainRequest, data: TrainingArrays) -> Plan:
    spec = replace(known.spec, seed=request.seed)
    sent = read_sent(request, request.seed)
    return replace(
        known,
        request=sent.stored,
        asked=sent.asked,
        model=request.model_name or None,
        fingerprint=sent.fingerprint,
        spec=spec,
        data=data,
        started=replace(known.started, spec=spec, lineage=lineage_of(request, None)),
    )
