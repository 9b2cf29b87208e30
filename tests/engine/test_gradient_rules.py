"""Clipping, penalties, class weights, smoothing and layers, against torch and scikit-learn."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import ElasticNet, LogisticRegression
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from epochd_server.domain.specs import (
    Clipping,
    DropoutLayer,
    LayerNormLayer,
    LinearLayer,
    LinearModel,
    Loss,
    LossKind,
    OptimizerKind,
    Precision,
    SequentialModel,
)
from epochd_server.engine import cohort
from epochd_server.engine.inference import Predictor

PROGRAMS = {"lanes": 6, "gram": 40, "solo": 6}
CLIPPINGS = {"norm": Clipping(max_norm=0.5), "value": Clipping(clip_value=0.2)}


@pytest.fixture(params=PROGRAMS)
def rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Row counts that lead to each program."""
    if request.param == "solo":
        monkeypatch.setattr(cohort, "SMALL_WORK", 0)
    return PROGRAMS[request.param]


def regression(rows: int, features: int = 3) -> tuple[Any, Any]:
    rng = np.random.default_rng(rows)
    x = rng.normal(size=(rows, features))
    return x, x @ np.linspace(2.0, 0.0, features) + 1.0 + rng.normal(size=rows)


def allowed(lab: Any, task: Any, plain: Any, module: nn.Module | None = None) -> float:
    """1e-12 in float64. In float32 1e-6, or PyTorch's own rounding error where that is more."""
    if task.precision is Precision.FLOAT64:
        return 1e-12
    features, targets = (array.astype(np.float64) for array in (task.data.features, task.data.targets))
    data = dataclasses.replace(task.data, features=features, targets=targets)
    module = (module or lab.torch_module(task)).double()
    exact, _ = lab.plain_loop(dataclasses.replace(task, data=data), module=module)
    return max(1e-6, 2 * float(lab.distance(plain, exact)))


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("clipping", CLIPPINGS.values(), ids=CLIPPINGS)
def test_gradients_are_clipped_as_in_pytorch(
    lab: Any, rows: int, clipping: Clipping, precision: Precision
) -> None:
    x, y = regression(rows)
    task = lab.make_task(x, y, clipping=clipping, epochs=200, precision=precision, lr=0.02, momentum=0.5)
    result, _ = lab.run(task)
    want, _ = lab.plain_loop(task)
    assert lab.distance(lab.member(result), want) <= allowed(lab, task, want)


def test_the_gradient_of_accumulated_batches_is_clipped_once(lab: Any, rows: int) -> None:
    x, y = regression(20)
    task = lab.make_task(
        x, y, clipping=Clipping(max_norm=0.5), batch_size=3, accumulation_steps=3, epochs=40,
        precision=Precision.FLOAT64, lr=0.05,
    )  # fmt: skip
    result, _ = lab.run(task)
    want, _ = lab.plain_loop(task)
    assert lab.distance(lab.member(result), want) <= 1e-12


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.05},
    "momentum": {"lr": 0.02, "momentum": 0.9, "nesterov": True},
    "adam": {"lr": 0.05, "optimizer": OptimizerKind.ADAM, "eps": 1e-3},
    "rmsprop": {"lr": 0.005, "optimizer": OptimizerKind.RMSPROP, "eps": 1e-2, "momentum": 0.5},
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_penalty_leads_to_the_elastic_nets_optimum(lab: Any, rows: int, optimizer: str) -> None:
    x, y = regression(rows, features=5)
    l1, l2 = 0.6, 0.3
    task = lab.make_task(
        x, y, l1=l1, l2=l2, epochs=6000, precision=Precision.FLOAT64, **OPTIMIZERS[optimizer]
    )
    result, _ = lab.run(task)
    # scikit-learn halves the squares: 1/(2 n) ‖y − X w‖² + alpha · l1_ratio · ‖w‖₁ + alpha (1 − l1_ratio) / 2 · ‖w‖²
    alpha = (l1 + l2) / 2
    best = ElasticNet(alpha=alpha, l1_ratio=l1 / (l1 + l2), tol=1e-14, max_iter=10**6).fit(x, y)
    weight = result.parameters["linear.weight"][0, 0]
    np.testing.assert_allclose(weight, best.coef_, atol=1e-9)
    np.testing.assert_allclose(result.parameters["linear.bias"][0], best.intercept_, atol=1e-9)
    np.testing.assert_array_equal(weight == 0, best.coef_ == 0)


