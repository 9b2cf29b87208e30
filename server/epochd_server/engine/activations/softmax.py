"""softmax, log_softmax and logsumexp over rows: each row alone, whatever rows come with it.

Legend: R rows (slices), N elements of a slice. Rows are float64, ``[R, N]``, contiguous. Differences from the
row's largest element m keep their rounding errors, since they stand in an exponent; sums are compensated; and
the largest element itself is left out of the sum, S1 = sum over j != top of exp(x_j - m), so that 1 + S1 is
never formed where a logarithm or a complement needs S1 alone.

An infinite element counts as a limit: a single +inf takes all the weight. Where there is no limit (two +inf,
or nothing but -inf) the row is NaN, except that logsumexp is then +inf or -inf.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from epochd_server.engine.activations import double_double as dd
from epochd_server.engine.activations.exp_parts import exp_parts
from epochd_server.engine.activations.primitives import NAN, on_lanes


@dataclass(frozen=True, slots=True)
class _Weights:
    """The parts of a softmax.

    Attributes:
        largest_R1: The largest element m.
        top_R1: Its (first) index.
        shifted_RN: ``x - m``, rounded.
        error_RN: The rounding error of ``shifted_RN``.
        exponentials_RN: ``exp(shifted_RN)``, the weights less the effect of ``error_RN``.
        weights_RN: ``exp(x - m)``.
        others_R1: S1, the sum of the weights except the top one.
        total_R1: ``S = 1 + S1``, rounded.
        total_error_R1: The rounding error of ``total_R1``.
        undefined_R1: Rows without a limit.
    """

    largest_R1: Tensor  # noqa: N815
    top_R1: Tensor  # noqa: N815
    shifted_RN: Tensor  # noqa: N815
    error_RN: Tensor  # noqa: N815
    exponentials_RN: Tensor  # noqa: N815
    weights_RN: Tensor  # noqa: N815
    others_R1: Tensor  # noqa: N815
    total_R1: Tensor  # noqa: N815
    total_error_R1: Tensor  # noqa: N815
    undefined_R1: Tensor  # noqa: N815


def softmax(rows: Tensor) -> Tensor:
    """Computes exp(x_i) / sum_j exp(x_j), ``[R, N]`` to ``[R, N]``; also the gradient of logsumexp."""
    if rows.shape[1] == 0:
        return rows.clone()
    w = _weigh(rows)
    return torch.where(w.undefined_R1, NAN, w.weights_RN / w.total_R1)


def log_softmax(rows: Tensor) -> Tensor:
    """Computes (x_i - m) - log(1 + S1), two terms of one sign, ``[R, N]`` to ``[R, N]``."""
    if rows.shape[1] == 0:
        return rows.clone()
    w = _weigh(rows)
    value = w.shifted_RN - (on_lanes(torch.log1p, w.others_R1) - w.error_RN)
    return torch.where(w.undefined_R1, NAN, value)


def logsumexp(rows: Tensor) -> Tensor:
    """Computes m + log(1 + S1), ``[R, N]`` to ``[R]``; where the two cancel, by exponentials of twice the precision."""
    if rows.shape[1] == 0:
        return rows.new_full((rows.shape[0],), -torch.inf)
    w = _weigh(rows)
    log_total = on_lanes(torch.log1p, w.others_R1)
    result = (w.largest_R1 + log_total).squeeze(1)
    cancelled = (torch.abs(result) < 0.5 * log_total.squeeze(1)).nonzero().squeeze(1)
    if cancelled.numel() > 0:
        result[cancelled] = _logsumexp_near_0(rows[cancelled])
    return torch.where(torch.isinf(w.largest_R1.squeeze(1)), w.largest_R1.squeeze(1), result)


def softmax_jacobian(rows: Tensor) -> Tensor:
    """Computes s_i (delta_ij - s_j), ``[R, N]`` to ``[R, N, N]``."""
    if rows.shape[1] == 0:
        return rows.new_empty((rows.shape[0], 0, 0))
    w = _weigh(rows)
    # the relative rounding error of each factor exp / S is put back after the product
    error = w.error_RN - w.total_error_R1 / w.total_R1
    squared = w.total_R1 * w.total_R1
    jacobian = (w.exponentials_RN.unsqueeze(2) * w.exponentials_RN.unsqueeze(1)) / -squared.unsqueeze(2)
    jacobian = jacobian + jacobian * (error.unsqueeze(2) + error.unsqueeze(1))
    diagonal = (w.exponentials_RN * _others_of_each(w)) / squared
    diagonal = diagonal + diagonal * (error - w.total_error_R1 / w.total_R1)
    jacobian.diagonal(dim1=1, dim2=2).copy_(diagonal)
    return torch.where(w.undefined_R1.unsqueeze(2), NAN, jacobian)


def log_softmax_jacobian(rows: Tensor) -> Tensor:
    """Computes delta_ij - s_j, ``[R, N]`` to ``[R, N, N]``."""
    if rows.shape[1] == 0:
        return rows.new_empty((rows.shape[0], 0, 0))
    w = _weigh(rows)
    s = w.weights_RN / w.total_R1
    jacobian = (-s).unsqueeze(1).repeat(1, rows.shape[1], 1)
    jacobian.diagonal(dim1=1, dim2=2).copy_(_others_of_each(w) / w.total_R1)
    return torch.where(w.undefined_R1.unsqueeze(2), NAN, jacobian)


def _weigh(rows: Tensor) -> _Weights:
    largest, top = rows.max(dim=1, keepdim=True)
    shifted, error = dd.two_sum(rows, -largest)
    at_top = rows == largest
    shifted = torch.where(at_top, 0.0, shifted)  # also for infinity less itself
    error = dd.finite_error(torch.where(at_top, 0.0, error))
    exponentials = on_lanes(torch.exp, shifted)
    weights = exponentials + exponentials * error
    others, others_low = _sum(weights.scatter(1, top, 0.0))
    total, total_error = dd.two_sum(others, 1.0)
    total, total_error = dd.quick_two_sum(total, total_error + others_low)
    return _Weights(
        largest_R1=largest,
        top_R1=top,
        shifted_RN=shifted,
        error_RN=error,
        exponentials_RN=exponentials,
        weights_RN=weights,
        others_R1=others + others_low,
        total_R1=total,
        total_error_R1=total_error,
        undefined_R1=(largest == -torch.inf) | ((rows == torch.inf).sum(dim=1, keepdim=True) > 1),
    )


def _others_of_each(w: _Weights) -> Tensor:
    """Returns ``S - w_i = S (1 - s_i)``: for the top element S1; the others all have s_i <= 1/2."""
    return (w.total_R1 - w.weights_RN).scatter(1, w.top_R1, w.others_R1)


def _sum(values: Tensor) -> tuple[Tensor, Tensor]:
    """Sums each row as a pair ``[R, 1]``, folding halves: an order that depends on N only."""
    high, low = values, torch.zeros_like(values)
    while high.shape[1] > 1:
        if high.shape[1] % 2:
            high, low = F.pad(high, (0, 1)), F.pad(low, (0, 1))
        half = high.shape[1] // 2
        high, error = dd.two_sum(high[:, :half], high[:, half:])
        low = (low[:, :half] + low[:, half:]) + error
    return dd.quick_two_sum(high, low)


def _logsumexp_near_0(rows: Tensor) -> Tensor:
    """Returns log(1 + T) with T = sum_j exp(x_j) - 1, for rows of elements <= 1 where T may almost vanish."""
    minus_1 = rows.new_full((rows.shape[0], 1), -1.0)
    high, low, lower = _sum_of_cancelling(
        torch.cat([*exp_parts(torch.clamp(rows, min=-700.0)), minus_1], dim=1)
    )
    total, error = dd.two_sum(high, low)
    error = error + lower
    return (on_lanes(torch.log1p, total) + error / (1.0 + total)).squeeze(1)


def _sum_of_cancelling(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums each row to three times double precision, so that two thirds of the digits may cancel."""
    high, low, lower = values, torch.zeros_like(values), torch.zeros_like(values)
    while high.shape[1] > 1:
        if high.shape[1] % 2:
            high, low, lower = F.pad(high, (0, 1)), F.pad(low, (0, 1)), F.pad(lower, (0, 1))
        half = high.shape[1] // 2
        high, error = dd.two_sum(high[:, :half], high[:, half:])
        low, low_error = dd.two_sum(low[:, :half], low[:, half:])
        low, last_error = dd.two_sum(low, error)
        lower = (lower[:, :half] + lower[:, half:]) + (low_error + last_error)
    return high, low, lower
