"""What a gradient fit may have beside its optimizer: schedules, clipping and penalties; messages ↔ domain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import assert_never

from epochd.v1 import spec_pb2 as pb
from epochd_server.codec.checks import bounded_integer, not_negative, positive
from epochd_server.domain.errors import Violations
from epochd_server.domain.schedules import (
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    ReduceLROnPlateau,
    Schedule,
    StepLR,
    ThresholdMode,
)
from epochd_server.domain.specs import Clipping, Optimizer, Penalty

_MAX_EPOCHS = 10_000_000
_LINEAR, _PLATEAU = LinearLR(), ReduceLROnPlateau()
_MODES: Mapping[int, ThresholdMode] = MappingProxyType(
    {
        pb.THRESHOLD_MODE_UNSPECIFIED: ThresholdMode.REL,
        pb.THRESHOLD_MODE_REL: ThresholdMode.REL,
        pb.THRESHOLD_MODE_ABS: ThresholdMode.ABS,
    }
)
_MODE_NUMBERS: Mapping[ThresholdMode, pb.ThresholdMode.ValueType] = MappingProxyType(
    {ThresholdMode.REL: pb.THRESHOLD_MODE_REL, ThresholdMode.ABS: pb.THRESHOLD_MODE_ABS}
)


def decode_schedule(message: pb.Schedule, violations: Violations) -> Schedule | None:
    """A schedule; None, and a violation, where its kind is unset. Field paths are relative to the Schedule."""
    kind = message.WhichOneof("kind")
    if kind is None:
        violations.add(
            "kind", "must be set: step, exponential, cosine_annealing, linear or reduce_on_plateau"
        )
        return None
    with violations.within(kind):
        match kind:
            case "step":
                return _decode_step(message.step, violations)
            case "exponential":
                return ExponentialLR(gamma=positive(message.exponential.gamma, "gamma", violations))
            case "cosine_annealing":
                return _decode_cosine(message.cosine_annealing, violations)
            case "linear":
                return decode_linear(message.linear, violations)
            case "reduce_on_plateau":
                return _decode_plateau(message.reduce_on_plateau, violations)


def encode_schedule(schedule: Schedule | None) -> pb.Schedule | None:
    """The message of a schedule; None for None."""
    match schedule:
        case None:
            return None
        case StepLR():
            return pb.Schedule(step=pb.StepLr(step_size=schedule.step_size, gamma=schedule.gamma))
        case ExponentialLR():
            return pb.Schedule(exponential=pb.ExponentialLr(gamma=schedule.gamma))
        case CosineAnnealingLR():
            cosine = pb.CosineAnnealingLr(t_max=schedule.t_max, eta_min=schedule.eta_min)
            return pb.Schedule(cosine_annealing=cosine)
        case LinearLR():
            return pb.Schedule(linear=encode_linear(schedule))
        case ReduceLROnPlateau():
            return pb.Schedule(reduce_on_plateau=_encode_plateau(schedule))
        case _:
            assert_never(schedule)


def decode_linear(message: pb.LinearLr, violations: Violations) -> LinearLR:
    """A linear schedule; field paths are relative to it."""
    start = message.start_factor if message.HasField("start_factor") else _LINEAR.start_factor
    end = message.end_factor if message.HasField("end_factor") else _LINEAR.end_factor
    total = message.total_iters if message.HasField("total_iters") else _LINEAR.total_iters
    if not 0 < start <= 1:
        violations.add("start_factor", f"must be > 0 and <= 1, is {start:g}")
        start = _LINEAR.start_factor
    if not 0 <= end <= 1:
        violations.add("end_factor", f"must be from 0 to 1, is {end:g}")
        end = _LINEAR.end_factor
    total = bounded_integer(total, 1, _MAX_EPOCHS, "total_iters", violations)
    return LinearLR(start_factor=start, end_factor=end, total_iters=total)


def encode_linear(schedule: LinearLR | None) -> pb.LinearLr | None:
    """The message of a linear schedule; None for None."""
    if schedule is None:
        return None
    return pb.LinearLr(
        start_factor=schedule.start_factor,
        end_factor=schedule.end_factor,
        total_iters=schedule.total_iters,
    )


def decode_clipping(message: pb.Clipping, violations: Violations) -> Clipping | None:
    """Clipping; None, and a violation, where its kind is unset. Field paths are relative to the Clipping."""
    match message.WhichOneof("kind"):
        case "max_norm":
            return Clipping(max_norm=positive(message.max_norm, "max_norm", violations))
        case "clip_value":
            return Clipping(clip_value=positive(message.clip_value, "clip_value", violations))
        case None:
            violations.add("kind", "must be set: max_norm or clip_value")
            return None


def encode_clipping(clipping: Clipping | None) -> pb.Clipping | None:
    """The message of clipping; None for None."""
    if clipping is None:
        return None
    if clipping.max_norm is not None:
        return pb.Clipping(max_norm=clipping.max_norm)
    return pb.Clipping(clip_value=clipping.clip_value or math.inf)


def decode_penalty(message: pb.Penalty, optimizer: Optimizer, violations: Violations) -> Penalty:
    """A penalty for a fit with this optimizer; field paths are relative to the Penalty."""
    if optimizer.momentum >= 1 or optimizer.dampening != 0:
        violations.add("", "needs an optimizer with momentum < 1 and dampening = 0")
    return Penalty(
        l1=not_negative(message.l1, "l1", violations), l2=not_negative(message.l2, "l2", violations)
    )


def encode_penalty(penalty: Penalty | None) -> pb.Penalty | None:
    """The message of a penalty; None for None."""
    return None if penalty is None else pb.Penalty(l1=penalty.l1, l2=penalty.l2)


def _decode_step(message: pb.StepLr, violations: Violations) -> StepLR:
    gamma = positive(message.gamma, "gamma", violations) if message.HasField("gamma") else 0.1
    size = bounded_integer(message.step_size, 1, _MAX_EPOCHS, "step_size", violations)
    return StepLR(step_size=size, gamma=gamma)


def _decode_cosine(message: pb.CosineAnnealingLr, violations: Violations) -> CosineAnnealingLR:
    t_max = None
    if message.HasField("t_max"):
        t_max = bounded_integer(message.t_max, 1, _MAX_EPOCHS, "t_max", violations)
    return CosineAnnealingLR(t_max=t_max, eta_min=not_negative(message.eta_min, "eta_min", violations))


def _decode_plateau(message: pb.ReduceLrOnPlateau, violations: Violations) -> ReduceLROnPlateau:
    factor = message.factor if message.HasField("factor") else _PLATEAU.factor
    if not 0 < factor < 1:
        violations.add("factor", f"must be > 0 and < 1, is {factor:g}")
        factor = _PLATEAU.factor
    mode = _MODES.get(message.threshold_mode)
    if mode is None:
        violations.add("threshold_mode", f"{message.threshold_mode} is no known ThresholdMode")
    threshold = message.threshold if message.HasField("threshold") else _PLATEAU.threshold
    patience = message.patience if message.HasField("patience") else _PLATEAU.patience
    eps = message.eps if message.HasField("eps") else _PLATEAU.eps
    return ReduceLROnPlateau(
        factor=factor,
        patience=bounded_integer(patience, 0, _MAX_EPOCHS, "patience", violations),
        threshold=not_negative(threshold, "threshold", violations),
        threshold_mode=mode or ThresholdMode.REL,
        cooldown=bounded_integer(message.cooldown, 0, _MAX_EPOCHS, "cooldown", violations),
        min_lr=not_negative(message.min_lr, "min_lr", violations),
        eps=not_negative(eps, "eps", violations),
    )


def _encode_plateau(schedule: ReduceLROnPlateau) -> pb.ReduceLrOnPlateau:
    return pb.ReduceLrOnPlateau(
        factor=schedule.factor,
        patience=schedule.patience,
        threshold=schedule.threshold,
        threshold_mode=_MODE_NUMBERS[schedule.threshold_mode],
        cooldown=schedule.cooldown,
        min_lr=schedule.min_lr,
        eps=schedule.eps,
    )