def test_l1_on_a_classifier_is_scikit_learns(lab: Any) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(60, 6))
    y = (x[:, 0] - x[:, 1] + 0.5 * rng.normal(size=60) > 0).astype(int)
    l1 = 0.05
    task = lab.make_task(
        x, y, loss=LossKind.BCE_WITH_LOGITS, l1=l1, lr=0.5, momentum=0.8, epochs=20_000, log_every=20_000,
        precision=Precision.FLOAT64,
    )  # fmt: skip
    result, _ = lab.run(task)
    best = LogisticRegression(
        C=1 / (60 * l1), l1_ratio=1.0, solver="saga", tol=1e-12, max_iter=100_000, random_state=0
    ).fit(x, y)
    weight = result.parameters["linear.weight"][0, 0]
    np.testing.assert_allclose(weight, best.coef_[0], atol=1e-7)
    assert ((weight == 0) == (best.coef_[0] == 0)).all()
    assert (weight == 0).any()


def test_penalties_differ_from_member_to_member(lab: Any, rows: int) -> None:
    x, y = regression(rows)
    l1 = np.array([0.0, 0.1, 1.0])
    together, _ = lab.run(lab.make_task(x, y, shared_members=3, l1=l1, epochs=50))
    for k in range(3):
        alone, _ = lab.run(lab.make_task(x, y, l1=l1[k], epochs=50))
        for name, value in together.parameters.items():
            assert (value[k] == alone.parameters[name][0]).all()


def classification(kind: LossKind) -> tuple[Any, Any, int]:
    rng = np.random.default_rng(9)
    x = rng.normal(size=(40, 3))
    if kind is LossKind.CROSS_ENTROPY:
        return x, np.digitize(x[:, 0] + 0.5 * rng.normal(size=40), [-1.0, 0.5]), 3
    return x, (x[:, 0] + rng.normal(size=40) > 0.7).astype(int), 1


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("kind", [LossKind.CROSS_ENTROPY, LossKind.BCE_WITH_LOGITS])
def test_smoothed_labels_train_as_in_pytorch(
    lab: Any, rows: int, kind: LossKind, precision: Precision
) -> None:
    x, y, outputs = classification(kind)
    loss, model = Loss(kind=kind, label_smoothing=0.15), LinearModel(in_features=3, out_features=outputs)
    task = lab.make_task(x, y, loss=loss, model=model, epochs=200, precision=precision, lr=0.3)
    result, recorder = lab.run(task)
    if kind is LossKind.BCE_WITH_LOGITS:  # PyTorch has no smoothing here: it is one of the targets
        smooth = 0.85 * y + 0.075
        task = lab.make_task(x, smooth, loss=kind, model=model, epochs=200, precision=precision, lr=0.3)
    want, losses = lab.plain_loop(task)
    most = 1e-6 if precision is Precision.FLOAT32 else 1e-12
    assert lab.distance(lab.member(result), want) <= most
    assert lab.distance([loss for _, loss, _ in recorder.points(0)], losses) <= most


def weighted_loop(task: Any, module: nn.Module, weights: Any, batch: int) -> None:
    criterion = nn.CrossEntropyLoss(weight=torch.from_numpy(weights))
    optimizer = torch.optim.SGD(module.parameters(), lr=float(task.hyperparameters.lr[0]))
    x, y = torch.from_numpy(task.data.features), torch.from_numpy(task.data.targets)
    for _ in range(int(task.epochs[0])):
        for begin in range(0, len(x), batch):
            optimizer.zero_grad()
            criterion(module(x[begin : begin + batch]), y[begin : begin + batch]).backward()
            optimizer.step()


