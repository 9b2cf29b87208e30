"""Shared by the tests of preprocessing: fits and applies steps to inline tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from epochd_server.data.columns import TableColumns
from epochd_server.data.preprocessing.fitting import TrainingRows, fit_preprocessing
from epochd_server.data.preprocessing.transforming import Transformer, positions
from epochd_server.domain.data import Column, Table
from epochd_server.domain.errors import Violations
from epochd_server.domain.preprocessing import (
    ColumnSteps,
    FittedPreprocessing,
    Preprocessing,
    Remainder,
    Step,
)

Cells = Mapping[str, Any]
Fit = Callable[..., FittedPreprocessing]
Apply = Callable[..., NDArray[np.float64]]
Run = Callable[..., NDArray[np.float64]]


def make_table(cells: Cells) -> TableColumns:
    """Columns of numbers, of str and None, or of datetime64."""
    return TableColumns(Table(tuple(Column(name, _values(values)) for name, values in cells.items())))


def _values(values: Any) -> NDArray[Any]:
    if isinstance(values, np.ndarray):
        return values.astype("M8[us]") if values.dtype.kind == "M" else values
    if any(isinstance(value, str) or value is None for value in values):
        array: NDArray[Any] = np.empty(len(values), dtype=object)
        array[:] = values
        return array
    return np.array(values)


@pytest.fixture(scope="session")
def table() -> Callable[[Cells], TableColumns]:
    return make_table


@pytest.fixture(scope="session")
def fit() -> Fit:
    """Fits steps to one table; raises InvalidInput for what is wrong."""

    def run(
        cells: Cells,
        *steps: Step,
        columns: tuple[str, ...] = (),
        remainder: Remainder = Remainder.AUTO,
        training: TrainingRows | None = None,
        independent: bool = False,
    ) -> FittedPreprocessing:
        source, violations = make_table(cells), Violations()
        entries = (ColumnSteps(columns=columns or tuple(cells), steps=steps),) if steps else ()
        asked = Preprocessing(columns=entries, remainder=remainder)
        indices = range(len(source.names))
        fitted = fit_preprocessing(
            asked, source, indices, training or TrainingRows(), violations, independent=independent
        )
        violations.raise_if_any()
        assert fitted is not None
        return fitted

    return run


@pytest.fixture(scope="session")
def apply() -> Apply:
    """Makes features [n, d] of rows; raises InvalidInput for what is wrong."""

    def run(fitted: FittedPreprocessing, cells: Cells, **options: Any) -> NDArray[np.float64]:
        source, violations, transformer = make_table(cells), Violations(), Transformer(fitted)
        out = np.empty((source.rows, transformer.width))
        transformer.transform(source, positions(source.names), out, violations, **options)
        violations.raise_if_any()
        return out

    return run


@pytest.fixture(scope="session")
def run(fit: Fit, apply: Apply) -> Run:
    """Fits steps to training rows and applies them to others."""

    def fit_and_apply(cells: Cells, others: Cells, *steps: Step) -> NDArray[np.float64]:
        return apply(fit(cells, *steps), others)

    return fit_and_apply
