"""Linear and sequential models as ONNX nodes: one member's, or those of a whole fleet by the member of each row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from epochd_server.domain.layers import activation_arguments
from epochd_server.domain.runs import Parameters
from epochd_server.domain.specs import ActivationLayer, Layer, LinearLayer, LinearModel, SequentialModel
from epochd_server.serving.exporting.activations import add_activation
from epochd_server.serving.exporting.graph import Graph

_Affine = Callable[[str, str], str]
"""(name of a linear layer, its input) → its output."""


def add_network(
    graph: Graph, model: LinearModel | SequentialModel, parameters: Parameters, x: str, member: str | None
) -> str:
    """Adds a model and returns its outputs [rows, outputs].

    Args:
        graph: Is added to.
        model: With resolved sizes.
        parameters: By PyTorch's names; with ``member``, those of all members [K, …].
        x: Features [rows, features].
        member: The member of each row, int64 [rows]; None where there is one.
    """
    affine = _one_affine(graph, parameters) if member is None else _stacked_affine(graph, parameters, member)
    if isinstance(model, LinearModel):
        return affine("linear", x)
    for index, layer in enumerate(model.layers):
        x = _add_layer(graph, str(index), layer, affine, x)
    return x


def _add_layer(graph: Graph, name: str, layer: Layer, affine: _Affine, x: str) -> str:
    if isinstance(layer, LinearLayer):
        return affine(name, x)
    if isinstance(layer, ActivationLayer):
        tanh = layer.function == "gelu" and layer.approximate == "tanh"
        function = "gelu_tanh" if tanh else layer.function
        arguments = tuple(activation_arguments(layer.function, layer.parameters).values())
        return add_activation(graph, function, arguments, x)
    raise TypeError(f"no ONNX form of {type(layer).__name__} is known")


def _one_affine(graph: Graph, parameters: Parameters) -> _Affine:
    def add(name: str, x: str) -> str:
        inputs = [x, graph.constant(f"{name}.weight", parameters[f"{name}.weight"])]
        if f"{name}.bias" in parameters:
            inputs.append(graph.constant(f"{name}.bias", parameters[f"{name}.bias"]))
        return graph.add("Gemm", *inputs, transB=1)

    return add


def _stacked_affine(graph: Graph, parameters: Parameters, member: str) -> _Affine:
    def add(name: str, x: str) -> str:
        stacked = graph.constant(f"{name}.weight", parameters[f"{name}.weight"])
        weight = graph.add("Gather", stacked, member, axis=0)  # [rows, out, in]
        column = graph.add("Unsqueeze", x, graph.integers(2))  # [rows, in, 1]
        y = graph.add("Squeeze", graph.add("MatMul", weight, column), graph.integers(2))
        if f"{name}.bias" not in parameters:
            return y
        bias = graph.constant(f"{name}.bias", parameters[f"{name}.bias"])
        return graph.add("Add", y, graph.add("Gather", bias, member, axis=0))

    return add


def feature_width(model: LinearModel | SequentialModel) -> int:
    """The number of features of a model with resolved sizes.

    Raises:
        ValueError: They are not resolved.
    """
    layers = (model,) if isinstance(model, LinearModel) else model.layers
    for layer in layers:
        if isinstance(layer, LinearLayer | LinearModel) and layer.in_features is not None:
            return layer.in_features
    raise ValueError("the model's sizes are not resolved")


def dtype_of(parameters: Parameters) -> np.dtype[np.floating]:
    """The type that a model computes in."""
    return next(iter(parameters.values())).dtype
