"""What a training takes: updates and memory."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from epochd_server.domain.specs import GradientFit, OptimizerKind, Precision

ITEM_BYTES: Mapping[Precision, int] = MappingProxyType({Precision.FLOAT32: 4, Precision.FLOAT64: 8})
"""Bytes a number."""


def count_steps(fit: GradientFit, rows: int) -> int:
    """Updates of the parameters in all; the last one of an epoch may take fewer mini-batches."""
    batches = -(-rows // (fit.batch_size or rows))
    return fit.epochs * -(-batches // fit.accumulation_steps)


def training_bytes(fit: GradientFit, precision: Precision, parameters: int, data_bytes: int) -> int:
    """Bytes of data, parameters, their gradients and the optimizer's state."""
    return data_bytes + parameters * ITEM_BYTES[precision] * (2 + _states(fit))


def _states(fit: GradientFit) -> int:
    """Numbers that the optimizer keeps a parameter."""
    optimizer = fit.optimizer
    if optimizer.kind is OptimizerKind.SGD:
        return 1 if optimizer.momentum else 0
    return 2
