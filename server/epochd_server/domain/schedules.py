"""How a learning rate changes from epoch to epoch, by the names and arguments of ``torch.optim.lr_scheduler``.

Epochs are counted from 0, as in ``for epoch in range(epochs): …; scheduler.step()``; lr is the optimizer's.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLR:
    """lr · gamma^(epoch // step_size).

    Attributes:
        step_size: Epochs, ≥ 1.
        gamma: Factor, > 0.
    """

    step_size: int
    gamma: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ExponentialLR:
    """lr · gamma^epoch.

    Attributes:
        gamma: Factor, > 0.
    """

    gamma: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CosineAnnealingLR:
    """eta_min + (lr − eta_min) · (1 + cos(π · epoch / t_max)) / 2.

    Attributes:
        t_max: Epochs from lr down to eta_min, ≥ 1; afterwards it rises again. None is all epochs (less the warm-up's).
        eta_min: The lowest rate, ≥ 0.
    """

    t_max: int | None = None
    eta_min: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearLR:
    """lr · (start_factor + (end_factor − start_factor) · min(epoch, total_iters) / total_iters).

    Attributes:
        start_factor: > 0 and ≤ 1.
        end_factor: From 0 to 1.
        total_iters: Epochs, ≥ 1.
    """

    start_factor: float = 1 / 3
    end_factor: float = 1.0
    total_iters: int = 5


class ThresholdMode(enum.Enum):
    """What an improvement is measured by."""

    REL = "rel"
    """loss < best · (1 − threshold)."""
    ABS = "abs"
    """loss < best − threshold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReduceLROnPlateau:
    """Multiplies the rate by ``factor`` after more than ``patience`` epochs without an improvement of the loss.

    The loss is that on the held-out rows after the epoch's update; for a member without such rows its training loss of
    the epoch. Each member has a rate of its own.

    Attributes:
        factor: > 0 and < 1.
        patience: Epochs, ≥ 0.
        threshold: By how much the best loss must be beaten, ≥ 0.
        threshold_mode: How that is meant.
        cooldown: Epochs after a reduction in which none is counted, ≥ 0.
        min_lr: The lowest rate, ≥ 0.
        eps: A reduction by no more than this is left undone, ≥ 0.
    """

    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    threshold_mode: ThresholdMode = ThresholdMode.REL
    cooldown: int = 0
    min_lr: float = 0.0
    eps: float = 1e-8


Schedule = StepLR | ExponentialLR | CosineAnnealingLR | LinearLR | ReduceLROnPlateau
