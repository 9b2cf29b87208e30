"""Each optimizer against its namesake in torch.optim, in both layouts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epochd_server.domain.specs import OptimizerKind
from epochd_server.engine import optimizers

MEMBERS, SIZE = 3, 5


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
    table = optimizers.hyperparameter_table(
        lab.hyperparameters(MEMBERS, nesterov, **values), np.arange(MEMBERS)
    )
    active = np.ones(MEMBERS, np.bool_)
    if layout == "rows":
        got = start.copy()
        rows = optimizers.RowOptimizer(kind, table, nesterov, start.shape, np.dtype(dtype))
        for gradient in gradients:
            rows.step(got, gradient, active)
    else:
        lanes = np.ascontiguousarray(start.T)
        first, second, powers = np.zeros_like(lanes), np.zeros_like(lanes), np.ones((2, MEMBERS))
        scales = np.zeros((optimizers.SCALES, MEMBERS), dtype)
        code = optimizers.CODES[kind]
        for gradient in gradients:
            optimizers.refresh_scales(code, table, powers, active, scales)
            columns = np.ascontiguousarray(gradient.T)
            optimizers.step_lanes(code, nesterov, lanes, columns, first, second, scales, active)
        got = lanes.T
    for k in range(MEMBERS):
        own = {name: column[k] for name, column in values.items()}
        want = torch_steps(kind, own, nesterov, start[k], gradients[:, k])
        assert lab.distance(got[k], want) <= (3e-6 if dtype is np.float32 else 1e-12)


@pytest.mark.parametrize("kind", OptimizerKind)
def test_inactive_members_keep_parameters_and_state(lab: Any, kind: OptimizerKind) -> None:
    table = optimizers.hyperparameter_table(lab.hyperparameters(2, momentum=0.9), np.arange(2))
    optimizer = optimizers.RowOptimizer(kind, table, False, (2, 3), np.dtype(np.float64))
    reference = optimizers.RowOptimizer(kind, table, False, (2, 3), np.dtype(np.float64))
    resting, steady, both = np.ones((2, 3)), np.ones((2, 3)), np.ones(2, np.bool_)
    optimizer.step(resting, np.full((2, 3), np.nan), np.array([True, False]))
    assert (resting[1] == 1).all()
    for _ in range(3):
        optimizer.step(resting, np.full((2, 3), 0.5), both)
        reference.step(steady, np.full((2, 3), 0.5), both)
    assert (resting[1] == steady[1]).all()
