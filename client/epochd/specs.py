"""What is trained: a linear model, a stack of layers, or a module that the server's operator registered.

Example:
    >>> print(Sequential(Linear(64), "relu", Linear(1)))
    Sequential(Linear(64), relu, Linear(1))
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from numbers import Integral, Real
from typing import Literal, TypeAlias, get_args

from epochd._typecheck import require
from epochd.activations import Activation

Init: TypeAlias = Literal["default", "zeros"]


@dataclass(frozen=True, slots=True)
class Linear:
    """``nn.Linear``, as a model of its own or as a layer.

    Example:
        >>> Linear(init="zeros").in_features is None       # inferred from the data
        True
    """

    out_features: int | None = None
    """Size of the output, >= 1. None: inferred from the targets; only a last layer may leave it open."""

    _: KW_ONLY

    in_features: int | None = None
    """Size of the input, >= 1. None: inferred from the layer before, or from the features."""

    bias: bool = True
    """Whether there is a bias."""

    init: Init = "default"
    """How parameters start: PyTorch's own seeded initialisation, or zeros. A layer leaves it to its model."""

    def __post_init__(self) -> None:
        require(self, "out_features", Integral, optional=True)
        require(self, "in_features", Integral, optional=True)
        require(self, "bias", bool)
        _check_init(self)

    def __str__(self) -> str:
        sizes = [str(size) for size in (self.in_features, self.out_features) if size is not None]
        return f"Linear({', '.join([*sizes, *([] if self.bias else ['bias=False'])])})"


@dataclass(frozen=True, slots=True)
class Dropout:
    """``nn.Dropout``: in training each input is 0 with probability p; predictions are made without it."""

    p: float = 0.5
    """From 0 (inclusive) to 1 (exclusive)."""

    def __post_init__(self) -> None:
        require(self, "p", Real)

    def __str__(self) -> str:
        return f"Dropout({self.p:g})"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNorm:
    """``nn.LayerNorm`` over the features of a row."""

    eps: float = 1e-5
    """Added to the variance, > 0."""

    elementwise_affine: bool = True
    """Whether there is a weight for each feature."""

    bias: bool = True
    """Whether there is a bias for each feature; only with ``elementwise_affine``."""

    def __post_init__(self) -> None:
        require(self, "eps", Real)
        require(self, "elementwise_affine", bool)
        require(self, "bias", bool)

    def __str__(self) -> str:
        return "LayerNorm()"


Layer: TypeAlias = Linear | Activation | Dropout | LayerNorm


@dataclass(frozen=True, slots=True, init=False)
class Sequential:
    """``nn.Sequential``.

    Args:
        *layers: Each a :class:`Linear`, :class:`Dropout`, :class:`LayerNorm`, an :class:`Activation` or an
            activation's name.
        init: How parameters start: ``"default"`` or ``"zeros"``.

    Example:
        >>> len(Sequential(Linear(64), "relu", Linear(1)).layers)
        3
    """

    layers: tuple[Layer, ...]
    """The layers, 1 to 256."""

    init: Init = "default"
    """How parameters start."""

    def __init__(self, *layers: Layer | str, init: Init = "default") -> None:
        object.__setattr__(self, "layers", tuple(_layer(layer) for layer in layers))
        object.__setattr__(self, "init", init)
        _check_init(self)

    def __str__(self) -> str:
        return f"Sequential({', '.join(str(layer) for layer in self.layers)})"


@dataclass(frozen=True, slots=True, init=False)
class Module:
    """An ``nn.Module`` that the server's operator registered.

    Args:
        name: The name it was registered under.
        init: How parameters start: ``"default"`` or ``"zeros"``.
        **arguments: Keyword arguments of its constructor.

    Example:
        >>> print(Module("LinearRegressionModel", in_features=1))
        LinearRegressionModel(in_features=1)
    """

    name: str
    """The name it was registered under."""

    init: Init = "default"
    """How parameters start."""

    arguments: dict[str, bool | int | float | str] = field(default_factory=dict, hash=False)
    """Keyword arguments of its constructor."""

    def __init__(self, name: str, *, init: Init = "default", **arguments: bool | int | float | str) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "init", init)
        object.__setattr__(self, "arguments", arguments)
        require(self, "name", str)
        _check_init(self)
        for key, value in arguments.items():
            if not isinstance(value, bool | int | float | str):
                raise TypeError(f"Module: {key} must be a bool, int, float or str, not {value!r}")

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in self.arguments.items())})"


ModelSpec: TypeAlias = Linear | Sequential | Module


def _layer(layer: Layer | str) -> Layer:
    if isinstance(layer, str):
        return Activation(layer)
    if isinstance(layer, Linear) and layer.init != "default":
        raise TypeError("Sequential: give init to the Sequential, not to a layer")
    if not isinstance(layer, Linear | Activation | Dropout | LayerNorm):
        raise TypeError(
            f"Sequential: a layer must be a Linear, Dropout, LayerNorm, Activation or a name, not {layer!r}"
        )
    return layer


def _check_init(spec: Linear | Sequential | Module) -> None:
    if spec.init not in get_args(Init):
        raise TypeError(
            f"{type(spec).__name__}: init must be one of {', '.join(get_args(Init))}, not {spec.init!r}"
        )
