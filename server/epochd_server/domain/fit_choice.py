"""Which fit suits which model and loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from epochd_server.domain.exact_cost import AUTO_OPERATIONS, ExactCost, exact_cost
from epochd_server.domain.exact_fits import (
    AutoFit,
    ExactFit,
    LbfgsFit,
    LeastSquaresFit,
    NewtonFit,
    RankRule,
)
from epochd_server.domain.specs import (
    ActivationLayer,
    Fit,
    GradientFit,
    LinearLayer,
    LinearModel,
    Loss,
    LossKind,
    Model,
    SequentialModel,
)

SMOOTH_ACTIVATIONS = frozenset(
    {
        "identity",
        "gelu",
        "silu",
        "mish",
        "softplus",
        "softsign",
        "tanh",
        "tanhshrink",
        "sigmoid",
        "log_sigmoid",
    }
)
"""Activations whose derivative is continuous everywhere."""
SMOOTH_LOSSES: Mapping[LossKind, str] = MappingProxyType(
    {
        LossKind.MSE: "mse",
        LossKind.HUBER: "huber",
        LossKind.BCE_WITH_LOGITS: "bce_with_logits",
        LossKind.CROSS_ENTROPY: "cross_entropy",
    }
)
"""Losses that L-BFGS minimises."""
_NEWTON_LOSSES = (LossKind.BCE_WITH_LOGITS, LossKind.CROSS_ENTROPY)
FIELDS: Mapping[type[Fit], str] = MappingProxyType(
    {
        GradientFit: "gradient",
        LeastSquaresFit: "least_squares",
        NewtonFit: "newton",
        LbfgsFit: "lbfgs",
    }
)
"""The field of a TrainRequest that holds each kind of fit."""


def choose_fit(auto: AutoFit, model: Model, loss: Loss) -> ExactFit | None:
    """The exact fit for a model and a loss; None where there is none."""
    fits: tuple[ExactFit, ...] = (
        LeastSquaresFit(l2=auto.l2, automatic=True),
        NewtonFit(l2=auto.l2, automatic=True),
        LbfgsFit(l2=auto.l2, automatic=True),
    )
    return next((fit for fit in fits if not misfit(fit, model, loss)), None)


def misfit(fit: Fit, model: Model, loss: Loss) -> str:
    """Why a fit cannot fit a model with a loss, and what would; empty where it can."""
    if isinstance(fit, GradientFit):
        return ""
    if loss.label_smoothing:
        return "takes no label smoothing; use gradient"
    if isinstance(fit, LbfgsFit):
        return _lbfgs_misfit(model, loss)
    if not isinstance(model, LinearModel):
        return "needs a linear model; use lbfgs for layers, or gradient"
    if isinstance(fit, LeastSquaresFit) and loss.kind is not LossKind.MSE:
        return f"needs the loss mse, is given {loss.kind.value}; use {_other(loss)}"
    if isinstance(fit, NewtonFit) and loss.kind not in _NEWTON_LOSSES:
        return (
            f"needs the loss bce_with_logits or cross_entropy, is given {loss.kind.value}; use {_other(loss)}"
        )
    return ""


def needs_independent(fit: Fit) -> bool:
    """Whether features that depend on each other leave a fit without a single best solution, which it refuses."""
    if isinstance(fit, LeastSquaresFit):
        return fit.l2 == 0 and fit.rank is RankRule.REFUSE
    return isinstance(fit, NewtonFit) and fit.l2 == 0


def affordable(fit: Fit, model: Model, loss: Loss, rows: int, limit: ExactCost) -> Fit:
    """The fit, or L-BFGS where ``auto`` chose one that takes too much.

    Args:
        fit: The fit.
        model: The model, its sizes filled in.
        loss: The loss.
        rows: Of the largest member.
        limit: What a fit may take.
    """
    if not isinstance(fit, LeastSquaresFit | NewtonFit) or not fit.automatic:
        return fit
    cost, most = exact_cost(fit, model, rows), limit
    if isinstance(fit, NewtonFit):
        most = replace(limit, operations=min(limit.operations, AUTO_OPERATIONS))
    other = LbfgsFit(l2=fit.l2, automatic=True)
    too_much = cost is not None and cost.exceeds(most) and not misfit(other, model, loss)
    return other if too_much else fit


def unaffordable(fit: Fit, model: Model, rows: int, limit: ExactCost) -> str:
    """Why a fit takes too much, and what would take less; empty where it does not. See :func:`affordable`."""
    cost = exact_cost(fit, model, rows)
    if cost is None or not cost.exceeds(limit):
        return ""
    needs = f"takes about {cost.nbytes:,} bytes and {cost.operations:.1e} multiplications"
    allowed = f"this server allows {limit.nbytes:,} and {limit.operations:.1e}"
    return f"{needs} for so many coefficients; {allowed}; use lbfgs, or gradient with sgd or adam"


def _lbfgs_misfit(model: Model, loss: Loss) -> str:
    if loss.kind not in SMOOTH_LOSSES:
        smooth = ", ".join(SMOOTH_LOSSES.values())
        return f"needs a smooth loss, which {loss.kind.value} is not; use gradient, or {smooth}"
    if isinstance(model, SequentialModel):
        rough = [layer for layer in model.layers if not _is_smooth(layer)]
        if rough:
            return (
                f"takes linear layers and smooth activations, not {_named(rough[0])}; use gradient, or tanh …"
            )
    elif not isinstance(model, LinearModel):
        return "needs a linear model or a sequential one; use gradient for modules"
    return ""


def _is_smooth(layer: object) -> bool:
    if isinstance(layer, ActivationLayer):
        return layer.function in SMOOTH_ACTIVATIONS
    return isinstance(layer, LinearLayer)


def _named(layer: object) -> str:
    return (
        layer.function if isinstance(layer, ActivationLayer) else type(layer).__name__.removesuffix("Layer")
    )


def _other(loss: Loss) -> str:
    if loss.kind is LossKind.MSE:
        return "least_squares"
    if loss.kind in _NEWTON_LOSSES:
        return "newton"
    return "lbfgs or gradient" if loss.kind in SMOOTH_LOSSES else "gradient"
