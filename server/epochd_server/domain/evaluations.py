"""Evaluations of members, and of a fleet as a whole.

Legend: K members, F folds, C combinations of a sweep's values, m metrics.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.fleets import FOLD, HeldOut, Members, MemberState
from epochd_server.domain.validation import Evaluation

_NOT_RESTORED = -1


def member_evaluation(members: Members, member: int) -> Evaluation | None:
    """How one member does on its held-out rows; None where it has none or was not trained."""
    held_out = members.held_out
    if held_out is None or members.states[member] != MemberState.SUCCEEDED:
        return None
    best = int(held_out.best_epochs[member])
    return Evaluation(
        rows=int(held_out.rows[member]),
        loss=float(held_out.losses[member]),
        metrics=tuple(zip(held_out.metrics, held_out.values[member].tolist(), strict=True)),
        best_epoch=None if best == _NOT_RESTORED else best,
    )


def fleet_evaluation(members: Members, *, is_sweep: bool) -> Evaluation | None:
    """How a fleet does: the medians over its trained members; of a sweep that of the best combination.

    Args:
        members: At least one was trained.
        is_sweep: Whether its members are combinations of hyperparameters, and folds.
    """
    held_out = members.held_out
    if held_out is None:
        return None
    if is_sweep and members.keys.names[-1] == FOLD:
        return _best_combination(members, held_out)
    trained = np.flatnonzero(members.states == MemberState.SUCCEEDED)
    losses = held_out.losses[trained]
    if is_sweep:
        best = int(trained[_smallest(losses)])
        found = member_evaluation(members, best)
        return None if found is None else replace(found, best=members.keys.key(best))
    return Evaluation(
        rows=int(held_out.rows.sum()),
        loss=float(np.median(losses)),
        metrics=tuple(
            zip(held_out.metrics, np.median(held_out.values[trained], axis=0).tolist(), strict=True)
        ),
    )


def _best_combination(members: Members, held_out: HeldOut) -> Evaluation:
    """That with the smallest mean loss over its folds; one of which a fold failed comes last."""
    folds = int(members.keys.columns[-1].max()) + 1
    losses, values = held_out.losses.reshape(-1, folds), held_out.values.reshape(len(held_out.values), -1)
    best = _smallest(losses.mean(axis=1))
    rows = slice(best * folds, (best + 1) * folds)
    of_folds = values[rows]
    return Evaluation(
        rows=int(held_out.rows[rows].sum()),
        loss=float(losses[best].mean()),
        metrics=tuple(zip(held_out.metrics, of_folds.mean(axis=0).tolist(), strict=True)),
        loss_deviation=float(losses[best].std(ddof=1)),
        deviations=tuple(of_folds.std(axis=0, ddof=1).tolist()),
        best=members.keys.key(best * folds)[:-1] or None,
    )


def _smallest(losses: NDArray[np.float64]) -> int:
    """Where the smallest loss is; the first of equal ones, and NaN last."""
    return int(np.argsort(losses, kind="stable")[0])
