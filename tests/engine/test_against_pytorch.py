"""Every loss with every optimizer, against the loop everybody writes with torch.optim and autograd."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from epochd_server.domain.layers import ACTIVATION_PARAMETERS
from epochd_server.domain.specs import (
    ActivationLayer,
    LinearLayer,
    LinearModel,
    Loss,
    LossKind,
    OptimizerKind,
    Precision,
    SequentialModel,
)
from epochd_server.engine import cohort

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.05},
    "momentum": {"lr": 0.02, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.01},
    "nesterov": {"lr": 0.02, "momentum": 0.8, "nesterov": True},
    "adam": {"optimizer": OptimizerKind.ADAM, "lr": 0.01, "weight_decay": 0.02, "beta1": 0.85},
    "rmsprop": {"optimizer": OptimizerKind.RMSPROP, "lr": 0.003, "eps": 1e-2, "weight_decay": 0.02},
    "centered": {
        "optimizer": OptimizerKind.RMSPROP,
        "lr": 0.001,
        "momentum": 0.7,
        "centered": True,
        "eps": 1e-2,
    },
    "adamw": {"optimizer": OptimizerKind.ADAMW, "lr": 0.01, "weight_decay": 0.1, "beta2": 0.98},
}
EPOCHS = 200
PATHS = [("lanes", "mlp", optimizer) for optimizer in ("sgd", "momentum", "nesterov", "adam", "adamw")]
PATHS += [("lanes", "linear", "momentum"), ("solo", "linear", "adam"), ("solo", "mlp", "nesterov")]
LIKELIHOODS = (LossKind.POISSON_NLL, LossKind.QUANTILE, LossKind.GAUSSIAN_NLL)
CASES = [(kind, *path) for kind in LossKind if kind not in LIKELIHOODS for path in PATHS]
CASES += [(kind, program, "mlp", "adam") for kind in LIKELIHOODS for program in ("lanes", "solo")]
CASES += [
    (kind, program, "mlp", optimizer)
    for kind in (LossKind.MSE, LossKind.CROSS_ENTROPY)
    for program in ("lanes", "solo")
    for optimizer in ("rmsprop", "centered")
]


def problem(kind: LossKind, rows: int = 20, features: int = 3) -> tuple[Any, Any, int]:
    """Rows, targets and the outputs a network for them has."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(rows, features))
    signal = x @ rng.normal(size=(features, 2)) + 0.3 * rng.normal(size=(rows, 2))
    if kind is LossKind.CROSS_ENTROPY:
        return x, np.digitize(signal[:, 0], [-0.5, 0.5]), 3
    if kind is LossKind.BCE_WITH_LOGITS:
        return x, signal[:, :1] > 0, 1
    if kind is LossKind.POISSON_NLL:
        return x, rng.poisson(np.exp(np.clip(signal, -2, 2))), 2
    return x, signal, 4 if kind is LossKind.GAUSSIAN_NLL else 2


def network(lab: Any, name: str, features: int, outputs: int) -> Any:
    if name == "mlp":
        return lab.mlp(features, 5, outputs, activation="tanh")
    return LinearModel(in_features=features, out_features=outputs)


