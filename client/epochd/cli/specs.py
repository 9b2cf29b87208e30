"""From short texts to what is trained: ``64,relu,1``, ``adam:weight_decay=0.01``, ``huber:delta=2``.

One grammar for all of them: ``NAME:KEY=VALUE:KEY=VALUE``, and commas between the layers of a model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias, TypeVar, get_args

import typer

from epochd import fits, losses, optimizers, schedules
from epochd.activations import Activation, Operation
from epochd.specs import Dropout, Init, Layer, LayerNorm, Linear, Module, Sequential

T = TypeVar("T")
Argument: TypeAlias = bool | int | float | str

OPEN_SIZE = "out"
"""A last layer of this name is as wide as the targets need."""

_OPTIMIZERS: Mapping[str, type[optimizers.Optimizer]] = {
    "sgd": optimizers.SGD,
    "adam": optimizers.Adam,
    "adamw": optimizers.AdamW,
    "rmsprop": optimizers.RMSprop,
}
_SCHEDULES: Mapping[str, type[schedules.Schedule]] = {
    "step": schedules.StepLR,
    "exponential": schedules.ExponentialLR,
    "cosine": schedules.CosineAnnealingLR,
    "linear": schedules.LinearLR,
    "plateau": schedules.ReduceLROnPlateau,
}
_LAYERS: Mapping[str, type[Dropout] | type[LayerNorm]] = {"dropout": Dropout, "layer_norm": LayerNorm}
_FITS: Mapping[str, type[fits.Fit]] = {
    "least_squares": fits.LeastSquares,
    "newton": fits.Newton,
    "lbfgs": fits.LBFGS,
}
_SGD_LR = 0.01
_UNKNOWN_ARGUMENT = re.compile(r"unexpected keyword argument ('[^']*')")


def model(text: str, init: str = "default") -> Linear | Sequential:
    """Reads a model: ``linear``, or layers such as ``64,relu,out``.

    Args:
        text: Layers separated by commas: a number is an ``nn.Linear`` of that width, ``out`` one as wide as the
            targets need, a name an activation, such as ``leaky_relu:negative_slope=0.2``, ``dropout:p=0.2`` or
            ``layer_norm``.
        init: ``default`` or ``zeros``.
    """
    start = _init(init)
    if text.strip().lower() == "linear":
        return Linear(init=start)
    layers = [_layer(part.strip()) for part in text.split(",")]
    return Sequential(*layers, init=start)


def module(name: str, arguments: list[str], init: str = "default") -> Module:
    """A registered module by its name and ``key=value`` arguments."""
    values = dict(argument(text) for text in arguments)
    if reserved := values.keys() & {"name", "init"}:
        raise typer.BadParameter(f"{sorted(reserved)[0]} cannot be given as an argument", param_hint="--arg")
    return Module(name, init=_init(init), **values)


def optimizer(text: str, lr: float | None) -> optimizers.Optimizer:
    """Reads an optimizer such as ``sgd:momentum=0.9:nesterov=true``; lr 0.01 for sgd unless given."""
    name, arguments = _named(text)
    kind = _OPTIMIZERS.get(name)
    if kind is None:
        raise typer.BadParameter(
            f"must be one of {', '.join(_OPTIMIZERS)}, is {name!r}", param_hint="--optimizer"
        )
    if "lr" in arguments:
        raise typer.BadParameter("give the learning rate as --lr", param_hint="--optimizer")
    if lr is None and kind is optimizers.SGD:
        lr = _SGD_LR
    given = {**arguments, **({} if lr is None else {"lr": lr})}
    return _built(kind, _with_betas(given), "--optimizer")


def schedule(text: str) -> schedules.Schedule | None:
    """Reads a schedule such as ``step:step_size=30`` or ``plateau:patience=5``; None for an empty text."""
    if not text:
        return None
    name, arguments = _named(text)
    kind = _SCHEDULES.get(name)
    if kind is None:
        raise typer.BadParameter(
            f"must be one of {', '.join(_SCHEDULES)}, is {name!r}", param_hint="--schedule"
        )
    return _built(kind, arguments, "--schedule")


def fit(text: str) -> fits.Fit | str:
    """Reads a fit such as ``auto`` or ``least_squares:l2=1:rank=minimum_norm``."""
    name, arguments = _named(text)
    if name == "auto" and not arguments:
        return name
    kind = _FITS.get(name)
    if kind is None:
        raise typer.BadParameter(f"must be one of auto, {', '.join(_FITS)}, is {text!r}", param_hint="--fit")
    return _built(kind, arguments, "--fit")


def loss(text: str) -> losses.Loss:
    """Reads a loss such as ``mse`` or ``huber:delta=2``."""
    name, arguments = _named(text)
    kind = losses.BY_NAME.get(name)
    if kind is None:
        raise typer.BadParameter(
            f"must be one of {', '.join(losses.BY_NAME)}, is {name!r}", param_hint="--loss"
        )
    return _built(kind, arguments, "--loss")


def activations(text: str, op: str | None) -> list[Activation]:
    """Reads steps such as ``sigmoid``, ``leaky_relu.inverse:negative_slope=0.2`` or ``sigmoid,log``.

    Args:
        text: Steps separated by commas, each ``NAME[.OP][:KEY=VALUE]…``.
        op: What to take of the last step, if it does not say so itself.
    """
    steps = [part.strip() for part in text.split(",")]
    ops = [None] * (len(steps) - 1) + [op]
    return [_step(step, default) for step, default in zip(steps, ops, strict=True)]


def argument(text: str) -> tuple[str, Argument]:
    """Reads ``key=value``."""
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise typer.BadParameter(f"{text!r} is not KEY=VALUE")
    return key, literal(value)


def literal(text: str) -> Argument:
    """Reads a value: true and false, integers and numbers are what they look like, all else is text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _named(text: str) -> tuple[str, dict[str, Argument]]:
    name, *arguments = text.strip().split(":")
    return name.strip().lower().replace("-", "_"), dict(argument(part) for part in arguments)


