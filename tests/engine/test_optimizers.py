"""Each optimizer against its namesake in torch.optim, in both layouts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epochd_server.domain.specs import Clipping, OptimizerKind, Precision
from epochd_server.engine import optimizers
from epochd_server.engine.chain import Slot
from epochd_server.engine.optimizer_steps import step_lanes
from epochd_server.engine.row_optimizer import RowOptimizer

MEMBERS, SIZE = 3, 5
SLOTS = [Slot("weight", (1, SIZE), 0)]


def cohort(lab: Any, kind: OptimizerKind, dtype: Any, **options: Any) -> Any:
    """A task whose members have these hyperparameters; what it trains does not matter."""
    precision = Precision(np.dtype(dtype).name)
    rows = np.ones((MEMBERS, 1))
    return lab.make_task(
        rows, rows[:, 0], sizes=[1] * MEMBERS, optimizer=kind, precision=precision, **options
    )


def torch_steps(
    kind: OptimizerKind, values: dict[str, float], nesterov: bool, start: Any, gradients: Any
) -> Any:
    parameter = torch.tensor(start, requires_grad=True)
    shared = {"lr": values["lr"], "weight_decay": values["weight_decay"]}
    if kind is OptimizerKind.SGD:
        optimizer: Any = torch.optim.SGD(
            [parameter],
            momentum=values["momentum"],
            dampening=values["dampening"],
            nesterov=nesterov,
            **shared,
        )
    elif kind is OptimizerKind.RMSPROP:
        optimizer = torch.optim.RMSprop(
            [parameter],
            alpha=values["alpha"],
            eps=values["eps"],
            momentum=values["momentum"],
            centered=nesterov,
            **shared,
        )
    else:
        make = torch.optim.Adam if kind is OptimizerKind.ADAM else torch.optim.AdamW
        optimizer = make([parameter], betas=(values["beta1"], values["beta2"]), eps=values["eps"], **shared)
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
    return parameter.detach().numpy()


@st.composite
def settings_of_members(draw: Any) -> dict[str, Any]:
    def column(low: float, high: float) -> Any:
        return draw(st.lists(st.floats(low, high), min_size=MEMBERS, max_size=MEMBERS))

    nesterov = draw(st.booleans())
    return {
        "nesterov": nesterov,
        "lr": column(1e-4, 0.5),
        "weight_decay": draw(st.sampled_from([[0.0, 0.1, 0.01], [0.0] * 3])),
        "momentum": column(0.1, 0.95) if nesterov else draw(st.sampled_from([[0.0] * 3, [0.9, 0.0, 0.5]])),
        "dampening": [0.0] * 3 if nesterov else draw(st.sampled_from([[0.0] * 3, [0.4, 0.9, 0.1]])),
        "beta1": column(0.5, 0.99),
        "beta2": column(0.8, 0.9999),
        "eps": column(1e-10, 1e-3),
        "alpha": column(0.5, 0.999),
    }


@pytest.mark.parametrize("layout", ["rows", "lanes"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", OptimizerKind)
@given(values=settings_of_members(), seed=st.integers(0, 2**32), steps=st.integers(1, 25))
@settings(max_examples=15, deadline=None)
def test_every_member_steps_as_torch_optim_does(
    lab: Any, kind: OptimizerKind, dtype: Any, layout: str, values: dict[str, Any], seed: int, steps: int
) -> None:
    values = dict(values)
    nesterov = values.pop("nesterov")
    rng = np.random.default_rng(seed)
    start = rng.normal(size=(MEMBERS, SIZE)).astype(dtype)
    gradients = rng.normal(size=(steps, MEMBERS, SIZE)).astype(dtype)
    # centered goes along with nesterov here: each belongs to an optimizer of its own
    task = cohort(lab, kind, dtype, nesterov=nesterov, centered=nesterov, **values)
    active = np.ones(MEMBERS, np.bool_)
    if layout == "rows":
        got = start.copy()
        rows = RowOptimizer(task, np.arange(MEMBERS), SLOTS)
        for gradient in gradients:
            rows.step(got, gradient.copy(), active)
    else:
        lanes = np.ascontiguousarray(start.T)
        moments = [np.zeros_like(lanes) for _ in range(3)]
        table = optimizers.hyperparameter_table(task.hyperparameters, np.arange(MEMBERS))
        scales, powers = np.zeros((optimizers.SCALES, MEMBERS), dtype), np.ones((2, MEMBERS))
        method = optimizers.method_of(task, SLOTS)
        for gradient in gradients:
            optimizers.refresh_scales(method.optimizer, table, powers, active, scales)
            step_lanes(method, lanes, np.ascontiguousarray(gradient.T), *moments, scales, active)
        got = lanes.T
    for k in range(MEMBERS):
        own = {name: column[k] for name, column in values.items()}
        want = torch_steps(kind, own, nesterov, start[k], gradients[:, k])
        assert lab.distance(got[k], want) <= (3e-6 if dtype is np.float32 else 1e-12)


@pytest.mark.parametrize("kind", OptimizerKind)
def test_inactive_members_keep_parameters_and_state(lab: Any, kind: OptimizerKind) -> None:
    options: dict[str, Any] = {"clipping": Clipping(max_norm=0.1), "l1": 0.1, "momentum": 0.9}
    task = cohort(lab, kind, np.float64, **options)
    optimizer, reference = (RowOptimizer(task, np.arange(2), SLOTS) for _ in range(2))
    resting, steady, both = np.ones((2, SIZE)), np.ones((2, SIZE)), np.ones(2, np.bool_)
    optimizer.step(resting, np.full((2, SIZE), np.nan), np.array([True, False]))
    assert (resting[1] == 1).all()
    for _ in range(3):
        optimizer.step(resting, np.full((2, SIZE), 0.5), both)
        reference.step(steady, np.full((2, SIZE), 0.5), both)
    assert (resting[1] == steady[1]).all()
