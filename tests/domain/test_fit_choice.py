"""Which fit `auto` chooses, and which fits are refused for which models and losses."""

from __future__ import annotations

import pytest

from epochd_server.domain.exact_fits import AutoFit, LbfgsFit, LeastSquaresFit, NewtonFit
from epochd_server.domain.fit_choice import choose_fit, misfit, oversize
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


def layers(function: str) -> SequentialModel:
    return SequentialModel(layers=(LinearLayer(), ActivationLayer(function=function), LinearLayer()))


@pytest.mark.parametrize(
    ("model", "loss", "kind"),
    [
        (LINEAR, LossKind.MSE, LeastSquaresFit),
        (LINEAR, LossKind.BCE_WITH_LOGITS, NewtonFit),
        (LINEAR, LossKind.CROSS_ENTROPY, NewtonFit),
        (LINEAR, LossKind.HUBER, LbfgsFit),
        (layers("tanh"), LossKind.MSE, LbfgsFit),
        (layers("gelu"), LossKind.CROSS_ENTROPY, LbfgsFit),
    ],
)
def test_auto_takes_the_exact_fit_that_there_is(model, loss, kind):
    fit = choose_fit(AutoFit(l2=3.0), model, Loss(kind=loss))
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
        (LINEAR, Loss(kind=LossKind.CROSS_ENTROPY, class_weights=(1.0, 2.0))),
        (LINEAR, Loss(kind=LossKind.BCE_WITH_LOGITS, balanced=True)),
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
    ("fit", "features", "outputs", "fits"),
    [
        (LeastSquaresFit(), 4095, 50, True),
        (LeastSquaresFit(), 4096, 1, False),
        (NewtonFit(), 409, 9, True),
        (NewtonFit(), 409, 10, False),
        (LbfgsFit(), 50_000, 10, True),
    ],
)
def test_a_square_matrix_over_the_coefficients_must_fit(fit, features, outputs, fits):
    problem = oversize(fit, LinearModel(in_features=features, out_features=outputs))
    assert problem.endswith("use lbfgs") is not fits
