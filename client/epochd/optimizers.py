"""Optimizers, with the argument names and defaults of ``torch.optim``.

Example:
    >>> SGD(lr=0.01, momentum=0.9)
    SGD(lr=0.01, momentum=0.9, dampening=0.0, weight_decay=0.0, nesterov=False)
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import TypeAlias

from epochd._typecheck import require


@dataclass(frozen=True, slots=True, kw_only=True)
class SGD:
    """``torch.optim.SGD``."""

    lr: float
    """Learning rate, > 0."""

    momentum: float = 0.0
    """Momentum, >= 0."""

    dampening: float = 0.0
    """Dampening of the momentum."""

    weight_decay: float = 0.0
    """L2 penalty added to the gradient, >= 0."""

    nesterov: bool = False
    """Nesterov's momentum; needs momentum and no dampening."""

    def __post_init__(self) -> None:
        for name in ("lr", "momentum", "dampening", "weight_decay"):
            require(self, name, Real)
        require(self, "nesterov", bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adam:
    """``torch.optim.Adam``."""

    lr: float = 1e-3
    """Learning rate, > 0."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the first and the second moment, each from 0 (inclusive) to 1 (exclusive)."""

    eps: float = 1e-8
    """Added to the denominator, >= 0."""

    weight_decay: float = 0.0
    """L2 penalty added to the gradient, >= 0."""

    def __post_init__(self) -> None:
        _check_adam(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamW:
    """``torch.optim.AdamW``."""

    lr: float = 1e-3
    """Learning rate, > 0."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the first and the second moment, each from 0 (inclusive) to 1 (exclusive)."""

    eps: float = 1e-8
    """Added to the denominator, >= 0."""

    weight_decay: float = 1e-2
    """Decay of the parameters themselves, >= 0."""

    def __post_init__(self) -> None:
        _check_adam(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class RMSprop:
    """``torch.optim.RMSprop``."""

    lr: float = 1e-2
    """Learning rate, > 0."""

    alpha: float = 0.99
    """Decay of the mean square, from 0 (inclusive) to 1 (exclusive)."""

    eps: float = 1e-8
    """Added to the denominator, >= 0."""

    weight_decay: float = 0.0
    """L2 penalty added to the gradient, >= 0."""

    momentum: float = 0.0
    """Momentum, >= 0."""

    centered: bool = False
    """Whether the squared mean gradient is subtracted from the mean square."""

    def __post_init__(self) -> None:
        for name in ("lr", "alpha", "eps", "weight_decay", "momentum"):
            require(self, name, Real)
        require(self, "centered", bool)


Optimizer: TypeAlias = SGD | Adam | AdamW | RMSprop


def _check_adam(optimizer: Adam | AdamW) -> None:
    for name in ("lr", "eps", "weight_decay"):
        require(optimizer, name, Real)
    betas = optimizer.betas
    if not (isinstance(betas, tuple | list) and len(betas) == 2 and all(isinstance(b, Real) for b in betas)):
        raise TypeError(f"{type(optimizer).__name__}: betas must be two numbers, not {betas!r}")
