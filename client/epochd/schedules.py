"""How a learning rate changes from epoch to epoch, with the names and arguments of ``torch.optim.lr_scheduler``.

For ``client.train(…, schedule=…)``, and a :class:`LinearLR` as ``warmup`` before it. Epochs are counted from 0, lr is
the optimizer's, and ``log.lr`` tells an epoch's rate.

Example:
    >>> StepLR(step_size=30)
    StepLR(step_size=30, gamma=0.1)
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal, TypeAlias, get_args

from epochd._typecheck import require

ThresholdMode: TypeAlias = Literal["rel", "abs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLR:
    """lr · gamma^(epoch // step_size)."""

    step_size: int
    """Epochs, >= 1."""

    gamma: float = 0.1
    """Factor, > 0."""

    def __post_init__(self) -> None:
        require(self, "step_size", Integral)
        require(self, "gamma", Real)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExponentialLR:
    """lr · gamma^epoch."""

    gamma: float
    """Factor, > 0."""

    def __post_init__(self) -> None:
        require(self, "gamma", Real)


@dataclass(frozen=True, slots=True, kw_only=True)
class CosineAnnealingLR:
    """eta_min + (lr − eta_min) · (1 + cos(π · epoch / T_max)) / 2."""

    T_max: int | None = None
    """Epochs from lr down to eta_min, >= 1; None: all epochs, less the warm-up's."""

    eta_min: float = 0.0
    """The lowest rate, >= 0."""

    def __post_init__(self) -> None:
        require(self, "T_max", Integral, optional=True)
        require(self, "eta_min", Real)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearLR:
    """lr · (start_factor + (end_factor − start_factor) · min(epoch, total_iters) / total_iters)."""

    start_factor: float = 1 / 3
    """> 0 and <= 1."""

    end_factor: float = 1.0
    """From 0 to 1."""

    total_iters: int = 5
    """Epochs, >= 1."""

    def __post_init__(self) -> None:
        require(self, "start_factor", Real)
        require(self, "end_factor", Real)
        require(self, "total_iters", Integral)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReduceLROnPlateau:
    """Multiplies the rate by ``factor`` after more than ``patience`` epochs without an improvement of the loss.

    The loss is that on the held-out rows; without any, the training loss. Each member of a fleet has its own rate.
    """

    factor: float = 0.1
    """> 0 and < 1."""

    patience: int = 10
    """Epochs, >= 0."""

    threshold: float = 1e-4
    """By how much the best loss must be beaten, >= 0."""

    threshold_mode: ThresholdMode = "rel"
    """``"rel"``: below best · (1 − threshold); ``"abs"``: below best − threshold."""

    cooldown: int = 0
    """Epochs after a reduction in which none is counted, >= 0."""

    min_lr: float = 0.0
    """The lowest rate, >= 0."""

    eps: float = 1e-8
    """A reduction by no more than this is left undone, >= 0."""

    def __post_init__(self) -> None:
        for name in ("factor", "threshold", "min_lr", "eps"):
            require(self, name, Real)
        for name in ("patience", "cooldown"):
            require(self, name, Integral)
        if self.threshold_mode not in get_args(ThresholdMode):
            raise TypeError(
                f"ReduceLROnPlateau: threshold_mode must be rel or abs, not {self.threshold_mode!r}"
            )


Schedule: TypeAlias = StepLR | ExponentialLR | CosineAnnealingLR | LinearLR | ReduceLROnPlateau
