"""How a model is fitted, and what is logged: messages ↔ domain.

Decoders always return something: an invalid value is reported and replaced by one that passes every later check,
so that later stages can go on and find what else is wrong.
"""

from __future__ import annotations

from typing import TypedDict, TypeVar, assert_never

from epochd.v1 import spec_pb2 as pb
from epochd_server.codec.checks import bounded_integer, fraction, not_negative, positive
from epochd_server.codec.members import decode_key, encode_keys
from epochd_server.codec.schedules import (
    decode_clipping,
    decode_linear,
    decode_penalty,
    decode_schedule,
    encode_clipping,
    encode_linear,
    encode_penalty,
    encode_schedule,
)
from epochd_server.domain.errors import Violations
from epochd_server.domain.fleets import Key
from epochd_server.domain.schedules import LinearLR, Schedule
from epochd_server.domain.specs import Clipping, GradientFit, Logging, Optimizer, OptimizerKind, Penalty

MAX_EPOCHS = 10_000_000
MAX_LOGGED_MEMBERS = 100
_MAX_INT64 = 2**63 - 1
_DEFAULT = Optimizer(kind=OptimizerKind.ADAM, lr=1e-3)
_ADAMW_WEIGHT_DECAY = 0.01
_RMSPROP_LR = 0.01
_AdamLike = TypeVar("_AdamLike", pb.Adam, pb.AdamW)


def decode_gradient_fit(message: pb.GradientFit, violations: Violations) -> GradientFit:
    """A GradientFit; field paths are relative to it."""
    batch_size = None
    if message.HasField("batch_size"):
        batch_size = bounded_integer(message.batch_size, 1, _MAX_INT64, "batch_size", violations)
    accumulation_steps = 1
    if message.HasField("accumulation_steps"):
        accumulation_steps = bounded_integer(
            message.accumulation_steps, 1, _MAX_INT64, "accumulation_steps", violations
        )
    if accumulation_steps > 1 and batch_size is None:
        violations.add("accumulation_steps", "needs batch_size: a full batch is one batch an epoch")
    optimizer = _decode_optimizer(message.optimizer, violations)
    return GradientFit(
        optimizer=optimizer,
        epochs=bounded_integer(message.epochs, 1, MAX_EPOCHS, "epochs", violations),
        batch_size=batch_size,
        shuffle=message.shuffle if message.HasField("shuffle") else True,
        accumulation_steps=accumulation_steps,
        **_decode_rules(message, optimizer, violations),
    )


def encode_gradient_fit(fit: GradientFit) -> pb.GradientFit:
    """The message of a fit, with nothing left unset but the batch size of a full batch."""
    return pb.GradientFit(
        optimizer=_encode_optimizer(fit.optimizer),
        epochs=fit.epochs,
        batch_size=fit.batch_size,
        shuffle=fit.shuffle,
        accumulation_steps=fit.accumulation_steps,
        schedule=encode_schedule(fit.schedule),
        warmup=encode_linear(fit.warmup),
        clipping=encode_clipping(fit.clipping),
        penalty=encode_penalty(fit.penalty),
    )


class _Rules(TypedDict, total=False):
    schedule: Schedule | None
    warmup: LinearLR
    clipping: Clipping | None
    penalty: Penalty


def _decode_rules(message: pb.GradientFit, optimizer: Optimizer, violations: Violations) -> _Rules:
    """What a fit has beside its optimizer."""
    rules = _Rules()
    if message.HasField("schedule"):
        with violations.within("schedule"):
            rules["schedule"] = decode_schedule(message.schedule, violations)
    if message.HasField("warmup"):
        with violations.within("warmup"):
            rules["warmup"] = decode_linear(message.warmup, violations)
    if message.HasField("clipping"):
        with violations.within("clipping"):
            rules["clipping"] = decode_clipping(message.clipping, violations)
    if message.HasField("penalty"):
        with violations.within("penalty"):
            rules["penalty"] = decode_penalty(message.penalty, optimizer, violations)
    return rules


def decode_log_every(message: pb.Logging, violations: Violations) -> int | None:
    """How often to log, or None where that is left open; field paths are relative to ``logging``."""
    if not message.HasField("every"):
        return None
    return bounded_integer(message.every, 1, _MAX_INT64, "every", violations)


def decode_log_members(message: pb.Logging, violations: Violations) -> tuple[Key, ...]:
    """The members whose epochs are logged, as far as their keys are sound; relative to ``logging``."""
    count = len(message.members)
    if count > MAX_LOGGED_MEMBERS:
        violations.add("members", f"has {count:,} keys, at most {MAX_LOGGED_MEMBERS} are allowed")
        return ()
    keys: dict[Key, None] = {}
    for index, member in enumerate(message.members):
        with violations.within(f"members[{index}]"):
            key = decode_key(member, violations)
            if key in keys:
                violations.add("", "is listed twice")
        if key is not None:
            keys[key] = None
    return tuple(keys)


