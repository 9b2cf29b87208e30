"""Exact fits as messages, and statistics from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from epochd._wire.keys import decode_key
from epochd.fits import LBFGS, Fit, LeastSquares, Newton
from epochd.statistics import OutputStatistics, Statistics
from epochd.v1 import fits_pb2

_RANKS = {"refuse": fits_pb2.RANK_RULE_REFUSE, "minimum_norm": fits_pb2.RANK_RULE_MINIMUM_NORM}
_KINDS = ("gradient", "least_squares", "newton", "lbfgs")
_WHOLE = ("log_likelihood", "null_log_likelihood", "deviance", "aic", "bic")
_OF_OUTPUT = (
    "r_squared",
    "adjusted_r_squared",
    "residual_standard_error",
    "log_likelihood",
    "aic",
    "bic",
    "f_statistic",
    "f_p_value",
)


def encode_fit(fit: Fit | str) -> dict[str, Any]:
    """The message of a fit by the name of its field in a TrainRequest.

    Raises:
        TypeError: When it is no fit.
    """
    match fit:
        case "auto":
            return {"auto": fits_pb2.AutoFit()}
        case LeastSquares():
            message = fits_pb2.LeastSquaresFit(
                l2=fit.l2, rank=_RANKS[fit.rank], penalize_bias=fit.penalize_bias
            )
            return {"least_squares": message}
        case Newton():
            return {"newton": fits_pb2.NewtonFit(**_iterative(fit))}
        case LBFGS():
            return {"lbfgs": fits_pb2.LbfgsFit(history=fit.history, **_iterative(fit))}
    raise TypeError(f"fit must be 'auto' or an epochd.LeastSquares, Newton or LBFGS, not {fit!r}")


def fit_kind(message: Any) -> str:
    """Which fit a message holds, such as ``least_squares``; with `` (auto)`` where the server chose it."""
    kind = next((kind for kind in _KINDS if message.HasField(kind)), "gradient")
    return f"{kind} (auto)" if kind != "gradient" and getattr(message, kind).automatic else kind


def decode_statistics(message: fits_pb2.FitStatistics, names: Sequence[str]) -> Statistics:
    """The statistics of a message.

    Args:
        message: Of one model or member.
        names: The names of its coefficients.
    """
    return Statistics(
        key=decode_key(message.member) if message.HasField("member") else None,
        coefficient_names=tuple(names),
        rows=message.rows,
        rank=message.rank,
        condition=message.condition,
        df_model=message.df_model,
        df_residual=message.df_residual,
        outputs=tuple(_decode_output(output) for output in message.outputs),
        **_known(message, _WHOLE),
    )


def _decode_output(message: fits_pb2.OutputStatistics) -> OutputStatistics:
    return OutputStatistics(
        name=message.name,
        coefficients=np.array(message.coefficients),
        standard_errors=np.array(message.standard_errors),
        statistics=np.array(message.statistics),
        p_values=np.array(message.p_values),
        **_known(message, _OF_OUTPUT),
    )


def _known(message: Any, names: Sequence[str]) -> dict[str, float | None]:
    return {name: getattr(message, name) if message.HasField(name) else None for name in names}


def _iterative(fit: Newton | LBFGS) -> dict[str, Any]:
    return {
        "l2": fit.l2,
        "penalize_bias": fit.penalize_bias,
        "max_iterations": fit.max_iterations,
        "tolerance": fit.tolerance,
    }
