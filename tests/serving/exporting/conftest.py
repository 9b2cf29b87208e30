"""Cards of models to be exported."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from epochd_server.domain.models import VersionCard
from epochd_server.domain.specs import (
    GradientFit,
    Init,
    LinearModel,
    Logging,
    Loss,
    LossKind,
    Optimizer,
    OptimizerKind,
    Precision,
    TrainingSpec,
)
from epochd_server.engine.inspection import parameter_shapes


def make_card(model, *, features=3, outputs=1, classes=None, precision=Precision.FLOAT64, keys=()):
    spec = TrainingSpec(
        model=model,
        loss=Loss(kind=LossKind.MSE if classes is None else LossKind.CROSS_ENTROPY),
        fit=GradientFit(optimizer=Optimizer(kind=OptimizerKind.SGD, lr=0.1), epochs=1),
        init=Init.ZEROS,
        precision=precision,
        seed=0,
        logging=Logging(every=1),
        key_columns=keys,
    )
    return VersionCard(
        run_id="01J" + "0" * 23,
        spec=spec,
        feature_columns=tuple(f"x{n}" for n in range(features)),
        target_columns=("y",) if outputs == 1 or classes else tuple(f"y{n}" for n in range(outputs)),
        classes=classes,
        parameters=parameter_shapes(model).count,
        rows=9,
        epochs=1,
        final_loss=0.5,
        key_columns=keys,
    )


def draw_parameters(model, *, members=0, dtype=np.float64):
    rng = np.random.default_rng(members)
    lead = (members,) if members else ()
    shapes = parameter_shapes(model).parameters
    return {slot.name: rng.normal(size=(*lead, *slot.shape)).astype(dtype) for slot in shapes}


@pytest.fixture
def card() -> Callable[..., VersionCard]:
    """Makes a card."""
    return make_card


@pytest.fixture
def draw() -> Callable[..., dict[str, np.ndarray]]:
    """Draws a model's parameters."""
    return draw_parameters


@pytest.fixture
def linear() -> LinearModel:
    """Three features, one output."""
    return LinearModel(in_features=3, out_features=1)
