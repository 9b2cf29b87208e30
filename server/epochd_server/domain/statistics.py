"""Statistics of linear models that were fitted exactly, from what a fit leaves behind.

A fit of K members leaves these arrays, float64 each, NaN where there is no such thing:

===================  ===========  ==========================================================================
coefficients         [K, t, p]    per output the weights in the order of the features, then the bias
standard_errors      [K, t, p]
rows                 [K]          rows of weight above 0
ranks                [K]          of the feature matrix with its constant
conditions           [K]          its condition number once its columns have one scale
residual_squares     [K, t]       least squares: Σ w (y − f(x))²
total_squares        [K, t]       least squares: Σ w (y − ȳ)², or Σ w y² without a bias
log_weights          [K]          least squares: Σ ln w
log_likelihoods      [K]          classifiers: −Σ w loss
null_likelihoods     [K]          classifiers: the same of the frequencies of the classes alone
===================  ===========  ==========================================================================

Without its first axis the same is that of a single model. Criteria and likelihoods are those of statsmodels:
AIC = 2 k − 2 ln L and BIC = k ln n − 2 ln L with k coefficients, the error's variance not counted.

Legend: t outputs, p coefficients of one output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FitStatistics:
    """The statistics of K members; see the proto for the meaning of each field.

    Attributes:
        rows: [K]; so are ranks, conditions, df_model and df_residual.
        coefficients: [K, t, p]; so are standard_errors, statistics.
        outputs: Least squares: by the names of the fields of OutputStatistics, [K, t] each.
        whole: Classifiers: by the names of the fields of FitStatistics, [K] each.
        is_normal: Whether the statistics are z values; otherwise t values.
    """

    rows: Array
    ranks: Array
    conditions: Array
    df_model: Array
    df_residual: Array
    coefficients: Array
    standard_errors: Array
    statistics: Array
    outputs: Mapping[str, Array]
    whole: Mapping[str, Array]
    is_normal: bool


def fit_statistics(arrays: Mapping[str, NDArray[np.floating]], *, bias: bool) -> FitStatistics:
    """The statistics of K members.

    Args:
        arrays: As the module says.
        bias: Whether the models have one.
    """
    found = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
    coefficients, errors = found["coefficients"], found["standard_errors"]
    is_normal = "log_likelihoods" in found
    outputs = 1 if not is_normal else max(coefficients.shape[1] - 1, 1)
    ranks, rows = found["ranks"], found["rows"]
    df_model = ranks - 1.0 if bias else ranks
    df_residual = rows - outputs * ranks
    with np.errstate(divide="ignore", invalid="ignore"):
        statistics = coefficients / errors
        return FitStatistics(
            rows=rows,
            ranks=ranks,
            conditions=found["conditions"],
            df_model=df_model,
            df_residual=df_residual,
            coefficients=coefficients,
            standard_errors=errors,
            statistics=statistics,
            outputs={} if is_normal else _of_least_squares(found, df_model, df_residual, bias=bias),
            whole=_of_classifier(found, outputs * ranks) if is_normal else {},
            is_normal=is_normal,
        )


def _of_least_squares(
    found: Mapping[str, Array], df_model: Array, df_residual: Array, *, bias: bool
) -> dict[str, Array]:
    """R², the residual standard error, likelihood and criteria, F; [K, t] each."""
    residual, total = found["residual_squares"], found["total_squares"]
    rows, model, free = found["rows"][:, None], df_model[:, None], df_residual[:, None]
    free = np.where(free > 0.0, free, np.nan)
    r_squared = 1.0 - residual / total
    # of normal errors with the variance that makes it largest (statsmodels' WLS.loglike)
    likelihood = -rows / 2.0 * (np.log(2.0 * math.pi * residual / rows) + 1.0)
    likelihood = likelihood + found["log_weights"][:, None] / 2.0
    coefficients = found["ranks"][:, None]
    return {
        "r_squared": r_squared,
        "adjusted_r_squared": 1.0 - (rows - bias) / free * (1.0 - r_squared),
        "residual_standard_error": np.sqrt(residual / free),
        "log_likelihood": likelihood,
        "aic": 2.0 * coefficients - 2.0 * likelihood,
        "bic": np.log(rows) * coefficients - 2.0 * likelihood,
        "f_statistic": np.where(
            (model > 0.0) & np.isfinite(found["standard_errors"]).all(2),
            ((total - residual) / model) / (residual / free),
            np.nan,
        ),
    }


def _of_classifier(found: Mapping[str, Array], coefficients: Array) -> dict[str, Array]:
    likelihood = found["log_likelihoods"]
    return {
        "log_likelihood": likelihood,
        "null_log_likelihood": found["null_likelihoods"],
        "deviance": -2.0 * likelihood,
        "aic": 2.0 * coefficients - 2.0 * likelihood,
        "bic": np.log(found["rows"]) * coefficients - 2.0 * likelihood,
    }