def encode_logging(logging: Logging) -> pb.Logging:
    """The message of what is logged."""
    return pb.Logging(
        every=logging.every, parameters=logging.parameters, members=encode_keys(logging.members)
    )


def _decode_optimizer(message: pb.Optimizer, violations: Violations) -> Optimizer:
    match message.WhichOneof("kind"):
        case "sgd":
            with violations.within("optimizer.sgd"):
                return _decode_sgd(message.sgd, violations)
        case "adam":
            with violations.within("optimizer.adam"):
                return _decode_adam(message.adam, OptimizerKind.ADAM, 0.0, violations)
        case "adamw":
            with violations.within("optimizer.adamw"):
                return _decode_adam(message.adamw, OptimizerKind.ADAMW, _ADAMW_WEIGHT_DECAY, violations)
        case "rmsprop":
            with violations.within("optimizer.rmsprop"):
                return _decode_rmsprop(message.rmsprop, violations)
        case None:
            violations.add("optimizer.kind", "must be set: sgd, adam, adamw or rmsprop")
            return _DEFAULT


def _decode_sgd(message: pb.Sgd, violations: Violations) -> Optimizer:
    momentum = not_negative(message.momentum, "momentum", violations)
    dampening = message.dampening
    if not abs(dampening) < float("inf"):
        violations.add("dampening", f"must be finite, is {dampening:g}")
        dampening = 0.0
    if message.nesterov and (momentum == 0 or dampening != 0):
        violations.add("nesterov", "needs momentum > 0 and dampening = 0")
    return Optimizer(
        kind=OptimizerKind.SGD,
        lr=positive(message.lr, "lr", violations),
        momentum=momentum,
        dampening=dampening,
        weight_decay=not_negative(message.weight_decay, "weight_decay", violations),
        nesterov=message.nesterov,
    )


def _decode_rmsprop(message: pb.RmsProp, violations: Violations) -> Optimizer:
    alpha = message.alpha if message.HasField("alpha") else _DEFAULT.alpha
    eps = message.eps if message.HasField("eps") else _DEFAULT.eps
    return Optimizer(
        kind=OptimizerKind.RMSPROP,
        lr=positive(message.lr, "lr", violations) if message.HasField("lr") else _RMSPROP_LR,
        alpha=fraction(alpha, "alpha", violations),
        eps=not_negative(eps, "eps", violations),
        weight_decay=not_negative(message.weight_decay, "weight_decay", violations),
        momentum=not_negative(message.momentum, "momentum", violations),
        centered=message.centered,
    )


def _decode_adam(
    message: pb.Adam | pb.AdamW, kind: OptimizerKind, default_decay: float, violations: Violations
) -> Optimizer:
    decay = message.weight_decay
    if isinstance(message, pb.AdamW) and not message.HasField("weight_decay"):
        decay = default_decay
    beta1 = message.beta1 if message.HasField("beta1") else _DEFAULT.beta1
    beta2 = message.beta2 if message.HasField("beta2") else _DEFAULT.beta2
    eps = message.eps if message.HasField("eps") else _DEFAULT.eps
    return Optimizer(
        kind=kind,
        lr=positive(message.lr, "lr", violations) if message.HasField("lr") else _DEFAULT.lr,
        beta1=fraction(beta1, "beta1", violations),
        beta2=fraction(beta2, "beta2", violations),
        eps=not_negative(eps, "eps", violations),
        weight_decay=not_negative(decay, "weight_decay", violations),
    )


def _encode_optimizer(optimizer: Optimizer) -> pb.Optimizer:
    match optimizer.kind:
        case OptimizerKind.SGD:
            sgd = pb.Sgd(
                lr=optimizer.lr,
                momentum=optimizer.momentum,
                dampening=optimizer.dampening,
                weight_decay=optimizer.weight_decay,
                nesterov=optimizer.nesterov,
            )
            return pb.Optimizer(sgd=sgd)
        case OptimizerKind.ADAM:
            return pb.Optimizer(adam=_encode_adam(pb.Adam, optimizer))
        case OptimizerKind.ADAMW:
            return pb.Optimizer(adamw=_encode_adam(pb.AdamW, optimizer))
        case OptimizerKind.RMSPROP:
            rmsprop = pb.RmsProp(
                lr=optimizer.lr,
                alpha=optimizer.alpha,
                eps=optimizer.eps,
                weight_decay=optimizer.weight_decay,
                momentum=optimizer.momentum,
                centered=optimizer.centered,
            )
            return pb.Optimizer(rmsprop=rmsprop)
        case _:
            assert_never(optimizer.kind)


def _encode_adam(kind: type[_AdamLike], optimizer: Optimizer) -> _AdamLike:
    return kind(
        lr=optimizer.lr,
        beta1=optimizer.beta1,
        beta2=optimizer.beta2,
        eps=optimizer.eps,
        weight_decay=optimizer.weight_decay,
    )
