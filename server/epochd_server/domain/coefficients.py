"""Linear coefficients in the units of the columns: what scaled the features is taken back.

A model's output is ``w · z + b`` with features ``z = a x + s``, so it is ``(w a) · x + (b + w · s)``. Where a step that
is not affine comes before the scaling, x is what that step gave: ``log1p(income)`` keeps its logarithm.

Legend: K members (1 for one model), o outputs, d features, m features of one column.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.preprocessing import Affine, Filled, FittedColumn, FittedPreprocessing, Impute
from epochd_server.domain.runs import Parameters

Floats = NDArray[np.float64]
_WEIGHT, _BIAS = "linear.weight", "linear.bias"


@dataclass(frozen=True, slots=True, eq=False)
class Coefficients:
    """Of a linear model, in the units of its columns.

    Attributes:
        names: d of them.
        values: [o, d]; of a fleet [K, o, d].
        intercepts: [o]; of a fleet [K, o].
    """

    names: tuple[str, ...]
    values: Floats
    intercepts: Floats


def original_coefficients(
    parameters: Parameters,
    names: tuple[str, ...],
    fitted: FittedPreprocessing | None,
    learned: Floats | None = None,
) -> Coefficients:
    """The coefficients of a linear model.

    Args:
        parameters: ``linear.weight`` [o, d] and maybe ``linear.bias`` [o]; of a fleet [K, o, d] and [K, o].
        names: The features.
        fitted: What made the features; None: nothing.
        learned: Fleets: what each member learned of its columns by itself, [K, S].
    """
    weight = parameters[_WEIGHT].astype(np.float64)
    intercepts = np.zeros(weight.shape[:-1])
    if _BIAS in parameters:
        intercepts = parameters[_BIAS].astype(np.float64)
    if fitted is None:
        return Coefficients(names, weight, intercepts)
    slopes, shifts = _affine(fitted, learned)
    if fitted.folds:
        times = len(weight) // len(fitted.folds)
        slopes, shifts = np.tile(slopes, (times, 1)), np.tile(shifts, (times, 1))
    shape = (-1, 1, weight.shape[-1]) if weight.ndim == 3 else (1, weight.shape[-1])
    shifted = (weight * shifts.reshape(shape)).sum(axis=-1)
    return Coefficients(names, weight * slopes.reshape(shape), intercepts + shifted)


def _affine(fitted: FittedPreprocessing, learned: Floats | None) -> tuple[Floats, Floats]:
    """Slopes and shifts [K, d] of all features; K is 1 where members have no numbers of their own.

    Those of a cross-validation are [F, d] of its folds: the last key column is the fold, so that they repeat.
    """
    if fitted.folds:
        folds = [_affine(fold, None) for fold in fitted.folds]
        return np.concatenate([fold[0] for fold in folds]), np.concatenate([fold[1] for fold in folds])
    parts = [_of_column(column, learned) for column in fitted.columns if column.outputs]
    members = 1 if learned is None else len(learned)
    slopes, shifts = (
        np.concatenate(
            [np.broadcast_to(part[side], (members, part[side].shape[1])) for part in parts], axis=1
        )
        for side in (0, 1)
    )
    return slopes, shifts


def _of_column(column: FittedColumn, learned: Floats | None) -> tuple[Floats, Floats]:
    """Slopes and shifts [K or 1, m]; indicators, which are the last features, are not scaled."""
    if column.places is not None:
        return _placed(column, column.places, learned)
    indicator = any(isinstance(fitted.step, Impute) and fitted.step.indicator for fitted in column.steps)
    width = len(column.outputs) - indicator
    slopes, shifts = np.ones((1, width)), np.zeros((1, width))
    for fitted in column.steps:
        match fitted.state:
            case Affine():
                center, scale = _own(fitted.state, learned)
                slopes, shifts = slopes / scale, (shifts - center) / scale + fitted.state.low
            case Filled():
                pass  # what is not missing stays as it is
            case _:
                slopes, shifts = np.ones((1, width)), np.zeros((1, width))
    if not indicator:
        return slopes, shifts
    return _joined(slopes, 1.0), _joined(shifts, 0.0)


def _placed(column: FittedColumn, places: tuple[int, ...], learned: Floats | None) -> tuple[Floats, Floats]:
    """As :func:`_of_column`; features that are 0 in every row have a slope of 0."""
    slopes, shifts = np.zeros((1, len(column.outputs))), np.zeros((1, len(column.outputs)))
    if places:
        own = replace(column, outputs=tuple(column.outputs[place] for place in places), places=None)
        slopes[:, places], shifts[:, places] = _of_column(own, learned)
    return slopes, shifts


def _own(state: Affine, learned: Floats | None) -> tuple[Floats, Floats]:
    if state.slot is None or learned is None:
        return np.array([state.center]), np.array([state.scale])
    return learned[:, state.slot : state.slot + 1], learned[:, state.slot + 1 : state.slot + 2]


def _joined(values: Floats, last: float) -> Floats:
    return np.concatenate([values, np.full((len(values), 1), last)], axis=1)