@pytest.mark.parametrize("batch_size", [None, 16], ids=["full", "batches"])
@pytest.mark.parametrize("balanced", [True, False])
def test_class_weights_are_those_of_pytorchs_cross_entropy(
    lab: Any, rows: int, balanced: bool, batch_size: int | None
) -> None:
    x, y, outputs = classification(LossKind.CROSS_ENTROPY)
    weights = np.array([0.5, 2.0, 3.0])
    if balanced:
        weights = compute_class_weight("balanced", classes=np.arange(3), y=y)
    loss = Loss(
        kind=LossKind.CROSS_ENTROPY,
        class_weights=None if balanced else tuple(enumerate(weights.tolist())),
        balanced=balanced,
    )
    task = lab.make_task(
        x, y, loss=loss, model=LinearModel(in_features=3, out_features=outputs), epochs=100, lr=0.3,
        precision=Precision.FLOAT64, shuffle=False, batch_size=batch_size,
    )  # fmt: skip
    result, _ = lab.run(task)
    module = lab.torch_module(task)
    weighted_loop(task, module, weights, batch_size or 40)
    want = {name: value.detach().numpy() for name, value in module.named_parameters()}
    assert lab.distance(lab.member(result), want) <= 1e-12


def test_balanced_weights_are_counted_member_by_member_and_held_out_rows_have_the_same(lab: Any) -> None:
    x, y, _ = classification(LossKind.BCE_WITH_LOGITS)
    loss = Loss(kind=LossKind.BCE_WITH_LOGITS, balanced=True)
    sizes = [25, 15]
    task = lab.make_task(
        x, y, loss=loss, sizes=sizes, held_out=(x, y, sizes), epochs=5, precision=Precision.FLOAT64
    )
    result, recorder = lab.run(task)
    for k in range(2):
        alone = lab.run(lab.subset(task, [k]))[0]
        assert alone.validation_losses[0] == result.validation_losses[k]
        points = recorder.points(k)
        held = [b.validation_losses[i] for b in recorder.batches for i in np.flatnonzero(b.members == k)]
        np.testing.assert_allclose(held[:-1], [loss for _, loss, _ in points[1:]], rtol=1e-12)


def norm_model(dropout: float) -> SequentialModel:
    return SequentialModel(
        layers=(
            LinearLayer(in_features=3, out_features=6),
            LayerNormLayer(eps=1e-4),
            DropoutLayer(p=dropout),
            LinearLayer(in_features=6, out_features=4),
            LayerNormLayer(elementwise_affine=False),
            DropoutLayer(p=0.0),
            LinearLayer(in_features=4, out_features=1),
        )
    )


def torch_norm_model(dtype: torch.dtype, dropout: float) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Linear(3, 6, dtype=dtype),
        nn.LayerNorm(6, eps=1e-4, dtype=dtype),
        nn.Dropout(dropout),
        nn.Linear(6, 4, dtype=dtype),
        nn.LayerNorm(4, elementwise_affine=False),
        nn.Dropout(0.0),
        nn.Linear(4, 1, dtype=dtype),
    )


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("batch_size", [None, 7])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_dropout_and_normalisation_train_as_in_pytorch(
    lab: Any, dropout: float, batch_size: int | None, precision: Precision
) -> None:
    x, y = regression(20)
    options = {"epochs": 200, "precision": precision, "lr": 0.002, "seeds": 3, "batch_size": batch_size}
    task = lab.make_task(x, y, model=norm_model(dropout), **options)
    result, recorder = lab.run(task)
    dtype = torch.float32 if precision is Precision.FLOAT32 else torch.float64
    module = torch_norm_model(dtype, dropout)
    want, losses = lab.plain_loop(task, module=module)
    # Normalisation divides by small deviations: what vector units of another width round differently grows by that.
    most = 3e-5 if precision is Precision.FLOAT32 else 3e-12
    assert lab.distance(lab.member(result), want) <= most
    assert lab.distance([loss for _, loss, _ in recorder.points(0)], losses) <= most
    # in a prediction nothing is dropped
    predicted = Predictor(norm_model(dropout), lab.member(result)).predict(task.data.features)
    expected = module.eval()(torch.from_numpy(task.data.features)).detach().numpy()
    assert lab.distance(predicted, expected) <= most


def test_held_out_rows_see_no_dropout(lab: Any) -> None:
    x, y = regression(20)
    task = lab.make_task(x, y, model=norm_model(0.5), held_out=(x, y), epochs=3, precision=Precision.FLOAT64)
    result, _ = lab.run(task)
    predicted = Predictor(norm_model(0.5), lab.member(result)).predict(task.data.features)
    np.testing.assert_allclose(result.validation_losses[0], np.mean((predicted[:, 0] - y) ** 2), rtol=1e-12)
