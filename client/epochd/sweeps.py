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
from dataclasses import dataclass, fields
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
    """Momenta, in place of the optimizer's; SGD only."""

    seed: Iterable[int] = ()
    """Seeds of initialisation and shuffling."""

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _values(field.name, getattr(self, field.name)))

    @property
    def names(self) -> tuple[str, ...]:
        """What is swept: the key columns of the fleet."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name))

    def __len__(self) -> int:
        """Number of combinations."""
        return math.prod(len(getattr(self, name)) for name in self.names)


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


def _values(name: str, values: Any) -> tuple[Any, ...]:
    kind, wanted = (Integral, "integers") if name == "seed" else (Real, "numbers")
    given = tuple(values) if isinstance(values, Iterable) and not isinstance(values, str) else (None,)
    if not all(isinstance(value, kind) and not isinstance(value, bool) for value in given):
        raise TypeError(f"Sweep: {name} must list {wanted}, is {values!r}")
    return tuple(int(value) if name == "seed" else float(value) for value in given)
