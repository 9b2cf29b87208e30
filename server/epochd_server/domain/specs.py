"""What is to be trained, as plain values: model, loss, optimizer and the training that joins them.

Names and defaults are PyTorch's. The values here are well formed by type only; :mod:`.validation` says
which of them make sense.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from epochd_server.domain.exact_fits import ExactFit
from epochd_server.domain.fleets import Key, Sweep
from epochd_server.domain.validation import Validation

_NO_PARAMETERS: Mapping[str, float] = MappingProxyType({})


class Precision(enum.Enum):
    """The floating-point type that parameters, data and arithmetic of a training have."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"


class Init(enum.Enum):
    """How parameters start."""

    DEFAULT = "default"
    """PyTorch's own initialisation under ``torch.manual_seed(seed)``."""
    ZEROS = "zeros"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearLayer:
    """``nn.Linear``. Sizes that are None are inferred from the layer before, the features or the targets."""

    in_features: int | None = None
    out_features: int | None = None
    bias: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationLayer:
    """An elementwise activation such as ``nn.ReLU``, by the name it has in ``torch.nn.functional``."""

    function: str
    parameters: Mapping[str, float] = field(default_factory=lambda: _NO_PARAMETERS)
    """Arguments by PyTorch's names, such as ``negative_slope``; those left out have PyTorch's defaults."""
    approximate: str = "none"
    """gelu only: ``none`` (by erf) or ``tanh``."""


Layer = LinearLayer | ActivationLayer


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearModel:
    """One ``nn.Linear``; its parameters are called ``linear.weight`` and ``linear.bias``."""

    in_features: int | None = None
    out_features: int | None = None
    bias: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SequentialModel:
    """``nn.Sequential``; parameters are called ``0.weight``, ``0.bias``, ``2.weight`` … as in PyTorch."""

    layers: tuple[Layer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleModel:
    """An ``nn.Module`` subclass that the operator registered, by its name and constructor arguments."""

    name: str
    arguments: Mapping[str, bool | int | float | str] = field(default_factory=dict)


Model = LinearModel | SequentialModel | ModuleModel


class LossKind(enum.Enum):
    """The losses, by the names of ``torch.nn.functional``; all average over rows (reduction="mean")."""

    MSE = "mse"
    L1 = "l1"
    HUBER = "huber"
    BCE_WITH_LOGITS = "bce_with_logits"
    CROSS_ENTROPY = "cross_entropy"


CLASSIFICATION_LOSSES = frozenset({LossKind.BCE_WITH_LOGITS, LossKind.CROSS_ENTROPY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A loss and its parameters."""

    kind: LossKind
    delta: float = 1.0
    """huber only: where the loss turns from quadratic to linear, in units of the target; > 0."""


class OptimizerKind(enum.Enum):
    """The optimizers, by the names of ``torch.optim``."""

    SGD = "sgd"
    ADAM = "adam"
    ADAMW = "adamw"


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """An optimizer with PyTorch's argument names; those of other kinds are ignored."""

    kind: OptimizerKind
    lr: float
    weight_decay: float = 0.0
    """Added to the gradient (SGD, Adam) or applied to the parameter (AdamW); PyTorch's AdamW default is 0.01."""
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientFit:
    """Fitting by gradient descent."""

    optimizer: Optimizer
    epochs: int
    batch_size: int | None = None
    """Rows per mini-batch; None is full batch."""
    shuffle: bool = True
    """Whether mini-batches are drawn from a fresh permutation each epoch. Full batch never permutes."""
    accumulation_steps: int = 1
    """Mini-batches whose mean losses' gradients are averaged before one optimizer step."""


Fit = GradientFit | ExactFit


def data_precision(fit: Fit, precision: Precision) -> Precision:
    """The type of the rows that a fit takes, where its result has ``precision``."""
    return precision if isinstance(fit, GradientFit) else Precision.FLOAT64


@dataclass(frozen=True, slots=True, kw_only=True)
class Logging:
    """What is logged, and how often."""

    every: int
    """Epochs 0, every, 2·every … are logged."""
    parameters: bool = False
    members: tuple[Key, ...] = ()
    """Fleets: members whose epochs are logged too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSpec:
    """Everything about a training but its data; sizes are resolved (no None) once it is queued."""

    model: Model
    loss: Loss
    fit: Fit
    init: Init
    precision: Precision
    seed: int
    logging: Logging
    key_columns: tuple[str, ...] = ()
    """Fleets: the columns whose values name the members, or the swept hyperparameters."""
    sweep: Sweep | None = None
    """Trains one member for each combination, all on the same rows."""
    validation: Validation | None = None
    """What is held out; None is nothing."""

    @property
    def data_precision(self) -> Precision:
        """The type of the rows: exact fits compute in float64 whatever precision the result has."""
        return data_precision(self.fit, self.precision)
