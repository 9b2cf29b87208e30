"""Exact fits, and whichever kind of fit a message holds: messages ↔ domain."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

from epochd.v1 import fits_pb2 as pb
from epochd.v1 import spec_pb2, trainer_pb2
from epochd_server.codec.checks import bounded_integer, not_negative, positive
from epochd_server.codec.fits import decode_gradient_fit, encode_gradient_fit
from epochd_server.codec.sweeps import with_swept
from epochd_server.domain.errors import Violations
from epochd_server.domain.exact_fits import (
    MAX_HISTORY,
    MAX_LBFGS_ITERATIONS,
    MAX_NEWTON_ITERATIONS,
    AutoFit,
    ExactFit,
    LbfgsFit,
    LeastSquaresFit,
    NewtonFit,
    RankRule,
)
from epochd_server.domain.fit_choice import FIELDS, choose_fit, misfit
from epochd_server.domain.fleets import FOLD, Sweep
from epochd_server.domain.specs import Fit, GradientFit, Loss, Model

_RANK_RULES: Mapping[int, RankRule] = MappingProxyType(
    {
        pb.RANK_RULE_UNSPECIFIED: RankRule.REFUSE,
        pb.RANK_RULE_REFUSE: RankRule.REFUSE,
        pb.RANK_RULE_MINIMUM_NORM: RankRule.MINIMUM_NORM,
    }
)
_RANK_NUMBERS: Mapping[RankRule, pb.RankRule.ValueType] = MappingProxyType(
    {RankRule.REFUSE: pb.RANK_RULE_REFUSE, RankRule.MINIMUM_NORM: pb.RANK_RULE_MINIMUM_NORM}
)
_UNFIT = LeastSquaresFit()
"""Stands for a fit that could not be understood."""


class HasFit(Protocol):
    """A message with a field for each kind of fit but ``auto``."""

    @property
    def gradient(self) -> spec_pb2.GradientFit:
        """By gradient descent."""

    @property
    def least_squares(self) -> pb.LeastSquaresFit:
        """By least squares."""

    @property
    def newton(self) -> pb.NewtonFit:
        """By Newton's method."""

    @property
    def lbfgs(self) -> pb.LbfgsFit:
        """By L-BFGS."""

    def HasField(self, field_name: Any) -> bool:  # noqa: N802 - protobuf's name
        """Whether a field is set."""


def decode_fit(
    request: trainer_pb2.TrainRequest,
    sweep: Sweep | None,
    model: Model | None,
    loss: Loss | None,
    violations: Violations,
) -> Fit:
    """The fit of a request; that of ``auto`` is chosen here.

    Args:
        request: The request.
        sweep: What is swept.
        model: Its model; None where it is invalid.
        loss: Its loss; None where it is invalid.
        violations: Takes what is wrong with the fit, also that it does not suit the model or the loss.
    """
    kind = request.WhichOneof("fit")
    if kind is None:
        violations.add("fit", "must be set: gradient, least_squares, newton, lbfgs or auto")
        return _UNFIT
    if kind == "gradient":
        with violations.within("gradient"):
            return decode_gradient_fit(with_swept(request.gradient, sweep), violations)
    _refuse_what_descends(request, sweep, violations)
    if kind == "auto":
        return _choose(request.auto, model, loss, violations)
    with violations.within(kind):
        fit = _decode_exact(kind, getattr(request, kind), violations)
        problem = misfit(fit, model, loss) if model is not None and loss is not None else ""
        if problem:
            violations.add("", problem)
    return fit


def _refuse_what_descends(
    request: trainer_pb2.TrainRequest, sweep: Sweep | None, violations: Violations
) -> None:
    """What an exact fit has no use for."""
    if sweep is not None and set(sweep.names) - {FOLD}:
        violations.add("sweep", "is for gradient, but for folds: exact fits have nothing that could be swept")
    if request.initial_version:
        violations.add("initial_version", "is for gradient: exact fits find the optimum without it")
    if request.validation.HasField("early_stopping"):
        violations.add("validation.early_stopping", "is for gradient: exact fits end at the optimum")


