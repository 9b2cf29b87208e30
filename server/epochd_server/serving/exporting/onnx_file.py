"""A version as an ONNX file.

Inputs: ``features`` [rows, features], in the order of the metadata's ``feature_columns``; where the version has
preprocessing, each of those columns by its own name instead, as it is. For a whole fleet also ``member`` int64 [rows],
places in the metadata's ``member_keys``. Outputs are those of Predict: ``values``, or for a classifier ``logits``,
``probabilities`` and ``labels``.
"""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.models import VersionCard
from epochd_server.domain.runs import Parameters
from epochd_server.domain.specs import ModuleModel
from epochd_server.serving.exporting.features import Learned, add_features, add_fold_features
from epochd_server.serving.exporting.graph import Graph
from epochd_server.serving.exporting.networks import add_network, dtype_of, feature_width, outputs_of

_MAX_BYTES = 2**31 - 2**20
"""A protobuf message is smaller than 2 GiB."""


def onnx_file(
    name: str,
    card: VersionCard,
    parameters: Parameters,
    keys: list[list[object]],
    learned: NDArray[np.float64] | None = None,
) -> bytes:
    """The bytes of an ONNX file, checked by ONNX's own checker.

    Args:
        name: The version's resource name.
        card: What is known of it.
        parameters: By PyTorch's names; of a fleet, those of all members [K, …].
        keys: Fleets: the members' keys in their order; otherwise empty.
        learned: Fleets: what members learned of their columns by themselves, float64 [K, S]; None: nothing.

    Raises:
        EpochdError: EXPORT_NOT_POSSIBLE.
    """
    model = card.spec.model
    if isinstance(model, ModuleModel):
        raise _impossible("A registered module has no ONNX form here; export it as PT2.")
    if sum(array.nbytes for array in parameters.values()) > _MAX_BYTES:
        raise _impossible("Its parameters do not fit an ONNX file, which is smaller than 2 GiB.")
    graph = Graph(dtype_of(parameters))
    member = graph.input("member", np.dtype(np.int64), ["rows"]) if keys else None
    if card.preprocess is None:
        x = graph.input("features", graph.dtype, ["rows", feature_width(model)])
    elif card.preprocess.folds and member is not None:
        x = add_fold_features(graph, card.preprocess, member)
    else:
        own = None if learned is None or member is None else Learned(learned, member)
        x = add_features(graph, card.preprocess, own)
    _add_outputs(graph, card, outputs_of(model), add_network(graph, model, parameters, x, member))
    metadata = {
        "epochd_version": name,
        "feature_columns": json.dumps(card.input_columns),
        "target_columns": json.dumps(card.target_columns),
    }
    if keys:
        metadata |= {"key_columns": json.dumps(card.key_columns), "member_keys": json.dumps(keys)}
    return bytes(graph.model(metadata).SerializeToString())


def _add_outputs(graph: Graph, card: VersionCard, width: int, raw: str) -> None:
    """What Predict makes of a model's outputs [rows, outputs]."""
    is_flat = width == 1
    outputs = graph.add("Squeeze", raw, graph.integers(1)) if is_flat else raw
    shape: list[int | str] = ["rows"] if is_flat else ["rows", width]
    if card.classes is None:
        graph.output(outputs, "values", graph.dtype, shape)
        return
    graph.output(outputs, "logits", graph.dtype, shape)
    share = graph.add("Sigmoid", outputs) if is_flat else graph.add("Softmax", outputs, axis=1)
    graph.output(share, "probabilities", graph.dtype, shape)
    kind = np.dtype(object) if isinstance(card.classes[0], str) else np.dtype(np.int64)
    classes = graph.constant("classes", np.array(card.classes, kind))
    graph.output(graph.add("Gather", classes, _best_class(graph, outputs, is_flat)), "labels", kind, ["rows"])


def _best_class(graph: Graph, outputs: str, is_flat: bool) -> str:
    """Indices [rows] of the most probable classes; the first of equal ones."""
    if not is_flat:
        return graph.add("ArgMax", outputs, axis=1, keepdims=0)
    is_second = graph.add("Greater", outputs, graph.number(0.0))
    return graph.add("Where", is_second, graph.integers(1), graph.integers(0))


def _impossible(message: str) -> EpochdError:
    return EpochdError(Reason.EXPORT_NOT_POSSIBLE, message)
