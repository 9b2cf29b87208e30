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
from epochd_server.domain.schedules import LinearLR, Schedule
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


@dataclass(frozen=True, slots=True, kw_only=True)
class DropoutLayer:
    """``nn.Dropout``: in training each input is 0 with probability ``p``, and divided by 1 − p else.

    Attributes:
        p: From 0 (inclusive) to 1 (exclusive).
    """

    p: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNormLayer:
    """``nn.LayerNorm`` over the features of a row.

    Attributes:
        eps: Added to the variance, > 0.
        elementwise_affine: Whether there is a weight, which starts at 1.
        bias: Whether there is a bias, which starts at 0; only with ``elementwise_affine``.
    """

    eps: float = 1e-5
    elementwise_affine: bool = True
    bias: bool = True


Layer = LinearLayer | ActivationLayer | DropoutLayer | LayerNormLayer


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
    POISSON_NLL = "poisson_nll"
    QUANTILE = "quantile"
    """The pinball loss: max(q · (y − z), (q − 1) · (y − z))."""
    GAUSSIAN_NLL = "gaussian_nll"
    """Twice as many outputs as targets: their means, then the logarithms of their variances."""


CLASSIFICATION_LOSSES = frozenset({LossKind.BCE_WITH_LOGITS, LossKind.CROSS_ENTROPY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A loss and its parameters."""

    kind: LossKind
    delta: float = 1.0
    """huber only: where the loss turns from quadratic to linear, in units of the target; > 0."""
    log_input: bool = True
    """poisson_nll only: whether outputs are logarithms of rates (e^z − y z) or rates (z − y ln(z + 1e-8))."""
    quantile: float = 0.5
    """quantile only: q, between 0 and 1 (exclusive)."""
    label_smoothing: float = 0.0
    """cross_entropy and bce_with_logits: the share ε of a label that is spread evenly over all classes, from 0
    (inclusive) to 1 (exclusive)."""
    class_weights: tuple[tuple[str | int, float], ...] | None = None
    """cross_entropy and bce_with_logits: weights of classes' rows by label; in a training, of every class and in their
    order. A row's whole loss (smoothed labels included) counts so often, and the mean is by these weights."""
    balanced: bool = False
    """Class weights are rows / (classes · rows of the class), counted over each member's training rows by their
    weights; 1 for a class without rows."""


class OptimizerKind(enum.Enum):
    """The optimizers, by the names of ``torch.optim``."""

    SGD = "sgd"
    ADAM = "adam"
    ADAMW = "adamw"
    RMSPROP = "rmsprop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """An optimizer with PyTorch's argument names; those of other kinds are ignored."""

    kind: OptimizerKind
    lr: float
    weight_decay: float = 0.0
    """Added to the gradient (SGD, Adam, RMSprop) or applied to the parameter (AdamW, whose default is 0.01)."""
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    alpha: float = 0.99
    """RMSprop: decay of the squared gradients' mean."""
    centered: bool = False
    """RMSprop: whether the squared mean gradient is subtracted from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clipping:
    """What is done to a gradient before a step; at most one of the two is set.

    Attributes:
        max_norm: ``torch.nn.utils.clip_grad_norm_``: the largest 2-norm over all parameters, > 0.
        clip_value: ``torch.nn.utils.clip_grad_value_``: the largest absolute value of an entry, > 0.
    """

    max_norm: float | None = None
    clip_value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalty:
    """Adds l1 · Σ|w| + l2/2 · Σw² to the mean loss, over parameters of two or more dimensions: weights, no biases.

    It is met by a proximal step after each of the optimizer's: w ← sign(w) max(|w| − s · l1, 0) / (1 + s · l2), where s
    is the entry's step size: lr / (1 − momentum) for SGD, divided by the root mean square that Adam and RMSprop divide
    by (Adam's momentum does not count). Weights become exactly 0. The losses that are logged are without it.

    Attributes:
        l1: ≥ 0. scikit-learn's Lasso(alpha) is l1 = 2 · alpha under mse.
        l2: ≥ 0.
    """

    l1: float = 0.0
    l2: float = 0.0


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
    schedule: Schedule | None = None
    """How the learning rate changes; None is not at all."""
    warmup: LinearLR | None = None
    """Goes before the schedule for its ``total_iters`` epochs, as ``SequentialLR([warmup, schedule], [total_iters])``;
    the schedule counts its epochs from then on."""
    clipping: Clipping | None = None
    penalty: Penalty | None = None


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
