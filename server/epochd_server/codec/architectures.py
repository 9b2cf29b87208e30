"""What is trained: ModelSpec ↔ domain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import assert_never

from epochd.v1 import activation_pb2, spec_pb2
from epochd_server.codec.checks import fraction, positive
from epochd_server.domain.errors import Violations
from epochd_server.domain.layers import ACTIVATION_PARAMETERS, GELU_APPROXIMATIONS
from epochd_server.domain.specs import (
    ActivationLayer,
    DropoutLayer,
    Init,
    Layer,
    LayerNormLayer,
    LinearLayer,
    LinearModel,
    Model,
    ModuleModel,
    SequentialModel,
)

MAX_LAYERS = 256
MAX_NAME = 256
MAX_TEXT = 1_024
MAX_ARGUMENTS = 64
_SHOWN = 40
_DROPOUT, _NORM = DropoutLayer(), LayerNormLayer()

_FUNCTIONS: Mapping[int, str] = MappingProxyType(
    {
        int(number): text
        for name, number in activation_pb2.ActivationFunction.items()
        if (text := name.removeprefix("ACTIVATION_FUNCTION_").lower()) in ACTIVATION_PARAMETERS
    }
)
_FUNCTION_NUMBERS = MappingProxyType(
    {name: activation_pb2.ActivationFunction.ValueType(number) for number, name in _FUNCTIONS.items()}
)
_INITS: Mapping[int, Init] = MappingProxyType(
    {
        spec_pb2.INIT_UNSPECIFIED: Init.DEFAULT,
        spec_pb2.INIT_DEFAULT: Init.DEFAULT,
        spec_pb2.INIT_ZEROS: Init.ZEROS,
    }
)
_INIT_NUMBERS = MappingProxyType({Init.DEFAULT: spec_pb2.INIT_DEFAULT, Init.ZEROS: spec_pb2.INIT_ZEROS})


def decode_model(message: spec_pb2.ModelSpec, violations: Violations) -> Model | None:
    """A model, sizes left open as None; field paths are relative to the ModelSpec.

    Returns:
        None where anything in it is wrong: what it would be cannot be told.
    """
    before = len(violations.found)
    kind = message.WhichOneof("kind")
    if kind is None:
        violations.add("kind", "must be set: linear, sequential or module")
        return None
    model: Model
    with violations.within(kind):
        if kind == "linear":
            layer = _decode_linear(message.linear, violations)
            model = LinearModel(
                in_features=layer.in_features, out_features=layer.out_features, bias=layer.bias
            )
        elif kind == "sequential":
            model = _decode_sequential(message.sequential, violations)
        else:
            model = _decode_module(message.module, violations)
    return model if len(violations.found) == before else None


def encode_model(model: Model, init: Init) -> spec_pb2.ModelSpec:
    """The message of a model."""
    number = _INIT_NUMBERS[init]
    match model:
        case LinearModel():
            return spec_pb2.ModelSpec(linear=_encode_linear(model), init=number)
        case SequentialModel(layers=layers):
            sequential = spec_pb2.SequentialSpec(layers=map(_encode_layer, layers))
            return spec_pb2.ModelSpec(sequential=sequential, init=number)
        case ModuleModel(name=name, arguments=given):
            arguments = {key: _encode_argument(value) for key, value in given.items()}
            return spec_pb2.ModelSpec(module=spec_pb2.ModuleSpec(name=name, arguments=arguments), init=number)


def decode_init(message: spec_pb2.ModelSpec, violations: Violations) -> Init:
    """How parameters start; DEFAULT, and a violation at ``init``, for an unknown number."""
    init = _INITS.get(message.init)
    if init is None:
        violations.add("init", f"{message.init} is no known Init")
    return init or Init.DEFAULT


def _decode_linear(message: spec_pb2.LinearSpec, violations: Violations) -> LinearLayer:
    sizes: dict[str, int | None] = {"in_features": None, "out_features": None}
    for name in sizes:
        if message.HasField(name):  # type: ignore[arg-type]
            size = getattr(message, name)
            sizes[name] = size
            if size < 1:
                violations.add(name, f"must be >= 1, is {size}; leave it unset to have it inferred")
    bias = message.bias if message.HasField("bias") else True
    return LinearLayer(in_features=sizes["in_features"], out_features=sizes["out_features"], bias=bias)


def _encode_linear(layer: LinearLayer | LinearModel) -> spec_pb2.LinearSpec:
    return spec_pb2.LinearSpec(
        in_features=layer.in_features, out_features=layer.out_features, bias=layer.bias
    )


def _decode_sequential(message: spec_pb2.SequentialSpec, violations: Violations) -> SequentialModel:
    count = len(message.layers)
    if not 1 <= count <= MAX_LAYERS:
        violations.add("layers", f"must have 1 to {MAX_LAYERS} layers, has {count}")
        return SequentialModel(layers=())
    layers: list[Layer] = []
    for index, layer in enumerate(message.layers):
        with violations.within(f"layers[{index}]"):
            decoded = _decode_layer(layer, violations)
        if decoded is not None:
            layers.append(decoded)
    return SequentialModel(layers=tuple(layers))


def _decode_layer(message: spec_pb2.LayerSpec, violations: Violations) -> Layer | None:
    match message.WhichOneof("kind"):
        case "linear":
            with violations.within("linear"):
                return _decode_linear(message.linear, violations)
        case "activation":
            with violations.within("activation"):
                return _decode_activation(message.activation, violations)
        case "dropout":
            p = message.dropout.p if message.dropout.HasField("p") else _DROPOUT.p
            return DropoutLayer(p=fraction(p, "dropout.p", violations))
        case "layer_norm":
            return _decode_layer_norm(message.layer_norm, violations)
        case None:
            violations.add("kind", "must be set: linear, activation, dropout or layer_norm")
            return None


def _decode_layer_norm(message: spec_pb2.LayerNormSpec, violations: Violations) -> LayerNormLayer:
    affine = message.elementwise_affine if message.HasField("elementwise_affine") else True
    return LayerNormLayer(
        eps=positive(message.eps, "layer_norm.eps", violations) if message.HasField("eps") else _NORM.eps,
        elementwise_affine=affine,
        bias=affine and (message.bias if message.HasField("bias") else True),
    )


def _decode_activation(message: spec_pb2.ActivationSpec, violations: Violations) -> ActivationLayer | None:
    function = _FUNCTIONS.get(message.function)
    if function is None:
        violations.add("function", _wrong_function(message.function))
        return None
    parameters = dict(message.parameters)
    _check_activation_parameters(function, parameters, violations)
    approximate = message.approximate or "none"
    if approximate not in (GELU_APPROXIMATIONS if function == "gelu" else ("none",)):
        rule = 'must be "none" or "tanh"' if function == "gelu" else "is for gelu only"
        violations.add("approximate", f"{rule}, is {approximate[:_SHOWN]!r}")
    return ActivationLayer(function=function, parameters=parameters, approximate=approximate)


def _wrong_function(number: int) -> str:
    if number == 0:
        return "must be set"
    if number not in activation_pb2.ActivationFunction.values():
        return f"{number} is no known ActivationFunction"
    name = activation_pb2.ActivationFunction.Name(activation_pb2.ActivationFunction.ValueType(number))
    shown = name.removeprefix("ACTIVATION_FUNCTION_").lower()
    return f"{shown} cannot be a layer; these can: {', '.join(sorted(_FUNCTION_NUMBERS))}"


def _check_activation_parameters(
    function: str, parameters: Mapping[str, float], violations: Violations
) -> None:
    defaults = ACTIVATION_PARAMETERS[function]
    with violations.within("parameters"):
        for name, value in parameters.items():
            if name not in defaults:
                takes = ", ".join(defaults) or "no parameters"
                violations.add(name[:_SHOWN], f"is no parameter of {function}, which takes {takes}")
            elif not math.isfinite(value):
                violations.add(name, f"must be finite, is {value:g}")
            elif (function, name) in {("softplus", "beta"), ("celu", "alpha")} and value <= 0:
                violations.add(name, f"must be > 0, is {value:g}")
        if function == "hardtanh":
            bounds = {**defaults, **parameters}
            if bounds["min_val"] > bounds["max_val"]:
                violations.add("max_val", f"must be >= min_val = {bounds['min_val']:g}")


def _encode_layer(layer: Layer) -> spec_pb2.LayerSpec:
    match layer:
        case LinearLayer():
            return spec_pb2.LayerSpec(linear=_encode_linear(layer))
        case DropoutLayer():
            return spec_pb2.LayerSpec(dropout=spec_pb2.DropoutSpec(p=layer.p))
        case LayerNormLayer():
            norm = spec_pb2.LayerNormSpec(
                eps=layer.eps, elementwise_affine=layer.elementwise_affine, bias=layer.bias
            )
            return spec_pb2.LayerSpec(layer_norm=norm)
        case ActivationLayer():
            activation = spec_pb2.ActivationSpec(
                function=_FUNCTION_NUMBERS[layer.function],
                parameters=layer.parameters,
                approximate=layer.approximate,
            )
            return spec_pb2.LayerSpec(activation=activation)
        case _:
            assert_never(layer)


def _decode_module(message: spec_pb2.ModuleSpec, violations: Violations) -> ModuleModel:
    if not 1 <= len(message.name) <= MAX_NAME:
        violations.add("name", f"must have 1 to {MAX_NAME} characters, has {len(message.name)}")
    if len(message.arguments) > MAX_ARGUMENTS:
        violations.add("arguments", f"has {len(message.arguments)}, at most {MAX_ARGUMENTS} are allowed")
        return ModuleModel(name=message.name)
    arguments: dict[str, bool | int | float | str] = {}
    with violations.within("arguments"):
        for name in sorted(message.arguments):
            value = _decode_argument(name, message.arguments[name], violations)
            if value is not None:
                arguments[name] = value
    return ModuleModel(name=message.name, arguments=arguments)


def _decode_argument(
    name: str, message: spec_pb2.ModuleArgument, violations: Violations
) -> bool | int | float | str | None:
    shown = name[:_SHOWN]
    kind = message.WhichOneof("value")
    if not name.isidentifier():
        violations.add("", f"{shown!r} is not the name of an argument")
    if kind is None:
        violations.add(shown, "must be set: flag, integer, number or text")
        return None
    value: bool | int | float | str = getattr(message, kind)
    if kind == "number" and math.isnan(message.number):
        violations.add(shown, "must not be NaN")
    if kind == "text" and len(message.text) > MAX_TEXT:
        violations.add(shown, f"has {len(message.text)} characters, at most {MAX_TEXT} are allowed")
    return value


def _encode_argument(value: bool | int | float | str) -> spec_pb2.ModuleArgument:
    # bool first: True is an int too.
    if isinstance(value, bool):
        return spec_pb2.ModuleArgument(flag=value)
    if isinstance(value, int):
        return spec_pb2.ModuleArgument(integer=value)
    if isinstance(value, float):
        return spec_pb2.ModuleArgument(number=value)
    return spec_pb2.ModuleArgument(text=value)
