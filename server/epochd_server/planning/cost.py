"""What a training takes: updates and memory."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from epochd_server.domain.exact_cost import exact_cost
from epochd_server.domain.exact_fits import LbfgsFit
from epochd_server.domain.specs import Fit, GradientFit, Model, OptimizerKind, Precision

ITEM_BYTES: Mapping[Precision, int] = MappingProxyType({Precision.FLOAT32: 4, Precision.FLOAT64: 8})
"""Bytes a number."""


def count_steps(fit: Fit, sizes: NDArray[np.int64]) -> int:
    """Updates of the parameters in all; the last one of an epoch may take fewer mini-batches.

    Args:
        fit: How every member is fitted.
        sizes: Rows of each member [K].
    """
    if not isinstance(fit, GradientFit) or fit.batch_size is None:
        return fit.epochs * len(sizes)
    batches = -(-sizes // fit.batch_size)
    return fit.epochs * int((-(-batches // fit.accumulation_steps)).sum())


def training_bytes(fit: Fit, precision: Precision, parameters: int, data_bytes: int) -> int:
    """Bytes of data, parameters of all members, their gradients and the optimizer's state."""
    return data_bytes + parameters * ITEM_BYTES[precision] * (2 + _states(fit))


def solving_bytes(fit: Fit, model: Model, sizes: NDArray[np.int64]) -> int:
    """Bytes of an exact fit's matrices, which each member uses after the other; 0 of other fits.

    Args:
        fit: How every member is fitted.
        model: The model, its sizes filled in.
        sizes: Rows of each member [K].
    """
    cost = exact_cost(fit, model, int(sizes.max(initial=0)))
    return 0 if cost is None else cost.nbytes


def _states(fit: Fit) -> int:
    """Numbers that the optimizer keeps a parameter, or L-BFGS for its updates."""
    if isinstance(fit, LbfgsFit):
        return 2 * fit.history
    if not isinstance(fit, GradientFit):
        return 0
    optimizer = fit.optimizer
    if optimizer.kind is OptimizerKind.SGD:
        return 1 if optimizer.momentum else 0
    return 3 if optimizer.kind is OptimizerKind.RMSPROP else 2
