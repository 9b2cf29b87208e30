"""Probabilities of the statistics of exact fits: what needs the distribution functions of SciPy."""

from __future__ import annotations

from typing import cast

import numpy as np

from epochd_server.domain.statistics import Array, FitStatistics


def p_values(statistics: FitStatistics) -> Array:
    """Two-sided probabilities [K, t, p] of statistics as far from 0 where the coefficient is 0."""
    # imported here: it takes a while, and only those who ask for statistics need it
    from scipy import special

    distance = -np.abs(statistics.statistics)
    if statistics.is_normal:
        return cast("Array", 2.0 * special.ndtr(distance))
    return cast("Array", 2.0 * special.stdtr(statistics.df_residual[:, None, None], distance))


def f_p_values(statistics: FitStatistics) -> Array | None:
    """Probabilities [K, t] of F values as large where all coefficients but the constant are 0; None of classifiers."""
    values = statistics.outputs.get("f_statistic")
    if values is None:
        return None
    from scipy import special

    free = statistics.df_residual[:, None]
    return cast("Array", special.fdtrc(statistics.df_model[:, None], free, values))
