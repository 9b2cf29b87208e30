"""What is trained: small trainings of every kind. A recipe always makes the same request, whoever sends it when."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

import epochd

VARIANTS = 5
"""Recipes of one kind."""

_ROWS, _FEATURES = 96, 4
_SHOPS = 24


@dataclass(frozen=True, slots=True)
class Training:
    """A request to train.

    Attributes:
        data: Positional arguments of ``client.train``: a table, or features and targets.
        arguments: Its other arguments.
        probe: Rows to predict; None where there is no one model to ask.
        upload: Whether the table is uploaded first, and the dataset trained on.
    """

    data: tuple[Any, ...]
    arguments: Mapping[str, Any]
    probe: Any = None
    upload: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Recipe:
    """One training of a kind.

    Attributes:
        kind: A key of :data:`KINDS`.
        variant: Which one; it decides data and seed.
    """

    kind: str
    variant: int

    def training(self) -> Training:
        """What is to be sent; made once."""
        return _made(self)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of training.

    Attributes:
        make: From a variant to the request.
        weight: How often it is asked for, relative to the others.
        ends: Whether it ends by itself; one that does not must be cancelled.
    """

    make: Callable[[int], Training]
    weight: float = 1.0
    ends: bool = field(default=True, kw_only=True)


def draw(chance: random.Random, *, ends: bool = True) -> Recipe:
    """A recipe at random.

    Args:
        chance: What decides.
        ends: Whether it has to end by itself.
    """
    names = [name for name, kind in KINDS.items() if kind.ends or not ends]
    (name,) = chance.choices(names, [KINDS[name].weight for name in names])
    return Recipe(name, chance.randrange(VARIANTS))


@functools.cache
def _made(recipe: Recipe) -> Training:
    return KINDS[recipe.kind].make(recipe.variant)


def _numbers(variant: int, rows: int = _ROWS) -> tuple[Any, Any]:
    """Features and one target; all variants have the same shape, so that they share cohorts."""
    chance = np.random.default_rng([variant, rows])
    x = chance.normal(size=(rows, _FEATURES))
    return x, x @ np.arange(1.0, _FEATURES + 1) + 0.1 * chance.normal(size=rows)


def _frame(variant: int, rows: int = _ROWS) -> pd.DataFrame:
    """A table with a target, a class and a shop."""
    x, y = _numbers(variant, rows)
    frame = pd.DataFrame(x, columns=[f"x{column}" for column in range(_FEATURES)])
    classes = np.where(y > 0, "yes", "no")
    return frame.assign(y=y, bought=classes, shop=[f"shop-{row % _SHOPS:02}" for row in range(rows)])


def _network(*between: Any) -> epochd.Sequential:
    return epochd.Sequential(epochd.Linear(8), "relu", *between, epochd.Linear())


def _lone(variant: int, **arguments: Any) -> Training:
    """A model of the numbers."""
    x, y = _numbers(variant)
    return Training((x, y), {"seed": variant, **arguments}, probe=x[:7])


def _sgd(variant: int) -> Training:
    return _lone(
        variant, model=epochd.Linear(), optimizer=epochd.SGD(lr=0.01, momentum=0.9), epochs=2_000, log_every=50,
        log_parameters=True,
    )  # fmt: skip


def _adam(variant: int) -> Training:
    return _lone(
        variant, model=_network(epochd.Dropout(0.1)), optimizer=epochd.Adam(lr=0.01), epochs=400, log_every=10,
        batch_size=16,
    )  # fmt: skip


def _scheduled(variant: int) -> Training:
    return _lone(
        variant, model=_network(epochd.LayerNorm()), optimizer=epochd.AdamW(lr=0.01), epochs=300, batch_size=24,
        schedule=epochd.CosineAnnealingLR(T_max=300), max_norm=1.0, dtype="float64", log_every=20,
    )  # fmt: skip


def _early(variant: int) -> Training:
    return _lone(
        variant, model=_network(), optimizer=epochd.RMSprop(lr=0.01), epochs=2_000, batch_size=16,
        validation=0.25, metrics=["mae", "r2"], early_stopping=epochd.EarlyStopping(patience=20), log_every=5,
    )  # fmt: skip


def _long(variant: int, epochs: int = 2_000) -> Training:
    """A second or two of a core."""
    x, y = _numbers(variant, rows=2_000)
    arguments = {
        "model": _network(), "optimizer": epochd.Adam(lr=1e-3), "epochs": epochs, "batch_size": 8, "log_every": 20,
        "seed": variant,
    }  # fmt: skip
    return Training((x, y), arguments, probe=x[:7])


def _longer(variant: int) -> Training:
    """Long enough to be interrupted more often than not."""
    return _long(variant, epochs=8_000)


