"""Sweeps: one training for each combination of hyperparameters, all at once.

Example:
    >>> len(Sweep(lr=[0.1, 0.01, 0.001], seed=range(10)))
    30
    >>> Sweep(lr=[0.1, 0.01]).names
    ('lr',)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import Any

from epochd.errors import invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Lists of hyperparameters. Each combination is trained as a member of a fleet, on the same rows.

    The members' key columns are what is swept, in the order of these fields. ``train`` also takes a dict of the same
    names.
    """

    lr: Iterable[float] = ()
    """Learning rates, in place of the optimizer's."""

    weight_decay: Iterable[float] = ()
    """Weight decays, in place of the optimizer's."""

    momentum: Iterable[float] = ()
    """Momenta, in place of the optimizer's; SGD and RMSprop only."""

    seed: Iterable[int] = ()
    """Seeds of initialisation and shuffling."""

    folds: int | None = None
    """Cross-validation: each combination is trained so many times, each time without one fold of the rows, on which
    it is then measured. The last key column is ``fold``."""

    def __post_init__(self) -> None:
        for name in _LISTS:
            object.__setattr__(self, name, _values(name, getattr(self, name)))
        if self.folds is not None and (not isinstance(self.folds, int) or isinstance(self.folds, bool)):
            raise TypeError(f"Sweep: folds must be an integer, is {self.folds!r}")

    @property
    def names(self) -> tuple[str, ...]:
        """What is swept: the key columns of the fleet."""
        swept = tuple(name for name in _LISTS if getattr(self, name))
        return swept if self.folds is None else (*swept, "fold")

    def __len__(self) -> int:
        """Number of members: of combinations, times the folds."""
        lists = [getattr(self, name) for name in _LISTS]
        return math.prod(len(values) for values in lists if values) * (self.folds or 1)


def resolve(sweep: Sweep | Mapping[str, Any] | None) -> Sweep | None:
    """The sweep of ``train``'s argument.

    Raises:
        InvalidArgument: When a name is none that can be swept.
        TypeError: When the values are no numbers.
    """
    if sweep is None or isinstance(sweep, Sweep):
        return sweep
    known = [field.name for field in fields(Sweep)]
    unknown = [name for name in sweep if name not in known]
    if unknown:
        raise invalid("sweep", f"can list {', '.join(known)}, not {', '.join(map(repr, unknown))}")
    return Sweep(**sweep)


def with_folds(sweep: Sweep | Mapping[str, Any] | None, folds: int) -> Sweep:
    """A sweep, or none, with folds."""
    return replace(resolve(sweep) or Sweep(), folds=folds)


_LISTS = ("lr", "weight_decay", "momentum", "seed")


def _values(name: str, values: Any) -> tuple[Any, ...]:
    kind, wanted = (Integral, "integers") if name == "seed" else (Real, "numbers")
    given = tuple(values) if isinstance(values, Iterable) and not isinstance(values, str) else (None,)
    if not all(isinstance(value, kind) and not isinstance(value, bool) for value in given):
        raise TypeError(f"Sweep: {name} must list {wanted}, is {values!r}")
    return tuple(int(value) if name == "seed" else float(value) for value in given)
