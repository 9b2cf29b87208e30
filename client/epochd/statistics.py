"""Statistics of linear models that were fitted exactly: ``print(model.statistics())``.

They are those of statsmodels: t and p values of least squares, z and p values of logistic and softmax models. What has
no theory (any l2, a deficient rank, no degrees of freedom left) is NaN or None.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from epochd.keys import Key, key_parts, key_text

_SHOWN = 10
_WIDTH = 100
_UNBROKEN = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputStatistics:
    """Statistics of one target; of a softmax model those of one class."""

    name: str
    """The target, or the class."""

    coefficients: NDArray[np.float64] = field(compare=False)
    """[p] in float64, in the order of ``coefficient_names``."""

    standard_errors: NDArray[np.float64] = field(compare=False)
    """[p]."""

    statistics: NDArray[np.float64] = field(compare=False)
    """[p] coefficient / standard error: t of least squares, z of classifiers."""

    p_values: NDArray[np.float64] = field(compare=False)
    """[p] two-sided."""

    r_squared: float | None = None
    """Least squares: about 0 instead of the mean where the model has no bias."""

    adjusted_r_squared: float | None = None
    """Least squares."""

    residual_standard_error: float | None = None
    """Least squares: √(residual sum of squares / degrees of freedom)."""

    log_likelihood: float | None = None
    """Least squares: of normal errors."""

    aic: float | None = None
    """Least squares: Akaike's criterion."""

    bic: float | None = None
    """Least squares: Schwarz's criterion."""

    f_statistic: float | None = None
    """Least squares: F of all coefficients but the constant."""

    f_p_value: float | None = None
    """Least squares: its p value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Statistics of a model or of a fleet's member; prints as a table."""

    key: Key | None
    """Fleets: the member's key; None for a single model."""

    coefficient_names: tuple[str, ...]
    """The features, then ``bias`` where there is one."""

    rows: int
    """Rows of weight above 0."""

    rank: int
    """Of the features with the constant."""

    condition: float
    """Condition number of the features with the constant, their columns at one scale."""

    df_model: int
    """Coefficients of one output, the constant not counted."""

    df_residual: int
    """Rows less coefficients."""

    outputs: tuple[OutputStatistics, ...]
    """One a target; of a softmax model one a class."""

    log_likelihood: float | None = None
    """Classifiers."""

    null_log_likelihood: float | None = None
    """Classifiers: of the frequencies of the classes alone."""

    deviance: float | None = None
    """Classifiers: −2 log-likelihood."""

    aic: float | None = None
    """Classifiers: Akaike's criterion."""

    bic: float | None = None
    """Classifiers: Schwarz's criterion."""

    def __str__(self) -> str:
        head = "" if self.key is None else f"{key_text(self.key)}: "
        facts = f"{head}{self.rows:,} rows, rank {self.rank}, condition {self.condition:.3g}, "
        facts += f"{self.df_residual:,} degrees of freedom"
        lines = [facts, *_facts(self, ("log_likelihood", "null_log_likelihood", "deviance", "aic", "bic"))]
        for output in self.outputs:
            lines += ["", *self._table(output)]
        return "\n".join(lines)

    def to_table(self) -> dict[str, NDArray[Any]]:
        """Columns with a row for each coefficient: ``pandas.DataFrame(model.statistics().to_table())``."""
        count = len(self.coefficient_names)
        return {
            "output": np.repeat([output.name for output in self.outputs], count),
            "coefficient": np.tile(self.coefficient_names, len(self.outputs)),
            "estimate": np.concatenate([output.coefficients for output in self.outputs]),
            "standard_error": np.concatenate([output.standard_errors for output in self.outputs]),
            "statistic": np.concatenate([output.statistics for output in self.outputs]),
            "p_value": np.concatenate([output.p_values for output in self.outputs]),
        }

    def _table(self, output: OutputStatistics) -> list[str]:
        letter = "z" if output.r_squared is None else "t"
        cells = [[output.name, "estimate", "std error", letter, f"P>|{letter}|"]]
        for index, name in enumerate(self.coefficient_names):
            numbers = (output.coefficients, output.standard_errors, output.statistics)
            row = [f"{column[index]:.6g}" for column in numbers]
            cells.append([name, *row, f"{output.p_values[index]:.3g}"])
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells]
        names = ("r_squared", "adjusted_r_squared", "residual_standard_error", "f_statistic", "f_p_value")
        return [*lines, *_facts(output, (*names, "log_likelihood", "aic", "bic"))]


class FleetStatistics(Sequence[Statistics]):
    """Statistics of a fleet's trained members, in the order of their keys.

    Args:
        members: One a trained member.
        key_columns: The names of the key columns.
    """

    def __init__(self, members: Iterable[Statistics], key_columns: Sequence[str]) -> None:
        self._members = tuple(members)
        self._key_columns = tuple(key_columns)

    @overload
    def __getitem__(self, place: int) -> Statistics: ...
    @overload
    def __getitem__(self, place: slice) -> FleetStatistics: ...
    def __getitem__(self, place: int | slice) -> Statistics | FleetStatistics:
        """The statistics of a member, or of some."""
        if isinstance(place, slice):
            return FleetStatistics(self._members[place], self._key_columns)
        return self._members[place]

    def __len__(self) -> int:
        """Number of trained members."""
        return len(self._members)

    def to_table(self) -> dict[str, NDArray[Any]]:
        """Columns with a row for each coefficient of each member, as ``pandas.DataFrame`` takes them."""
        tables = [member.to_table() for member in self._members]
        keys: dict[str, NDArray[Any]] = {}
        for place, name in enumerate(self._key_columns):
            parts = [key_parts(member.key)[place] for member in self._members if member.key is not None]
            keys[name] = np.repeat(np.array(parts), [len(table["estimate"]) for table in tables])
        columns = tables[0] if tables else {}
        return keys | {name: np.concatenate([table[name] for table in tables]) for name in columns}

    def __str__(self) -> str:
        more = len(self) - _SHOWN
        shown = [str(member) for member in self._members[:_SHOWN]]
        return "\n\n".join([*shown, *([f"… and {more:,} more members"] if more > 0 else [])])

    def __repr__(self) -> str:
        return f"<FleetStatistics of {len(self):,} members>"


def _facts(owner: Statistics | OutputStatistics, names: Sequence[str]) -> list[str]:
    """The numbers that there are, on as many lines as they take."""
    known = [(name.replace("_", " "), getattr(owner, name)) for name in names]
    facts = [f"{name} {value:.6g}" for name, value in known if value is not None]
    whole = ", ".join(fact.replace(" ", _UNBROKEN) for fact in facts)
    return [line.replace(_UNBROKEN, " ") for line in textwrap.wrap(whole, _WIDTH)]
