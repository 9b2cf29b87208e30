"""Models and sweeps as messages, and back again."""

from __future__ import annotations

from typing import Any

from epochd._wire.steps import function_number, operation_number
from epochd.activations import Activation
from epochd.errors import invalid
from epochd.specs import Dropout, Init, Layer, LayerNorm, Linear, ModelSpec, Module, Sequential
from epochd.sweeps import Sweep
from epochd.v1 import activation_pb2, spec_pb2

_INITS = {"default": spec_pb2.INIT_DEFAULT, "zeros": spec_pb2.INIT_ZEROS}


def encode_model(spec: ModelSpec) -> spec_pb2.ModelSpec:
    """The message of a model.

    Raises:
        InvalidArgument: When an activation has no such name.
        TypeError: When it is no model.
    """
    init = _INITS[spec.init] if isinstance(spec, Linear | Sequential | Module) else spec_pb2.INIT_UNSPECIFIED
    match spec:
        case Linear():
            return spec_pb2.ModelSpec(linear=_linear(spec), init=init)
        case Sequential(layers):
            encoded = [_layer(layer, index) for index, layer in enumerate(layers)]
            return spec_pb2.ModelSpec(sequential=spec_pb2.SequentialSpec(layers=encoded), init=init)
        case Module(name):
            arguments = {key: _argument(value) for key, value in spec.arguments.items()}
            return spec_pb2.ModelSpec(module=spec_pb2.ModuleSpec(name=name, arguments=arguments), init=init)
    raise TypeError(f"model must be an epochd.Linear, Sequential or Module, not {spec!r}")


def decode_model(message: spec_pb2.ModelSpec) -> ModelSpec | None:
    """The model of a message; None for a kind that this client does not know."""
    init: Init = "zeros" if message.init == spec_pb2.INIT_ZEROS else "default"
    match message.WhichOneof("kind"):
        case "linear":
            return _decode_linear(message.linear, init)
        case "sequential":
            return Sequential(*(_decode_layer(layer) for layer in message.sequential.layers), init=init)
        case "module":
            arguments = {key: _decode_argument(value) for key, value in message.module.arguments.items()}
            return Module(message.module.name, init=init, **arguments)
    return None


def encode_sweep(sweep: Sweep) -> spec_pb2.Sweep:
    """The message of a sweep."""
    return spec_pb2.Sweep(
        lr=sweep.lr,
        weight_decay=sweep.weight_decay,
        momentum=sweep.momentum,
        seed=sweep.seed,
        folds=sweep.folds,
    )


def decode_sweep(message: spec_pb2.Sweep) -> Sweep:
    """The sweep of a message."""
    return Sweep(
        lr=message.lr,
        weight_decay=message.weight_decay,
        momentum=message.momentum,
        seed=message.seed,
        folds=message.folds if message.HasField("folds") else None,
    )


def _linear(spec: Linear) -> spec_pb2.LinearSpec:
    return spec_pb2.LinearSpec(in_features=spec.in_features, out_features=spec.out_features, bias=spec.bias)


def _layer(layer: Layer, index: int) -> spec_pb2.LayerSpec:
    if isinstance(layer, Linear):
        return spec_pb2.LayerSpec(linear=_linear(layer))
    if isinstance(layer, Dropout):
        return spec_pb2.LayerSpec(dropout=spec_pb2.DropoutSpec(p=layer.p))
    if isinstance(layer, LayerNorm):
        norm = spec_pb2.LayerNormSpec(
            eps=layer.eps, elementwise_affine=layer.elementwise_affine, bias=layer.bias
        )
        return spec_pb2.LayerSpec(layer_norm=norm)
    field = f"model.sequential.layers[{index}].activation"
    if operation_number(layer.op) != activation_pb2.ACTIVATION_OPERATION_FORWARD or layer.axis is not None:
        raise invalid(field, "a layer has no op and no axis")
    function = function_number(layer.name, f"{field}.function")
    return spec_pb2.LayerSpec(
        activation=spec_pb2.ActivationSpec(
            function=function, parameters=layer.parameters, approximate=layer.approximate or ""
        )
    )


def _argument(value: bool | int | float | str) -> spec_pb2.ModuleArgument:
    if isinstance(value, bool):
        return spec_pb2.ModuleArgument(flag=value)
    if isinstance(value, int):
        return spec_pb2.ModuleArgument(integer=value)
    if isinstance(value, float):
        return spec_pb2.ModuleArgument(number=value)
    return spec_pb2.ModuleArgument(text=value)


def _decode_argument(message: spec_pb2.ModuleArgument) -> bool | int | float | str:
    kind = message.WhichOneof("value")
    value: bool | int | float | str = getattr(message, kind) if kind else ""
    return value


def _decode_linear(message: spec_pb2.LinearSpec, init: Init = "default") -> Linear:
    return Linear(
        message.out_features if message.HasField("out_features") else None,
        in_features=message.in_features if message.HasField("in_features") else None,
        bias=message.bias if message.HasField("bias") else True,
        init=init,
    )


def _decode_layer(message: spec_pb2.LayerSpec) -> Layer:
    match message.WhichOneof("kind"):
        case "linear":
            return _decode_linear(message.linear)
        case "dropout":
            return Dropout(message.dropout.p)
        case "layer_norm":
            norm = message.layer_norm
            return LayerNorm(eps=norm.eps, elementwise_affine=norm.elementwise_affine, bias=norm.bias)
    spec = message.activation
    name = activation_pb2.ActivationFunction.Name(spec.function).removeprefix("ACTIVATION_FUNCTION_").lower()
    parameters: dict[str, Any] = dict(spec.parameters)
    return Activation(
        name, approximate=spec.approximate if spec.approximate not in ("", "none") else None, **parameters
    )
