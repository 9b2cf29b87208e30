"""Layers that fit each other: fills in the sizes that a model leaves open, and counts its parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace

from epochd_server.domain.errors import Violations
from epochd_server.domain.specs import Layer, LayerNormLayer, LinearLayer, LinearModel, SequentialModel

Layered = LinearModel | SequentialModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """What the data and the loss ask of a model.

    Attributes:
        features: Number of features, or None where that could not be found out.
        outputs: Number of outputs, or None where that could not be found out.
        least: The fewest outputs that the loss can do with.
        why: Where the number of outputs comes from, such as ``there is 1 target column``.
    """

    features: int | None
    outputs: int | None = None
    least: int = 1
    why: str = ""

    def misfit(self, outputs: int | None) -> bool:
        """Whether a model of so many outputs, if that is known, cannot be what is asked for."""
        if outputs is None:
            return False
        return outputs < self.least or (self.outputs is not None and outputs != self.outputs)


def given_outputs(model: Layered) -> int | None:
    """The number of outputs that a model was given, or None where it is to be inferred."""
    if isinstance(model, LinearModel):
        return model.out_features
    linears = [layer for layer in model.layers if isinstance(layer, LinearLayer)]
    return linears[-1].out_features if linears else None


def resolve_sizes(model: Layered, needed: Needed, violations: Violations) -> Layered | None:
    """The model with every size filled in.

    Field paths are relative to the ModelSpec; sizes that could not be found out are not held against the model.

    Returns:
        None where sizes do not fit (see ``violations``) or cannot be known.
    """
    before = len(violations.found)
    if isinstance(model, SequentialModel):
        layers = _resolve_layers(model, needed, violations)
        resolved: Layered = SequentialModel(layers=layers)
        known = all(_is_resolved(layer) for layer in layers)
    else:
        resolved = _resolve_linear(model, needed, violations)
        known = _is_resolved(resolved)
    return resolved if known and len(violations.found) == before else None


def count_parameters(model: Layered) -> int:
    """Number of parameters of a model whose sizes are all filled in."""
    if isinstance(model, LinearModel):
        return _linear_parameters(model)
    count, width = 0, next((one.in_features for one in model.layers if isinstance(one, LinearLayer)), None)
    for layer in model.layers:
        if isinstance(layer, LinearLayer):
            count, width = count + _linear_parameters(layer), layer.out_features
        elif isinstance(layer, LayerNormLayer) and width is not None:
            count += width * (layer.elementwise_affine + layer.bias)
    return count


def _is_resolved(layer: Layer | LinearModel) -> bool:
    return not isinstance(layer, LinearLayer | LinearModel) or (
        layer.in_features is not None and layer.out_features is not None
    )


def _linear_parameters(layer: LinearLayer | LinearModel) -> int:
    assert layer.in_features is not None  # noqa: S101  # the caller's promise
    assert layer.out_features is not None  # noqa: S101
    return layer.out_features * (layer.in_features + layer.bias)


def _resolve_linear(model: LinearModel, needed: Needed, violations: Violations) -> LinearModel:
    with violations.within("linear"):
        features = _input(model.in_features, needed.features, "", violations)
        outputs = _output(model.out_features, needed, violations)
    return replace(model, in_features=features, out_features=outputs)


def _resolve_layers(model: SequentialModel, needed: Needed, violations: Violations) -> tuple[Layer, ...]:
    linears = [index for index, layer in enumerate(model.layers) if isinstance(layer, LinearLayer)]
    if not linears:
        violations.add("sequential.layers", "has no linear layer: there is nothing to train")
        return model.layers
    width, origin = needed.features, ""
    layers = list(model.layers)
    for index in linears:
        layer = model.layers[index]
        assert isinstance(layer, LinearLayer)  # noqa: S101
        with violations.within(f"sequential.layers[{index}].linear"):
            features = _input(layer.in_features, width, origin, violations)
            outputs = layer.out_features
            if index == linears[-1]:
                outputs = _output(outputs, needed, violations)
            elif outputs is None:
                violations.add("out_features", "must be set: only the last linear layer may leave it unset")
        layers[index] = replace(layer, in_features=features, out_features=outputs)
        width, origin = outputs, f"layers[{index}]"
    return tuple(layers)


def _input(given: int | None, width: int | None, origin: str, violations: Violations) -> int | None:
    """The size of a layer's input; ``width`` is that of what comes before it, if known."""
    if given is None:
        return width
    if width is not None and given != width:
        before = f"{origin} before it gives {width}" if origin else f"there are {width} features"
        violations.add("in_features", f"is {given}, but {before}; set {width} or leave it unset")
    return given


def _output(given: int | None, needed: Needed, violations: Violations) -> int | None:
    if needed.misfit(given):
        remedy = "leave it unset" if needed.outputs is None else f"set {needed.outputs} or leave it unset"
        violations.add("out_features", f"is {given}, but {needed.why}; {remedy}")
    return needed.outputs if given is None else given
