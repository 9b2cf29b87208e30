"""Which fit `auto` chooses, and which fits are refused for which models and losses."""

from __future__ import annotations

import pytest

from epochd_server.domain.exact_cost import ExactCost
from epochd_server.domain.exact_fits import AutoFit, LbfgsFit, LeastSquaresFit, NewtonFit
from epochd_server.domain.fit_choice import affordable, choose_fit, misfit, unaffordable
from epochd_server.domain.specs import (
    ActivationLayer,
    LinearLayer,
    LinearModel,
    Loss,
    LossKind,
    ModuleModel,
    SequentialModel,
)

LINEAR = LinearModel()
LIMIT = ExactCost(8 * 2**30, 10**15)


def layers(function: str) -> SequentialModel:
    return SequentialModel(layers=(LinearLayer(), ActivationLayer(function=function), LinearLayer()))


@pytest.mark.parametrize(
    ("model", "loss", "kind"),
    [
        (LINEAR, Loss(kind=LossKind.MSE), LeastSquaresFit),
        (LINEAR, Loss(kind=LossKind.BCE_WITH_LOGITS), NewtonFit),
        (LINEAR, Loss(kind=LossKind.BCE_WITH_LOGITS, balanced=True), NewtonFit),
        (LINEAR, Loss(kind=LossKind.CROSS_ENTROPY, class_weights=(("a", 1.0), ("b", 2.0))), NewtonFit),
        (LINEAR, Loss(kind=LossKind.HUBER), LbfgsFit),
        (layers("tanh"), Loss(kind=LossKind.MSE), LbfgsFit),
        (layers("gelu"), Loss(kind=LossKind.CROSS_ENTROPY, balanced=True), LbfgsFit),
    ],
)
def test_auto_takes_the_exact_fit_that_there_is(model, loss, kind):
    fit = choose_fit(AutoFit(l2=3.0), model, loss)
    assert isinstance(fit, kind)
    assert fit.automatic
    assert fit.l2 == 3.0


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        (LINEAR, Loss(kind=LossKind.L1)),
        (LINEAR, Loss(kind=LossKind.QUANTILE)),
        (layers("relu"), Loss(kind=LossKind.MSE)),
        (ModuleModel(name="Net"), Loss(kind=LossKind.MSE)),
        (LINEAR, Loss(kind=LossKind.CROSS_ENTROPY, label_smoothing=0.1)),
    ],
)
def test_auto_finds_none_where_there_is_none(model, loss):
    assert choose_fit(AutoFit(), model, loss) is None


@pytest.mark.parametrize(
    ("fit", "model", "loss", "says"),
    [
        (LeastSquaresFit(), LINEAR, LossKind.BCE_WITH_LOGITS, "use newton"),
        (LeastSquaresFit(), layers("tanh"), LossKind.MSE, "use lbfgs"),
        (NewtonFit(), LINEAR, LossKind.MSE, "use least_squares"),
        (NewtonFit(), LINEAR, LossKind.L1, "use gradient"),
        (LbfgsFit(), layers("hardtanh"), LossKind.MSE, "not hardtanh"),
        (LbfgsFit(), LINEAR, LossKind.L1, "mse, huber"),
    ],
)
def test_a_misfit_says_what_would_fit(fit, model, loss, says):
    assert says in misfit(fit, model, Loss(kind=loss))


@pytest.mark.parametrize(
    ("fit", "features", "outputs", "rows", "fits"),
    [
        (LeastSquaresFit(), 10_000, 1, 20_000, True),
        (LeastSquaresFit(), 20_000, 1, 40_000, False),  # memory: R and R⁻¹
        (LeastSquaresFit(), 20_000, 1, 100, True),  # R has no more rows than the data
        (LeastSquaresFit(), 2_000, 1, 10**9, False),  # work
        (NewtonFit(), 6_000, 1, 10_000, True),
        (NewtonFit(), 4_000, 10, 10_000, False),
        (LbfgsFit(), 50_000, 10, 10**6, True),
    ],
)
def test_what_solves_for_all_coefficients_at_once_is_bounded_by_memory_and_work(
    fit, features, outputs, rows, fits
):
    model = LinearModel(in_features=features, out_features=outputs)
    problem = unaffordable(fit, model, rows, LIMIT)
    assert ("use lbfgs" in problem) is not fits
    assert ("bytes and" in problem) is not fits


def test_auto_turns_to_lbfgs_where_the_other_takes_too_much():
    wide = LinearModel(in_features=4_000, out_features=10)
    softmax = Loss(kind=LossKind.CROSS_ENTROPY)
    chosen = NewtonFit(l2=2.0, automatic=True)
    assert affordable(chosen, wide, softmax, 10_000, LIMIT) == LbfgsFit(l2=2.0, automatic=True)
    asked = NewtonFit(l2=2.0)
    assert affordable(asked, wide, softmax, 10_000, LIMIT) is asked
    few = LinearModel(in_features=40, out_features=10)
    assert affordable(chosen, few, softmax, 10_000, LIMIT) is chosen
