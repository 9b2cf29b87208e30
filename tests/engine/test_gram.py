"""Least squares by gradient descent through Gram matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from epochd_server.domain.specs import LinearLayer, LinearModel, OptimizerKind, Precision, SequentialModel
from epochd_server.engine import cohort
from epochd_server.engine.cohort import MemberState
from epochd_server.engine.programs import gram

OPTIMIZERS: list[dict[str, Any]] = [
    {"lr": 0.05},
    {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05},
    {"lr": 0.02, "optimizer": OptimizerKind.ADAM},
    {"lr": 0.02, "optimizer": OptimizerKind.ADAMW, "weight_decay": 0.1},
]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The members that went through Gram matrices."""
    members: list[int] = []
    real = gram.train
    monkeypatch.setattr(
        cohort.gram, "train", lambda task, chain, rows, chosen, *rest: (
            members.extend(chosen), real(task, chain, rows, chosen, *rest)
        )
    )  # fmt: skip
    return members


def problem(rows: int, features: int = 4, targets: int = 2) -> tuple[Any, Any]:
    rng = np.random.default_rng(rows)
    x = rng.normal(size=(rows, features))
    return x, x @ rng.normal(size=(features, targets)) + 0.2 * rng.normal(size=(rows, targets)) + 1


@pytest.mark.parametrize("options", OPTIMIZERS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("precision", Precision)
def test_parameters_and_losses_equal_the_plain_loop(
    lab: Any, trained: list[int], options: dict[str, Any], bias: bool, precision: Precision
) -> None:
    model = LinearModel(in_features=4, out_features=2, bias=bias)
    task = lab.make_task(*problem(64), model=model, epochs=200, precision=precision, seeds=4, **options)
    result, recorder = lab.run(task)
    assert trained == [0]
    parameters, losses = lab.plain_loop(task)
    limit = 1e-6 if precision is Precision.FLOAT32 else 1e-12
    assert lab.distance(lab.member(result), parameters) <= limit
    assert lab.distance([loss for _, loss, _ in recorder.points(0)], losses) <= limit


def test_a_sequential_of_one_linear_layer_is_the_same(lab: Any, trained: list[int]) -> None:
    x, y = problem(64)
    linear, _ = lab.run(lab.make_task(x, y, epochs=50))
    model = SequentialModel(layers=(LinearLayer(in_features=4, out_features=2),))
    sequential, _ = lab.run(lab.make_task(x, y, epochs=50, model=model))
    assert trained == [0, 0]
    assert linear.parameters["linear.weight"].tobytes() == sequential.parameters["0.weight"].tobytes()


def test_weights_count_rows_as_often_as_they_say(lab: Any, trained: list[int]) -> None:
    x, y = problem(64)
    counts = np.arange(64) % 4
    weighted, _ = lab.run(lab.make_task(x, y, weights=counts, precision=Precision.FLOAT64))
    repeated, _ = lab.run(
        lab.make_task(np.repeat(x, counts, 0), np.repeat(y, counts, 0), precision=Precision.FLOAT64)
    )
    assert trained == [0, 0]
    assert lab.distance(weighted.parameters, repeated.parameters) <= 1e-12
    assert lab.distance(weighted.final_loss, repeated.final_loss) <= 1e-12


def test_each_member_is_chosen_by_its_own_rows(lab: Any, trained: list[int]) -> None:
    sizes = [3, 64, 15, 16, 20]
    x, y = problem(sum(sizes))
    lab.run(lab.make_task(x, y, sizes=sizes))
    assert sorted(trained) == [1, 3, 4]


def test_batches_and_wide_data_stay_with_the_rows(lab: Any, trained: list[int]) -> None:
    lab.run(lab.make_task(*problem(64), batch_size=32))
    lab.run(lab.make_task(*problem(400, features=gram.MOST_FEATURES + 1)))
    assert trained == []
    lab.run(lab.make_task(*problem(64), batch_size=64))
    assert trained == [0]


@pytest.mark.parametrize("precision", Precision)
def test_too_large_a_step_diverges_with_its_epoch(lab: Any, trained: list[int], precision: Precision) -> None:
    x, y = problem(48)
    task = lab.make_task(
        np.tile(x, (2, 1)),
        np.tile(y, (2, 1)),
        sizes=[48, 48],
        lr=[3.0, 0.01],
        epochs=2000,
        precision=precision,
    )
    result, recorder = lab.run(task)
    assert list(result.states) == [MemberState.DIVERGED, MemberState.FINISHED]
    _, losses = lab.plain_loop(task)
    overflow = int(np.flatnonzero(~np.isfinite(losses))[0])
    assert abs(int(result.epochs_done[0]) - overflow) <= 2
    assert recorder.points(0)[-1][0] == result.epochs_done[0] - 1
    assert str(result.epochs_done[0]) in str(result.messages[0])
