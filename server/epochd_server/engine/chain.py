"""A ``Linear`` or ``Sequential`` spec as a chain of steps over one flat parameter vector.

Every program of the engine keeps a member's parameters as a vector of P numbers, in the order of PyTorch's
``state_dict``; a slot says which piece of it is which parameter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from epochd_server.domain.layers import activation_arguments
from epochd_server.domain.specs import (
    ActivationLayer,
    DropoutLayer,
    Layer,
    LayerNormLayer,
    LinearLayer,
    LinearModel,
    SequentialModel,
)
from epochd_server.engine.task import Floats


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one parameter lies in the flat vector."""

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        """The offset behind its last number."""
        return self.offset + self.size


@dataclass(frozen=True, slots=True)
class Affine:
    """z = a Wᵀ + b, with W [out, in]."""

    weight: Slot
    bias: Slot | None

    @property
    def in_features(self) -> int:
        """Width of a."""
        return self.weight.shape[1]

    @property
    def out_features(self) -> int:
        """Width of z."""
        return self.weight.shape[0]


@dataclass(frozen=True, slots=True)
class Elementwise:
    """z = f(a)."""

    function: str
    """A key of :data:`epochd_server.domain.layers.ACTIVATION_PARAMETERS`, or ``gelu_tanh``."""
    arguments: tuple[float, ...]
    """In the order of that table."""
    width: int


@dataclass(frozen=True, slots=True)
class Dropout:
    """In training, z = a · m / (1 − p) with random m of 0 and 1; else z = a."""

    p: float
    width: int


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """z = (a − mean) / √(variance + eps) · weight + bias, over a row's ``width`` values."""

    weight: Slot | None
    bias: Slot | None
    eps: float
    width: int


Step = Affine | Elementwise | Dropout | LayerNorm


@dataclass(frozen=True, slots=True)
class Chain:
    """A feed-forward network."""

    steps: tuple[Step, ...]
    slots: tuple[Slot, ...]
    in_features: int
    out_features: int

    @property
    def size(self) -> int:
        """P, the numbers in all parameters."""
        return total_size(self.slots)

    @property
    def plain(self) -> bool:
        """Whether there are linear layers and activations only, as the compiled programs train them."""
        return all(isinstance(step, Affine | Elementwise) for step in self.steps)

    @property
    def has_bias(self) -> bool:
        """Whether the last linear layer has a bias."""
        affine = [step for step in self.steps if isinstance(step, Affine)]
        return bool(affine) and affine[-1].bias is not None


def total_size(slots: Iterable[Slot]) -> int:
    """Numbers in all slots."""
    return sum(slot.size for slot in slots)


def chain_of(model: LinearModel | SequentialModel, in_features: int) -> Chain:
    """The steps of a spec.

    Args:
        model: With resolved sizes.
        in_features: Width of the data.

    Raises:
        ValueError: A size is not resolved, or a layer does not fit the one before it.
    """
    builder = _Builder(in_features)
    if isinstance(model, LinearModel):
        builder.linear("linear", model)
    else:
        for index, layer in enumerate(model.layers):
            builder.layer(str(index), layer)
    return Chain(tuple(builder.steps), tuple(builder.slots), in_features, builder.width)


class _Builder:
    def __init__(self, in_features: int) -> None:
        self.width = in_features
        self.steps: list[Step] = []
        self.slots: list[Slot] = []

    def layer(self, name: str, layer: Layer) -> None:
        match layer:
            case LinearLayer():
                self.linear(name, layer)
            case DropoutLayer():
                self.steps.append(Dropout(layer.p, self.width))
            case LayerNormLayer():
                self._layer_norm(name, layer)
            case ActivationLayer():
                self._activation(layer)

    def _layer_norm(self, name: str, layer: LayerNormLayer) -> None:
        shape = (self.width,)
        weight = self._slot(f"{name}.weight", shape) if layer.elementwise_affine else None
        bias = self._slot(f"{name}.bias", shape) if layer.elementwise_affine and layer.bias else None
        self.steps.append(LayerNorm(weight, bias, layer.eps, self.width))

    def _activation(self, layer: ActivationLayer) -> None:
        function = layer.function
        if function == "gelu" and layer.approximate == "tanh":
            function = "gelu_tanh"
        arguments = tuple(activation_arguments(layer.function, layer.parameters).values())
        self.steps.append(Elementwise(function, arguments, self.width))

    def linear(self, name: str, layer: LinearLayer | LinearModel) -> None:
        if layer.out_features is None or layer.in_features not in (None, self.width):
            raise ValueError(f"layer {name} takes {layer.in_features}, is given {self.width}")
        weight = self._slot(f"{name}.weight", (layer.out_features, self.width))
        bias = self._slot(f"{name}.bias", (layer.out_features,)) if layer.bias else None
        self.steps.append(Affine(weight, bias))
        self.width = layer.out_features

    def _slot(self, name: str, shape: tuple[int, ...]) -> Slot:
        slot = Slot(name, shape, self.slots[-1].end if self.slots else 0)
        self.slots.append(slot)
        return slot


def unpack(flat_KP: Floats, slots: Iterable[Slot]) -> dict[str, Floats]:  # noqa: N803 - a shape, as in the docs
    """Views of stacked flat vectors by name.

    Args:
        flat_KP: [K, P], or [P] for one member.
        slots: What it holds.

    Returns:
        Name → [K, …], or […] for one member.
    """
    lead = flat_KP.shape[:-1]
    return {slot.name: flat_KP[..., slot.offset : slot.end].reshape(*lead, *slot.shape) for slot in slots}


def pack(named: Mapping[str, Floats], slots: tuple[Slot, ...], dtype: np.dtype[np.floating]) -> Floats:
    """The inverse of :func:`unpack` for stacks: name → [K, …] to [K, P].

    Raises:
        KeyError: A parameter is missing.
    """
    members = len(named[slots[0].name])
    flat = np.empty((members, total_size(slots)), dtype)
    for slot in slots:
        flat[:, slot.offset : slot.end] = np.asarray(named[slot.name]).reshape(members, slot.size)
    return flat
