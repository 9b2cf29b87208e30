"""Losses; always the mean over rows. Each may also be given by its name.

Example:
    >>> resolve("mse")
    MSE()
    >>> resolve(Huber(delta=2.0))
    Huber(delta=2.0)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TypeAlias

from epochd._typecheck import require
from epochd.errors import invalid


@dataclass(frozen=True, slots=True)
class MSE:
    """Mean squared error, ``torch.nn.functional.mse_loss``; ``"mse"``."""


@dataclass(frozen=True, slots=True)
class L1:
    """Mean absolute error, ``torch.nn.functional.l1_loss``; ``"l1"``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Huber:
    """Quadratic below delta, linear above, ``torch.nn.functional.huber_loss``; ``"huber"``."""

    delta: float = 1.0
    """Where it turns, in units of the target, > 0."""

    def __post_init__(self) -> None:
        require(self, "delta", Real)


@dataclass(frozen=True, slots=True)
class BCEWithLogits:
    """Binary cross entropy of logits, for two classes (0/1, booleans or two texts); ``"bce_with_logits"``."""


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """Cross entropy of logits, for classes given as integers or texts; ``"cross_entropy"``."""


Loss: TypeAlias = MSE | L1 | Huber | BCEWithLogits | CrossEntropy

BY_NAME: Mapping[str, type[Loss]] = {
    "mse": MSE,
    "l1": L1,
    "huber": Huber,
    "bce_with_logits": BCEWithLogits,
    "cross_entropy": CrossEntropy,
}
"""The losses by the names they have in requests."""


def resolve(loss: str | Loss) -> Loss:
    """The loss for a name (hyphens and upper case are fine), or the loss itself.

    Raises:
        InvalidArgument: When no loss has the name.
    """
    if not isinstance(loss, str):
        return loss
    found = BY_NAME.get(loss.lower().replace("-", "_"))
    if found is None:
        raise invalid("loss", f"must be one of {', '.join(BY_NAME)}, is {loss!r}")
    return found()
