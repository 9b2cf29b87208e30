"""Sweeps: messages ↔ domain."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from epochd.v1 import spec_pb2 as pb
from epochd_server.codec.checks import bounded_integer
from epochd_server.domain.errors import Violations
from epochd_server.domain.fleets import Sweep

MAX_MEMBERS = 100_000
MAX_FOLDS = 100
_MAX_REPORTED = 20
_Number = TypeVar("_Number", float, int)


def decode_sweep(message: pb.Sweep, optimizer: pb.Optimizer, violations: Violations) -> Sweep | None:
    """The sweep over an optimizer's numbers; field paths are relative to the Sweep.

    Args:
        message: The lists.
        optimizer: The optimizer whose numbers are swept; of what is swept its own are not looked at.
        violations: Takes every value that the optimizer could not have, every repeated one, and too many in all.

    Returns:
        The values that are good; None where there are none.
    """
    if message.momentum and optimizer.WhichOneof("kind") not in ("sgd", "rmsprop", None):
        violations.add("momentum", f"is for sgd and rmsprop, not for {optimizer.WhichOneof('kind')}")
    nesterov = optimizer.WhichOneof("kind") == "sgd" and optimizer.sgd.nesterov
    sweep = Sweep(
        lr=_distinct(message.lr, "lr", _positive, violations),
        weight_decay=_distinct(message.weight_decay, "weight_decay", _not_negative, violations),
        momentum=_distinct(
            message.momentum, "momentum", _nesterov if nesterov else _not_negative, violations
        ),
        seed=_distinct(message.seed, "seed", _not_negative, violations),
        folds=_folds(message, violations),
    )
    listed = [len(values) for values in (message.lr, message.weight_decay, message.momentum, message.seed)]
    if not any(listed) and not message.HasField("folds"):
        violations.add("", "must list values of lr, weight_decay, momentum or seed, or ask for folds")
    count = math.prod(max(length, 1) for length in (*listed, sweep.folds))
    if count > MAX_MEMBERS:
        violations.add("", f"has {count:,} combinations, at most {MAX_MEMBERS:,} are allowed")
    return sweep if sweep.names else None


def encode_sweep(sweep: Sweep | None) -> pb.Sweep | None:
    """The message of a sweep; None for None."""
    if sweep is None:
        return None
    return pb.Sweep(
        lr=sweep.lr,
        weight_decay=sweep.weight_decay,
        momentum=sweep.momentum,
        seed=sweep.seed,
        folds=sweep.folds or None,
    )


def with_swept(fit: pb.GradientFit, sweep: Sweep | None) -> pb.GradientFit:
    """The fit with the first value of each swept number in its optimizer, which may have left them unset."""
    kind = fit.optimizer.WhichOneof("kind")
    if sweep is None or kind is None:
        return fit
    filled = pb.GradientFit.FromString(fit.SerializeToString())
    optimizer = getattr(filled.optimizer, kind)
    for name in ("lr", "weight_decay", "momentum"):
        values = getattr(sweep, name)
        if values and name in optimizer.DESCRIPTOR.fields_by_name:
            setattr(optimizer, name, values[0])
    return filled


def _folds(message: pb.Sweep, violations: Violations) -> int:
    if not message.HasField("folds"):
        return 0
    return bounded_integer(message.folds, 2, MAX_FOLDS, "folds", violations)


def _distinct(
    values: Sequence[_Number],
    field: str,
    problem: Callable[[float], str | None],
    violations: Violations,
) -> tuple[_Number, ...]:
    """The values without a problem, each once; the first few others are reported."""
    found: dict[_Number, None] = {}
    faults = 0
    for index, value in enumerate(values):
        wrong = f"{value:g} is listed twice" if value in found else problem(value)
        if wrong is None:
            found[value] = None
            continue
        faults += 1
        if faults <= _MAX_REPORTED:
            violations.add(f"{field}[{index}]", wrong)
    if faults > _MAX_REPORTED:
        violations.add(field, f"has {faults - _MAX_REPORTED:,} more faults of this kind")
    return tuple(found)


def _positive(value: float) -> str | None:
    return None if 0 < value < math.inf else f"must be finite and > 0, is {value:g}"


def _not_negative(value: float) -> str | None:
    return None if 0 <= value < math.inf else f"must be finite and >= 0, is {value:g}"


def _nesterov(value: float) -> str | None:
    return None if 0 < value < math.inf else f"must be finite and > 0 with nesterov, is {value:g}"
