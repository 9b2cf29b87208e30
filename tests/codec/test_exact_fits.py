"""Exact fits as clients send them: defaults, bounds, and what they have no use for."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from epochd.v1 import trainer_pb2
from epochd_server.codec.exact_fits import decode_fit
from epochd_server.domain.errors import Violations
from epochd_server.domain.exact_fits import LbfgsFit, LeastSquaresFit, NewtonFit, RankRule
from epochd_server.domain.fleets import Sweep
from epochd_server.domain.specs import LinearModel, Loss, LossKind

MSE, BCE = Loss(kind=LossKind.MSE), Loss(kind=LossKind.BCE_WITH_LOGITS)


def decoded(text: str, loss: Loss = MSE, sweep: Sweep | None = None):
    """The fit of a request and the fields of its violations."""
    request = text_format.Parse(text, trainer_pb2.TrainRequest())
    violations = Violations()
    fit = decode_fit(request, sweep, LinearModel(), loss, violations)
    return fit, [found.field for found in violations.found]


@pytest.mark.parametrize(
    ("text", "loss", "fit"),
    [
        ("least_squares {}", MSE, LeastSquaresFit()),
        ("newton {}", BCE, NewtonFit()),
        ("lbfgs {}", MSE, LbfgsFit()),
        ("auto { l2: 2 }", MSE, LeastSquaresFit(l2=2.0, automatic=True)),
        ("auto {}", BCE, NewtonFit(automatic=True)),
        ("least_squares { rank: RANK_RULE_MINIMUM_NORM }", MSE, LeastSquaresFit(rank=RankRule.MINIMUM_NORM)),
        ("newton { max_iterations: 7 tolerance: 1e-9 }", BCE, NewtonFit(max_iterations=7, tolerance=1e-9)),
        ("lbfgs { history: 3 penalize_bias: true }", MSE, LbfgsFit(history=3, penalize_bias=True)),
    ],
)
def test_what_is_left_open_has_its_default(text, loss, fit):
    assert decoded(text, loss) == (fit, [])


@pytest.mark.parametrize(
    ("text", "loss", "fields"),
    [
        ("", MSE, ["fit"]),
        ("least_squares { l2: -1 rank: 9 }", MSE, ["least_squares.rank", "least_squares.l2"]),
        ("newton { max_iterations: 0 }", BCE, ["newton.max_iterations"]),
        ("newton { tolerance: 1 }", BCE, ["newton.tolerance"]),
        ("lbfgs { tolerance: 0 history: 1000 }", MSE, ["lbfgs.tolerance", "lbfgs.history"]),
        ("newton {}", MSE, ["newton"]),
        ("auto { l2: nan }", MSE, ["auto.l2"]),
        ("auto {} initial_version: 'models/a'", MSE, ["initial_version"]),
        ("auto {} validation { early_stopping {} }", MSE, ["validation.early_stopping"]),
    ],
)
def test_everything_wrong_is_told_by_field(text, loss, fields):
    assert decoded(text, loss)[1] == fields


def test_nothing_of_an_exact_fit_can_be_swept_but_folds():
    assert decoded("auto {}", sweep=Sweep(seed=(1, 2)))[1] == ["sweep"]
    assert decoded("auto {}", sweep=Sweep(folds=3))[1] == []
