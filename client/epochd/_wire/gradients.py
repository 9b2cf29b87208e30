"""How a model is fitted by gradient descent, as messages: optimizers, schedules, clipping and penalties."""

from __future__ import annotations

from dataclasses import dataclass

from epochd.errors import invalid
from epochd.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from epochd.schedules import (
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    ReduceLROnPlateau,
    Schedule,
    StepLR,
)
from epochd.v1 import spec_pb2

_MODES = {"rel": spec_pb2.THRESHOLD_MODE_REL, "abs": spec_pb2.THRESHOLD_MODE_ABS}


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientRules:
    """What ``train`` takes beside an optimizer and epochs."""

    schedule: Schedule | None
    warmup: LinearLR | None
    max_norm: float | None
    clip_value: float | None
    l1: float
    l2: float

    @property
    def given(self) -> bool:
        """Whether there is anything of it."""
        beside = (self.schedule, self.warmup, self.max_norm, self.clip_value)
        return any(part is not None for part in beside) or self.l1 != 0 or self.l2 != 0


def add_rules(fit: spec_pb2.GradientFit, rules: GradientRules) -> None:
    """Puts the rules into a fit.

    Raises:
        InvalidArgument: When gradients are to be clipped in two ways.
        TypeError: When something is no schedule.
    """
    if rules.schedule is not None:
        fit.schedule.CopyFrom(encode_schedule(rules.schedule))
    if rules.warmup is not None:
        if not isinstance(rules.warmup, LinearLR):
            raise TypeError(f"warmup must be an epochd.LinearLR, not {rules.warmup!r}")
        fit.warmup.CopyFrom(_linear(rules.warmup))
    if rules.max_norm is not None and rules.clip_value is not None:
        raise invalid("gradient.clipping", "give max_norm or clip_value, not both")
    if rules.max_norm is not None:
        fit.clipping.max_norm = rules.max_norm
    if rules.clip_value is not None:
        fit.clipping.clip_value = rules.clip_value
    if rules.l1 != 0 or rules.l2 != 0:
        fit.penalty.CopyFrom(spec_pb2.Penalty(l1=rules.l1, l2=rules.l2))


def encode_schedule(schedule: Schedule) -> spec_pb2.Schedule:
    """The message of a schedule."""
    match schedule:
        case StepLR():
            step = spec_pb2.StepLr(step_size=schedule.step_size, gamma=schedule.gamma)
            return spec_pb2.Schedule(step=step)
        case ExponentialLR():
            return spec_pb2.Schedule(exponential=spec_pb2.ExponentialLr(gamma=schedule.gamma))
        case CosineAnnealingLR():
            cosine = spec_pb2.CosineAnnealingLr(t_max=schedule.T_max, eta_min=schedule.eta_min)
            return spec_pb2.Schedule(cosine_annealing=cosine)
        case LinearLR():
            return spec_pb2.Schedule(linear=_linear(schedule))
        case ReduceLROnPlateau():
            return spec_pb2.Schedule(reduce_on_plateau=_plateau(schedule))
    raise TypeError(f"schedule must be an epochd.StepLR, CosineAnnealingLR or the like, not {schedule!r}")


def encode_optimizer(optimizer: Optimizer) -> spec_pb2.Optimizer:
    """The message of an optimizer."""
    match optimizer:
        case SGD():
            sgd = spec_pb2.Sgd(
                lr=optimizer.lr,
                momentum=optimizer.momentum,
                dampening=optimizer.dampening,
                weight_decay=optimizer.weight_decay,
                nesterov=optimizer.nesterov,
            )
            return spec_pb2.Optimizer(sgd=sgd)
        case Adam(lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=decay):
            return spec_pb2.Optimizer(
                adam=spec_pb2.Adam(lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=decay)
            )
        case AdamW(lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=decay):
            return spec_pb2.Optimizer(
                adamw=spec_pb2.AdamW(lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=decay)
            )
        case RMSprop():
            rmsprop = spec_pb2.RmsProp(
                lr=optimizer.lr,
                alpha=optimizer.alpha,
                eps=optimizer.eps,
                weight_decay=optimizer.weight_decay,
                momentum=optimizer.momentum,
                centered=optimizer.centered,
            )
            return spec_pb2.Optimizer(rmsprop=rmsprop)
    raise TypeError(f"optimizer must be an epochd.SGD, Adam, AdamW or RMSprop, not {optimizer!r}")


def _linear(schedule: LinearLR) -> spec_pb2.LinearLr:
    return spec_pb2.LinearLr(
        start_factor=schedule.start_factor,
        end_factor=schedule.end_factor,
        total_iters=schedule.total_iters,
    )


def _plateau(schedule: ReduceLROnPlateau) -> spec_pb2.ReduceLrOnPlateau:
    return spec_pb2.ReduceLrOnPlateau(
        factor=schedule.factor,
        patience=schedule.patience,
        threshold=schedule.threshold,
        threshold_mode=_MODES[schedule.threshold_mode],
        cooldown=schedule.cooldown,
        min_lr=schedule.min_lr,
        eps=schedule.eps,
    )