def _module(variant: int) -> Training:
    """Some seconds of a core, of a module with buffers and dropout, and epochs of a tenth of a second."""
    x, y = _numbers(variant, rows=2_000)
    arguments = {
        "model": epochd.Module("Dropping"), "optimizer": epochd.Adam(lr=1e-3), "epochs": 20, "batch_size": 8,
        "log_every": 1, "seed": variant,
    }  # fmt: skip
    return Training((x, y), arguments, probe=x[:7])


def _module_fleet(variant: int) -> Training:
    table = _frame(variant, rows=40 * _SHOPS).drop(columns="bought")
    arguments = {
        "target": "y", "group_by": "shop", "model": epochd.Module("Bent"), "optimizer": epochd.SGD(lr=0.01),
        "epochs": 40, "batch_size": 8, "log_members": ["shop-05"], "log_every": 5, "seed": variant,
    }  # fmt: skip
    return Training((table,), arguments, probe=table.head(30))


def _lbfgs(variant: int) -> Training:
    """About a second of a core."""
    x, y = _numbers(variant, rows=8_000)
    model = epochd.Sequential(epochd.Linear(16), "tanh", epochd.Linear())
    fit = epochd.LBFGS(max_iterations=200, tolerance=1e-12)
    return Training((x, y), {"model": model, "fit": fit, "log_every": 10, "seed": variant}, probe=x[:7])


def _least_squares(variant: int) -> Training:
    return _lone(variant, model=epochd.Linear(), fit=epochd.LeastSquares())


def _newton(variant: int) -> Training:
    table = _frame(variant).drop(columns=["y", "shop"])
    arguments = {
        "target": "bought", "model": epochd.Linear(), "loss": "cross_entropy", "fit": epochd.Newton(l2=0.1),
        "preprocess": "auto", "seed": variant,
    }  # fmt: skip
    return Training((table,), arguments, probe=table.head(7))


def _diverging(variant: int) -> Training:
    return _lone(variant, model=epochd.Linear(), optimizer=epochd.SGD(lr=1e6), epochs=1_000, log_every=1)


def _fleet(variant: int) -> Training:
    table = _frame(variant, rows=40 * _SHOPS).drop(columns="bought")
    arguments = {
        "target": "y", "group_by": "shop", "model": _network(), "optimizer": epochd.Adam(lr=0.01), "epochs": 300,
        "batch_size": 8, "log_members": ["shop-03", "shop-17"], "log_every": 25, "seed": variant,
    }  # fmt: skip
    return Training((table,), arguments, probe=table.head(30))


def _exact_fleet(variant: int) -> Training:
    table = _frame(variant, rows=40 * _SHOPS).drop(columns="bought")
    arguments = {"target": "y", "group_by": "shop", "model": epochd.Linear(), "fit": epochd.LeastSquares()}
    return Training((table,), arguments, probe=table.head(30))


def _sweep(variant: int) -> Training:
    x, y = _numbers(variant)
    arguments = {
        "model": epochd.Linear(), "optimizer": epochd.SGD(lr=1.0), "epochs": 500, "log_every": 50,
        "sweep": {"lr": [0.05, 0.01, 0.001], "seed": [variant, variant + 1]}, "validation": 0.25,
    }  # fmt: skip
    return Training((x, y), arguments)


def _dataset(variant: int) -> Training:
    table = _frame(variant, rows=400).drop(columns=["bought", "shop"])
    arguments = {
        "target": "y", "model": _network(), "optimizer": epochd.Adam(lr=0.01), "epochs": 150, "batch_size": 32,
        "log_every": 10, "seed": variant,
    }  # fmt: skip
    return Training((table,), arguments, probe=table.head(7), upload=True)


def _endless(variant: int) -> Training:
    """Hours of a core."""
    return _long(variant, epochs=10_000_000)


KINDS: Mapping[str, Kind] = {
    "sgd": Kind(_sgd, 3.0),
    "adam": Kind(_adam, 2.0),
    "scheduled": Kind(_scheduled),
    "early stopping": Kind(_early),
    "long": Kind(_long),
    "longer": Kind(_longer, 0.4),
    "module": Kind(_module, 1.5),
    "module fleet": Kind(_module_fleet, 0.5),
    "l-bfgs": Kind(_lbfgs),
    "least squares": Kind(_least_squares),
    "newton": Kind(_newton),
    "diverging": Kind(_diverging, 0.5),
    "fleet": Kind(_fleet),
    "exact fleet": Kind(_exact_fleet, 0.5),
    "sweep": Kind(_sweep),
    "dataset": Kind(_dataset),
    "endless": Kind(_endless, 5.0, ends=False),
}
"""Every kind by name."""
