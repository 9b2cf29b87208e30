"""Coefficients of linear models, in the units of the columns they were trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Coefficients:
    """What a linear model adds up; scaling by preprocessing is taken back.

    Example:
        >>> found = Coefficients(("age", "city=Oslo"), np.array([0.5, 5.0]), np.array(2.0))
        >>> found["age"].item(), len(found)
        (0.5, 2)
        >>> print(found)
        intercept  2
        age        0.5
        city=Oslo  5
    """

    names: tuple[str, ...]
    """The features."""

    values: NDArray[np.float64]
    """[features], or [outputs, features] of several outputs; of a fleet with the members as a further first axis."""

    intercept: NDArray[np.float64]
    """A number, or [outputs]; of a fleet with the members as a further first axis."""

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        """The coefficients of a feature, shaped as ``intercept``."""
        try:
            return np.asarray(self.values[..., self.names.index(name)])
        except ValueError:
            raise KeyError(name) from None

    def __len__(self) -> int:
        return len(self.names)

    def to_dict(self) -> dict[str, NDArray[np.float64]]:
        """The intercept, as ``intercept``, and the coefficients by feature."""
        return {"intercept": self.intercept, **{name: self[name] for name in self.names}}

    def __str__(self) -> str:
        found = self.to_dict()
        width = max(map(len, found))
        return "\n".join(f"{name:<{width}}  {_shown(value)}" for name, value in found.items())


def _shown(value: NDArray[np.float64]) -> str:
    return ", ".join(f"{number:.6g}" for number in np.ravel(value)[:8].tolist()) + (
        " …" if value.size > 8 else ""
    )
