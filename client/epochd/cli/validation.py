"""What is held out, from short texts: ``0.2``, ``0.2:time=day``, ``group=town``, ``test.csv``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import typer

import epochd
from epochd.cli import specs, tables

_HINT = "--validation"
_COLUMNS = ("time", "group")


def arguments(
    rows: str, metrics: str, patience: int | None, folds: int | None, sweep: epochd.Sweep | None
) -> dict[str, Any]:
    """The arguments of ``train`` that hold rows out, and the sweep with its folds.

    Args:
        rows: A fraction, further words as in ``0.2:time=day``, or a CSV file; empty where there are none.
        metrics: Names by commas.
        patience: Of early stopping; None is none.
        folds: Of a cross-validation; None is none.
        sweep: What is swept otherwise.
    """
    if folds is not None:
        sweep = replace(sweep or epochd.Sweep(), folds=folds)
    return {
        "validation": _rows(rows) if rows else None,
        "metrics": [name.strip() for name in metrics.split(",") if name.strip()],
        "early_stopping": patience,
        "sweep": sweep,
    }


def _rows(text: str) -> epochd.HoldOut | tables.Table:
    if text.endswith(".csv"):
        return tables.read(text)
    fraction: float | None = None
    given: dict[str, Any] = {}
    for word in text.split(":"):
        if "=" not in word and fraction is None:
            fraction = _fraction(word)
            continue
        key, value = specs.argument(word)
        if key not in (*_COLUMNS, "stratify"):
            raise typer.BadParameter(
                f"{word!r} is no time=COLUMN, group=COLUMN or stratify=true", param_hint=_HINT
            )
        given[key] = str(value) if key in _COLUMNS else value
    return epochd.HoldOut(fraction, **given)


def _fraction(text: str) -> float:
    value = specs.literal(text)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise typer.BadParameter(f"{text!r} is no fraction such as 0.2, and no .csv file", param_hint=_HINT)
