"""The largest stable learning rate that a diverged member is told: below it training converges, above it does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from epochd_server.domain.schedules import StepLR
from epochd_server.domain.specs import LossKind, Precision
from epochd_server.engine.cohort import MemberState
from epochd_server.engine.stability import largest_stable_lr

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "momentum": {"momentum": 0.5},
    "nesterov": {"momentum": 0.5, "nesterov": True},
    "decay": {"weight_decay": 0.3},
}


@pytest.mark.parametrize("rows", [6, 40], ids=["lanes", "gram"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_it_parts_what_converges_from_what_diverges(lab: Any, options: dict[str, Any], rows: int) -> None:
    rng = np.random.default_rng(rows)
    x, y, weights = 3 * rng.normal(size=(rows, 3)), rng.normal(size=(rows, 2)), rng.random(rows) + 0.5
    shared = {"weights": weights, "epochs": 20_000, "log_every": 20_000, "precision": Precision.FLOAT64}
    rate = largest_stable_lr(lab.make_task(x, y, **shared, **options), 0)
    below, _ = lab.run(lab.make_task(x, y, lr=0.98 * rate, **shared, **options))
    above, recorder = lab.run(lab.make_task(x, y, lr=1.02 * rate, **shared, **options))
    assert below.states[0] == MemberState.FINISHED
    assert above.states[0] == MemberState.DIVERGED
    np.testing.assert_allclose(recorder.ends[-1].stable_lrs, [rate], rtol=1e-12)


def test_it_is_not_known_elsewhere(lab: Any) -> None:
    x, y = np.ones((6, 1)), np.ones(6)
    for options in (
        {"loss": LossKind.L1},
        {"batch_size": 2},
        {"schedule": StepLR(step_size=1)},
        {"model": lab.mlp(1, 2, 1)},
    ):
        assert np.isnan(largest_stable_lr(lab.make_task(x, y, **options), 0))
