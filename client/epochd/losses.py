"""Losses; always the mean over rows. Each may also be given by its name.

Example:
    >>> resolve("mse")
    MSE()
    >>> resolve(Huber(delta=2.0))
    Huber(delta=2.0)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Literal, TypeAlias

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


ClassWeights: TypeAlias = Mapping[str, float] | Mapping[int, float] | Literal["balanced"]
"""Weights by label (others weigh 1), or ``"balanced"``: rows / (classes · rows of the class)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BCEWithLogits:
    """Binary cross entropy of logits, for two classes (0/1, booleans or two texts); ``"bce_with_logits"``."""

    label_smoothing: float = 0.0
    """The share of a label that is spread evenly over both classes, from 0 (inclusive) to 1 (exclusive)."""

    class_weights: ClassWeights | None = field(default=None, hash=False)
    """What the rows of each class weigh; the loss is the mean over rows by these weights."""

    def __post_init__(self) -> None:
        _check_classifier(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEntropy:
    """Cross entropy of logits, for classes given as integers or texts; ``"cross_entropy"``."""

    label_smoothing: float = 0.0
    """The share of a label that is spread evenly over all classes, from 0 (inclusive) to 1 (exclusive)."""

    class_weights: ClassWeights | None = field(default=None, hash=False)
    """What the rows of each class weigh, as ``weight`` of PyTorch's cross_entropy."""

    def __post_init__(self) -> None:
        _check_classifier(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoissonNLL:
    """For counts and rates >= 0, ``torch.nn.functional.poisson_nll_loss``; ``"poisson_nll"``. Predictions are rates."""

    log_input: bool = True
    """Whether the model computes logarithms of rates, or rates."""

    def __post_init__(self) -> None:
        require(self, "log_input", bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantile:
    """The pinball loss, whose optimum is a quantile; ``"quantile"``."""

    quantile: float = 0.5
    """Between 0 and 1, both exclusive."""

    def __post_init__(self) -> None:
        require(self, "quantile", Real)


@dataclass(frozen=True, slots=True)
class GaussianNLL:
    """Normal distributions, ``torch.nn.functional.gaussian_nll_loss``; ``"gaussian_nll"``.

    The model has two outputs for each target: the means first, then the logarithms of the variances. Predictions are
    the means.
    """


Loss: TypeAlias = MSE | L1 | Huber | BCEWithLogits | CrossEntropy | PoissonNLL | Quantile | GaussianNLL

BY_NAME: Mapping[str, type[Loss]] = {
    "mse": MSE,
    "l1": L1,
    "huber": Huber,
    "bce_with_logits": BCEWithLogits,
    "cross_entropy": CrossEntropy,
    "poisson_nll": PoissonNLL,
    "quantile": Quantile,
    "gaussian_nll": GaussianNLL,
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


def _check_classifier(loss: BCEWithLogits | CrossEntropy) -> None:
    require(loss, "label_smoothing", Real)
    weights: object = loss.class_weights
    if not (weights is None or weights == "balanced" or isinstance(weights, Mapping)):
        name = type(loss).__name__
        raise TypeError(f"{name}: class_weights must be a dict of labels or 'balanced', not {weights!r}")