def stored_fit(message: HasFit, violations: Violations) -> Fit:
    """The fit of a message that this server made."""
    for kind in ("least_squares", "newton", "lbfgs"):
        if message.HasField(kind):
            return _decode_exact(kind, getattr(message, kind), violations)
    return decode_gradient_fit(message.gradient, violations)


def encode_fit(fit: Fit) -> dict[str, Any]:
    """The message of a fit, by the name of the field that it belongs in."""
    return {
        FIELDS[type(fit)]: encode_gradient_fit(fit) if isinstance(fit, GradientFit) else _encode_exact(fit)
    }


def _choose(message: pb.AutoFit, model: Model | None, loss: Loss | None, violations: Violations) -> Fit:
    auto = AutoFit(l2=not_negative(message.l2, "auto.l2", violations))
    if model is None or loss is None:
        return _UNFIT
    chosen = choose_fit(auto, model, loss)
    if chosen is None:
        problem = misfit(LbfgsFit(), model, loss)
        violations.add("auto", f"finds no exact fit: lbfgs {problem}")
        return _UNFIT
    return chosen


def _decode_exact(kind: str, message: Any, violations: Violations) -> ExactFit:
    if kind == "least_squares":
        return _decode_least_squares(message, violations)
    return _decode_newton(message, violations) if kind == "newton" else _decode_lbfgs(message, violations)


def _decode_least_squares(message: pb.LeastSquaresFit, violations: Violations) -> LeastSquaresFit:
    rule = _RANK_RULES.get(message.rank)
    if rule is None:
        violations.add("rank", f"{message.rank} is no known RankRule")
    return LeastSquaresFit(
        l2=not_negative(message.l2, "l2", violations),
        rank=rule or RankRule.REFUSE,
        penalize_bias=message.penalize_bias,
        automatic=message.automatic,
    )


def _decode_newton(message: pb.NewtonFit, violations: Violations) -> NewtonFit:
    iterations, tolerance = NewtonFit().max_iterations, NewtonFit().tolerance
    if message.HasField("max_iterations"):
        iterations = bounded_integer(
            message.max_iterations, 1, MAX_NEWTON_ITERATIONS, "max_iterations", violations
        )
    if message.HasField("tolerance"):
        tolerance = positive(message.tolerance, "tolerance", violations)
        if tolerance >= 1:
            violations.add("tolerance", f"must be below 1, is {tolerance:g}")
    return NewtonFit(
        l2=not_negative(message.l2, "l2", violations),
        penalize_bias=message.penalize_bias,
        max_iterations=iterations,
        tolerance=tolerance,
        automatic=message.automatic,
    )


def _decode_lbfgs(message: pb.LbfgsFit, violations: Violations) -> LbfgsFit:
    default = LbfgsFit()
    iterations, tolerance, history = default.max_iterations, default.tolerance, default.history
    if message.HasField("max_iterations"):
        iterations = bounded_integer(
            message.max_iterations, 1, MAX_LBFGS_ITERATIONS, "max_iterations", violations
        )
    if message.HasField("tolerance"):
        tolerance = positive(message.tolerance, "tolerance", violations)
    if message.HasField("history"):
        history = bounded_integer(message.history, 1, MAX_HISTORY, "history", violations)
    return LbfgsFit(
        l2=not_negative(message.l2, "l2", violations),
        penalize_bias=message.penalize_bias,
        max_iterations=iterations,
        tolerance=tolerance,
        history=history,
        automatic=message.automatic,
    )


def _encode_exact(fit: ExactFit) -> pb.LeastSquaresFit | pb.NewtonFit | pb.LbfgsFit:
    common: dict[str, Any] = {
        "l2": fit.l2,
        "penalize_bias": fit.penalize_bias,
        "automatic": fit.automatic,
    }
    if isinstance(fit, LeastSquaresFit):
        return pb.LeastSquaresFit(rank=_RANK_NUMBERS[fit.rank], **common)
    common |= {"max_iterations": fit.max_iterations, "tolerance": fit.tolerance}
    if isinstance(fit, NewtonFit):
        return pb.NewtonFit(**common)
    return pb.LbfgsFit(history=fit.history, **common)
