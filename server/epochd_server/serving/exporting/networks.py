"""Linear and sequential models as ONNX nodes: one member's, or those of a whole fleet by the member of each row."""

from __future__ import annotations

import numpy as np

from epochd_server.domain.layers import activation_arguments
from epochd_server.domain.runs import Parameters
from epochd_server.domain.specs import (
    ActivationLayer,
    DropoutLayer,
    Layer,
    LayerNormLayer,
    LinearLayer,
    LinearModel,
    SequentialModel,
)
from epochd_server.serving.exporting.activations import add_activation
from epochd_server.serving.exporting.graph import Graph

_PARTS = ("weight", "bias")


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
    network = _Network(graph, parameters) if member is None else _Stacked(graph, parameters, member)
    if isinstance(model, LinearModel):
        return network.affine("linear", x)
    for index, layer in enumerate(model.layers):
        x = network.layer(str(index), layer, x)
    return x


class _Network:
    """The layers of one model.

    Args:
        graph: Is added to.
        parameters: By PyTorch's names.
    """

    def __init__(self, graph: Graph, parameters: Parameters) -> None:
        self._graph = graph
        self._parameters = parameters

    def layer(self, name: str, layer: Layer, x: str) -> str:
        """Adds a layer and returns its output."""
        match layer:
            case LinearLayer():
                return self.affine(name, x)
            case ActivationLayer():
                tanh = layer.function == "gelu" and layer.approximate == "tanh"
                arguments = tuple(activation_arguments(layer.function, layer.parameters).values())
                return add_activation(self._graph, "gelu_tanh" if tanh else layer.function, arguments, x)
            case DropoutLayer():
                return x  # drops nothing where nothing is trained
            case LayerNormLayer():
                return self._layer_norm(name, layer, x)

    def affine(self, name: str, x: str) -> str:
        """Adds x Wᵀ + b."""
        inputs = [x, *(value for value in (self._parameter(f"{name}.{part}") for part in _PARTS) if value)]
        return self._graph.add("Gemm", *inputs, transB=1)

    def _layer_norm(self, name: str, layer: LayerNormLayer, x: str) -> str:
        """Adds (x - mean) / sqrt(variance + ε), then times weight plus bias."""
        graph = self._graph
        moved = graph.add("Sub", x, graph.add("ReduceMean", x, axes=[1], keepdims=1))
        variance = graph.add("ReduceMean", graph.add("Mul", moved, moved), axes=[1], keepdims=1)
        deviation = graph.add("Sqrt", graph.add("Add", variance, graph.number(layer.eps)))
        y = graph.add("Div", moved, deviation)
        for operator, part in zip(("Mul", "Add"), _PARTS, strict=True):
            if value := self._parameter(f"{name}.{part}"):
                y = graph.add(operator, y, value)
        return y

    def _parameter(self, name: str) -> str:
        """A parameter, of each row where rows have members; empty where there is none."""
        if name not in self._parameters:
            return ""
        return self._graph.constant(name, self._parameters[name])


class _Stacked(_Network):
    """The layers of a whole fleet's members [K, …].

    Args:
        graph: Is added to.
        parameters: By PyTorch's names.
        member: The member of each row, int64 [rows].
    """

    def __init__(self, graph: Graph, parameters: Parameters, member: str) -> None:
        super().__init__(graph, parameters)
        self._member = member

    def affine(self, name: str, x: str) -> str:
        """Adds x Wᵀ + b with each row's own W [rows, out, in] and b [rows, out]."""
        column = self._graph.add("Unsqueeze", x, self._graph.integers(2))  # [rows, in, 1]
        product = self._graph.add("MatMul", self._parameter(f"{name}.weight"), column)
        y = self._graph.add("Squeeze", product, self._graph.integers(2))
        bias = self._parameter(f"{name}.bias")
        return self._graph.add("Add", y, bias) if bias else y

    def _parameter(self, name: str) -> str:
        stacked = super()._parameter(name)
        return self._graph.add("Gather", stacked, self._member, axis=0) if stacked else ""


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


def outputs_of(model: LinearModel | SequentialModel) -> int:
    """The number of outputs of a model with resolved sizes.

    Raises:
        ValueError: They are not resolved.
    """
    layers = (model,) if isinstance(model, LinearModel) else model.layers
    for layer in reversed(layers):
        if isinstance(layer, LinearLayer | LinearModel) and layer.out_features is not None:
            return layer.out_features
    raise ValueError("the model's sizes are not resolved")


def dtype_of(parameters: Parameters) -> np.dtype[np.floating]:
    """The type that a model computes in."""
    return next(iter(parameters.values())).dtype
