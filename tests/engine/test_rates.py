"""Learning-rate schedules against torch.optim.lr_scheduler, epoch by epoch and in training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from epochd_server.domain.schedules import (
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    ReduceLROnPlateau,
    StepLR,
    ThresholdMode,
)
from epochd_server.domain.specs import OptimizerKind, Precision
from epochd_server.engine import cohort
from epochd_server.engine.rates import Rates

SCHEDULES = {
    "step": StepLR(step_size=7, gamma=0.5),
    "exponential": ExponentialLR(gamma=0.97),
    "cosine": CosineAnnealingLR(t_max=30, eta_min=0.001),
    "linear": LinearLR(start_factor=0.1, end_factor=0.9, total_iters=20),
    "none": None,
}
WARMUPS = {"cold": None, "warm": LinearLR(start_factor=0.2, total_iters=9)}
PROGRAMS = {"lanes": 6, "gram": 40, "solo": 6}


@pytest.fixture(params=PROGRAMS)
def rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Row counts that lead to each program."""
    if request.param == "solo":
        monkeypatch.setattr(cohort, "SMALL_WORK", 0)
    return PROGRAMS[request.param]


def data(rows: int, members: int = 1) -> tuple[Any, Any]:
    rng = np.random.default_rng(rows)
    x = rng.normal(size=(rows * members, 2))
    return x, x @ [1.0, -2.0] + rng.normal(size=rows * members)


def logged_rates(recorder: Any, member: int = 0) -> list[float]:
    return [
        float(batch.lrs[i]) for batch in recorder.batches for i in np.flatnonzero(batch.members == member)
    ]


@pytest.mark.parametrize("warmup", WARMUPS.values(), ids=WARMUPS)
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_rates_are_pytorchs(lab: Any, schedule: Any, warmup: Any) -> None:
    task = lab.make_task(*data(4), schedule=schedule, warmup=warmup, lr=0.3)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.3)
    scheduler = lab.torch_schedule(task, optimizer)
    expected = []
    for _ in range(200):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    rates = Rates(task).at(np.zeros(1, np.int64), np.arange(200)[:, None])
    np.testing.assert_allclose(rates[:, 0], expected, rtol=1e-12)


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("name", ["step", "cosine"])
def test_trainings_follow_the_schedule_as_in_pytorch(
    lab: Any, rows: int, name: str, precision: Precision
) -> None:
    task = lab.make_task(
        *data(rows), schedule=SCHEDULES[name], warmup=WARMUPS["warm"], optimizer=OptimizerKind.ADAM,
        lr=0.05, epochs=200, precision=precision,
    )  # fmt: skip
    result, recorder = lab.run(task)
    parameters, losses = lab.plain_loop(task)
    allowed = 1e-6 if precision is Precision.FLOAT32 else 1e-12
    assert lab.distance(lab.member(result), parameters) <= allowed
    assert lab.distance([loss for _, loss, _ in recorder.points(0)], losses) <= allowed
    np.testing.assert_array_equal(
        logged_rates(recorder), Rates(task).at(np.zeros(1, np.int64), np.arange(200)[:, None])[:, 0]
    )


def test_cosine_annealing_ends_with_the_training_where_nothing_else_is_said(lab: Any) -> None:
    task = lab.make_task(
        *data(4, 2), sizes=[4, 4], schedule=CosineAnnealingLR(), warmup=WARMUPS["warm"], epochs=[29, 109]
    )
    for k, horizon in enumerate([20, 100]):
        rates = Rates(task).at(np.array([k]), np.arange(9, 9 + horizon)[:, None])[:, 0]
        np.testing.assert_allclose(
            rates, 0.005 * (1 + np.cos(np.pi * np.arange(horizon) / horizon)), rtol=1e-12
        )


RULES = {
    "relative": ReduceLROnPlateau(factor=0.5, patience=2, threshold=0.05),
    "absolute": ReduceLROnPlateau(factor=0.3, patience=1, threshold=0.02, threshold_mode=ThresholdMode.ABS),
    "cooled": ReduceLROnPlateau(factor=0.5, patience=1, threshold=0.05, cooldown=4, min_lr=1e-3),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_plateau_reduces_the_rate_as_in_pytorch(lab: Any, rows: int, rule: ReduceLROnPlateau) -> None:
    task = lab.make_task(*data(rows), schedule=rule, lr=0.1, epochs=60, precision=Precision.FLOAT64)
    result, recorder = lab.run(task)
    parameters, losses = lab.plain_loop(task)
    assert lab.distance(lab.member(result), parameters) <= 1e-12
    assert lab.distance([loss for _, loss, _ in recorder.points(0)], losses) <= 1e-12
    rates = logged_rates(recorder)
    assert rates[0] == 0.1
    assert rates[-1] < 0.1


def test_each_member_has_a_plateau_of_its_own(lab: Any, rows: int) -> None:
    x, y = data(rows, 4)
    options = {"schedule": RULES["relative"], "epochs": 40, "precision": Precision.FLOAT64}
    lrs = [0.01, 0.05, 0.1, 0.2]
    result, recorder = lab.run(lab.make_task(x, y, sizes=[rows] * 4, lr=lrs, **options))
    assert len({tuple(logged_rates(recorder, k)) for k in range(4)}) == 4
    for k, lr in enumerate(lrs):
        own = slice(k * rows, (k + 1) * rows)
        alone, alone_log = lab.run(lab.make_task(x[own], y[own], lr=lr, **options))
        assert logged_rates(alone_log) == logged_rates(recorder, k)
        assert all((value[0] == result.parameters[name][k]).all() for name, value in alone.parameters.items())


def test_a_plateau_follows_the_held_out_rows_where_there_are_any(lab: Any, rows: int) -> None:
    x, y = data(rows)
    held_x, held_y = data(rows + 1)
    rule = ReduceLROnPlateau(factor=0.5, patience=1, threshold=0.0)
    task = lab.make_task(x, y, held_out=(held_x, -held_y), schedule=rule, lr=0.05, epochs=30, log_every=1)
    _, recorder = lab.run(task)
    losses = [float(v) for batch in recorder.batches for v in batch.validation_losses]
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.05)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1, threshold=0.0)
    expected = []
    for loss in losses:
        expected.append(optimizer.param_groups[0]["lr"])
        scheduler.step(loss)
    assert logged_rates(recorder) == expected
    assert expected[-1] < 0.05
