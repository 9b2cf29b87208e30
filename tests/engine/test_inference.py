"""Predictions: right against PyTorch, and the same bits in any company."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epochd_server.domain.layers import ACTIVATION_PARAMETERS
from epochd_server.domain.specs import LinearModel, Precision
from epochd_server.engine.inference import Predictor


def fleet(lab: Any, widths: list[int], members: int, activation: str, dtype: Any) -> tuple[Any, Any]:
    rng = np.random.default_rng(members)
    model = lab.mlp(*widths, activation=activation)
    parameters = {}
    for index in range(len(widths) - 1):
        shape = (members, widths[index + 1], widths[index])
        parameters[f"{2 * index}.weight"] = rng.normal(size=shape).astype(dtype)
        parameters[f"{2 * index}.bias"] = rng.normal(size=shape[:2]).astype(dtype)
    return model, parameters


@pytest.mark.parametrize("activation", ACTIVATION_PARAMETERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_outputs_are_pytorchs(lab: Any, activation: str, dtype: Any) -> None:
    model, parameters = fleet(lab, [5, 7, 2], 1, activation, dtype)
    rows = np.random.default_rng(0).normal(size=(50, 5)).astype(dtype)
    precision = Precision.FLOAT32 if dtype is np.float32 else Precision.FLOAT64
    module = lab.torch_module(lab.make_task(rows, np.zeros((50, 2)), model=model, precision=precision))
    module.load_state_dict({name: torch.from_numpy(value[0]) for name, value in parameters.items()})
    want = module(torch.from_numpy(rows)).detach().numpy()
    got = Predictor(model, parameters).predict(rows)
    assert got.dtype == dtype
    assert lab.distance(got, want) <= (1e-6 if dtype is np.float32 else 1e-14)


@given(
    widths=st.lists(st.integers(1, 19), min_size=2, max_size=4),
    members=st.integers(1, 5),
    count=st.integers(1, 30),
    dtype=st.sampled_from([np.float32, np.float64]),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_a_rows_bits_depend_on_the_row_and_its_member_only(
    lab: Any, widths: list[int], members: int, count: int, dtype: Any, data: Any
) -> None:
    model, parameters = fleet(lab, widths, members, "tanh", dtype)
    rows = np.random.default_rng(count).normal(size=(count, widths[0])).astype(dtype)
    keys = np.asarray(data.draw(st.lists(st.integers(0, members - 1), min_size=count, max_size=count)))
    together = Predictor(model, parameters).predict(rows, keys)
    order = np.asarray(data.draw(st.permutations(range(count))))
    shuffled = Predictor(model, parameters).predict(rows[order], keys[order])
    assert shuffled.tobytes() == together[order].tobytes()
    for i in range(count):
        single = Predictor(model, {name: value[keys[i]] for name, value in parameters.items()})
        assert single.predict(rows[i : i + 1]).tobytes() == together[i].tobytes()


def test_a_slab_is_not_copied_even_when_it_is_read_only(lab: Any) -> None:
    slab = np.random.default_rng(0).normal(size=(100, 4))
    slab.flags.writeable = False
    views = {"linear.weight": slab[:, :3].reshape(100, 1, 3), "linear.bias": slab[:, 3:]}
    predictor = Predictor(LinearModel(in_features=3, out_features=1), views)
    assert np.shares_memory(predictor._evaluator.flat, slab)
    assert predictor.members == 100
    got = predictor.predict(np.ones((1, 3)), np.array([42]))
    assert got.item() == pytest.approx(slab[42].sum(), rel=1e-14)


def test_a_result_of_training_is_not_copied(lab: Any) -> None:
    task = lab.make_task(np.ones((4, 3)), np.ones(4), sizes=[2, 2])
    result, _ = lab.run(task)
    predictor = Predictor(task.model, result.parameters)
    assert np.shares_memory(predictor._evaluator.flat, result.parameters["linear.bias"])


def test_what_does_not_fit_is_refused() -> None:
    model = LinearModel(in_features=2, out_features=1)
    parameters = {"linear.weight": np.ones((3, 1, 2)), "linear.bias": np.ones((3, 1))}
    predictor = Predictor(model, parameters)
    with pytest.raises(ValueError, match="2 features"):
        predictor.predict(np.ones((1, 3)))
    with pytest.raises(IndexError):
        predictor.predict(np.ones((1, 2)), np.array([3]))
    with pytest.raises(IndexError):
        predictor.predict(np.ones((1, 2)), np.array([-1]))
    with pytest.raises(KeyError):
        Predictor(model, {"linear.weight": np.ones((1, 2))})
    with pytest.raises(ValueError, match=r"linear\.weight"):
        Predictor(model, {"linear.weight": np.ones((1, 3)), "linear.bias": np.ones(1)})


def test_no_rows_give_no_outputs() -> None:
    parameters = {"linear.weight": np.ones((1, 2)), "linear.bias": np.ones(1)}
    predictor = Predictor(LinearModel(in_features=2, out_features=1), parameters)
    assert predictor.predict(np.empty((0, 2))).shape == (0, 1)