@pytest.fixture(params=["lanes", "solo"])
def program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Sends every member to one program, whatever its size."""
    monkeypatch.setattr(cohort, "SMALL_WORK", 0 if request.param == "solo" else 10**9)
    return str(request.param)


def tolerance(lab: Any, task: Any, plain: Any) -> float:
    """1e-12 in float64. In float32 1e-6, or PyTorch's own rounding error where that is more.

    It is more for l1 behind a hidden layer: where a residual passes 0, a rounding flips the gradient's sign.
    """
    if task.precision is Precision.FLOAT64:
        return 1e-12
    data = dataclasses.replace(
        task.data,
        features=task.data.features.astype(np.float64),
        targets=task.data.targets.astype(np.int64 if task.data.targets.dtype == np.int64 else np.float64),
    )
    module = lab.torch_module(task).double()
    exact, _ = lab.plain_loop(dataclasses.replace(task, data=data), module=module)
    return max(1e-6, lab.distance(plain, exact))


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("batch_size", [None, 6], ids=["full", "batches"])
@pytest.mark.parametrize(("kind", "program", "model", "optimizer"), CASES, indirect=["program"])
def test_parameters_and_losses_equal_the_plain_loop(
    lab: Any,
    program: str,
    kind: LossKind,
    optimizer: str,
    model: str,
    batch_size: int | None,
    precision: Precision,
) -> None:
    x, y, outputs = problem(kind)
    rates = OPTIMIZERS[optimizer]
    if kind is LossKind.GAUSSIAN_NLL:  # a variance that has nearly gone would blow roundings up
        rates = {**rates, "lr": 0.1 * rates["lr"]}
    task = lab.make_task(
        x,
        y,
        model=network(lab, model, x.shape[1], outputs),
        loss=Loss(kind=kind, delta=0.7, quantile=0.3),
        epochs=EPOCHS,
        batch_size=batch_size,
        precision=precision,
        seeds=3,
        **rates,
    )
    result, recorder = lab.run(task)
    parameters, losses = lab.plain_loop(task)
    allowed = tolerance(lab, task, parameters)
    assert lab.distance(lab.member(result), parameters) <= allowed
    logged = [loss for _, loss, _ in recorder.points(0)]
    assert lab.distance(logged, losses) <= allowed


ACTIVATIONS = [(name, {}) for name in ACTIVATION_PARAMETERS] + [
    ("leaky_relu", {"negative_slope": 0.3}),
    ("elu", {"alpha": 0.7}),
    ("celu", {"alpha": 1.7}),
    ("softplus", {"beta": 2.0, "threshold": 1.5}),
    ("hardtanh", {"min_val": -0.4, "max_val": 0.6}),
    ("gelu", {"approximate": "tanh"}),
]


@pytest.mark.parametrize("first", [False, True], ids=["between", "first"])
@pytest.mark.parametrize(("name", "options"), ACTIVATIONS)
def test_every_activation_trains_as_in_pytorch(
    lab: Any, program: str, name: str, options: dict[str, Any], first: bool
) -> None:
    x, y, _ = problem(LossKind.MSE)
    parameters = dict(options)
    approximate = parameters.pop("approximate", "none")
    activation = ActivationLayer(function=name, parameters=parameters, approximate=approximate)
    layers = (
        LinearLayer(in_features=3, out_features=4),
        activation,
        LinearLayer(in_features=4, out_features=2),
    )
    model = SequentialModel(layers=(activation, *layers) if first else layers)
    task = lab.make_task(
        2 * x, y, model=model, epochs=60, precision=Precision.FLOAT64, seeds=8, lr=0.1, momentum=0.5
    )
    result, _ = lab.run(task)
    want, _ = lab.plain_loop(task)
    # PyTorch's derivatives of these two hold a constant rounded to float32.
    allowed = 1e-7 if name in ("celu", "hardsigmoid") else 1e-12
    assert lab.distance(lab.member(result), want) <= allowed


@pytest.mark.parametrize("batch_size", [3, 7])
def test_accumulated_gradients_equal_the_plain_loops(lab: Any, program: str, batch_size: int) -> None:
    x, y, _ = problem(LossKind.MSE)
    task = lab.make_task(
        x,
        y,
        epochs=50,
        precision=Precision.FLOAT64,
        batch_size=batch_size,
        accumulation_steps=4,
        momentum=0.9,
    )
    result, _ = lab.run(task)
    want, _ = lab.plain_loop(task)
    assert lab.distance(lab.member(result), want) <= 1e-12


def test_batches_without_shuffling_take_the_rows_in_order(lab: Any, program: str) -> None:
    x, y, _ = problem(LossKind.MSE)
    task = lab.make_task(x, y, epochs=50, precision=Precision.FLOAT64, batch_size=6, shuffle=False)
    result, _ = lab.run(task)
    want, _ = lab.plain_loop(task)
    assert lab.distance(lab.member(result), want) <= 1e-12


@pytest.mark.parametrize("kind", LossKind)
def test_integer_weights_count_rows_as_often_as_they_say(lab: Any, program: str, kind: LossKind) -> None:
    x, y, outputs = problem(kind)
    counts = np.arange(len(x)) % 3
    model = network(lab, "mlp", x.shape[1], outputs)
    options = {"model": model, "loss": kind, "epochs": 40, "precision": Precision.FLOAT64, "lr": 0.1}
    weighted, _ = lab.run(lab.make_task(x, y, weights=counts, **options))
    repeated, _ = lab.run(lab.make_task(np.repeat(x, counts, 0), np.repeat(y, counts, 0), **options))
    assert lab.distance(weighted.parameters, repeated.parameters) <= 1e-12
    assert lab.distance(weighted.final_loss, repeated.final_loss) <= 1e-12