def _init(text: str) -> Init:
    for name in get_args(Init):
        if text.lower() == name:
            return name  # type: ignore[no-any-return]
    raise typer.BadParameter(f"must be one of {', '.join(get_args(Init))}, is {text!r}", param_hint="--init")


def _layer(text: str) -> Layer:
    if text == OPEN_SIZE:
        return Linear()
    if text.isdecimal():
        return Linear(int(text))
    name, arguments = _named(text)
    if not name.isidentifier():
        raise typer.BadParameter(
            f"{text!r} is no layer: give a width such as 64, '{OPEN_SIZE}', or an activation such as relu",
            param_hint="--model",
        )
    if name in _LAYERS:
        return _built(_LAYERS[name], arguments, "--model")
    return _built(Activation, {"name": name, **arguments}, "--model")


def _step(text: str, default: str | None) -> Activation:
    name, arguments = _named(text)
    name, dot, op = name.partition(".")
    op = op if dot else (default or "forward")
    if op not in get_args(Operation):
        raise typer.BadParameter(
            f"must be one of {', '.join(get_args(Operation))}, is {op!r}", param_hint="--op"
        )
    return _built(Activation, {"name": name, "op": op, **arguments}, "FUNCTION")


def _with_betas(arguments: dict[str, Any]) -> dict[str, Any]:
    """PyTorch's ``betas`` from ``beta1`` and ``beta2``, which are easier to type."""
    if not arguments.keys() & {"beta1", "beta2"}:
        return arguments
    betas = (arguments.pop("beta1", 0.9), arguments.pop("beta2", 0.999))
    return {**arguments, "betas": betas}


def _built(kind: type[T], arguments: Mapping[str, Any], hint: str) -> T:
    """An instance, or what is wrong with its arguments."""
    try:
        return kind(**arguments)
    except TypeError as error:
        unknown = _UNKNOWN_ARGUMENT.search(str(error))
        text = f"{kind.__name__}: has no argument {unknown[1]}" if unknown else str(error)
        raise typer.BadParameter(text, param_hint=hint) from None
