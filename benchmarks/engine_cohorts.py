"""The engine alone, one thread: members per second on each path, against the loop everybody writes in PyTorch.

Run ``python -m benchmarks.engine_cohorts [--members 10000]``. Times are medians; ratios come from one run, the plain
loops measured on few models and scaled. Then: how far each path is from what this core can do at most. Numbers of a
busy machine mean little.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import peak
from epochd_server.domain.specs import (
    ActivationLayer,
    Init,
    LinearLayer,
    LinearModel,
    Loss,
    LossKind,
    Model,
    OptimizerKind,
    Precision,
    SequentialModel,
)
from epochd_server.engine.cohort import (
    CohortData,
    CohortTask,
    Hyperparameters,
    train_cohort,
)
from epochd_server.engine.inference import Predictor
from epochd_server.engine.observers import SilentObserver
from epochd_server.engine.warmup import warm_up

ROWS, FEATURES, EPOCHS = 32, 8, 200


def task(
    members: int,
    rows: int,
    features: int,
    model: Model,
    loss: LossKind,
    *,
    classes: int = 2,
    optimizer: OptimizerKind = OptimizerKind.SGD,
    batch_size: int | None = None,
    epochs: int = EPOCHS,
    log_every: int = EPOCHS,
    seeds: Any = 0,
) -> CohortTask:
    """A cohort of random problems."""
    rng = np.random.default_rng(0)
    count = members * rows
    x = rng.standard_normal((count, features), np.float32)
    y: Any = (x.sum(1) + rng.standard_normal(count, np.float32)).astype(np.float32)
    if loss is LossKind.BCE_WITH_LOGITS:
        y = (y > 0).astype(np.float32)
    if loss is LossKind.CROSS_ENTROPY:
        y = np.clip(y + classes / 2, 0, classes - 1).astype(np.int64)
    lr = 0.01 if optimizer is OptimizerKind.SGD else 1e-3
    numbers = {"lr": lr, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    columns = {
        name: np.full(members, numbers.get(name, 0.0))
        for name in ("lr", "weight_decay", "momentum", "dampening", "beta1", "beta2", "eps")
    }
    return CohortTask(
        model=model,
        loss=Loss(kind=loss),
        optimizer_kind=optimizer,
        batch_size=batch_size,
        shuffle=True,
        accumulation_steps=1,
        init=Init.DEFAULT,
        precision=Precision.FLOAT32,
        data=CohortData(features=x, targets=y, offsets=np.arange(members + 1) * rows),
        epochs=np.full(members, epochs),
        seeds=np.broadcast_to(np.asarray(seeds), (members,)).copy(),
        hyperparameters=Hyperparameters(**columns),
        log_every=np.full(members, log_every),
        log_parameters=np.zeros(members, np.bool_),
    )


def module_of(model: Model) -> nn.Module:
    """The same network as a PyTorch user writes it."""
    if isinstance(model, LinearModel):
        return nn.Linear(model.in_features or 1, model.out_features or 1)
    assert isinstance(model, SequentialModel)
    layers: list[nn.Module] = []
    for layer in model.layers:
        linear = isinstance(layer, LinearLayer)
        layers.append(nn.Linear(layer.in_features or 1, layer.out_features or 1) if linear else nn.ReLU())
    return nn.Sequential(*layers)


def plain(given: CohortTask, member: int) -> None:
    """The loop everybody writes, for one member."""
    begin, end = given.data.offsets[member : member + 2]
    x = torch.from_numpy(given.data.features[begin:end])
    y = torch.from_numpy(given.data.targets[begin:end])
    losses: dict[LossKind, Callable[..., Any]] = {
        LossKind.MSE: F.mse_loss,
        LossKind.BCE_WITH_LOGITS: F.binary_cross_entropy_with_logits,
        LossKind.CROSS_ENTROPY: F.cross_entropy,
    }
    criterion = losses[given.loss.kind]
    y = y if y.dtype == torch.int64 else y[:, None]
    module = module_of(given.model)
    kind = torch.optim.SGD if given.optimizer_kind is OptimizerKind.SGD else torch.optim.Adam
    optimizer = kind(module.parameters(), float(given.hyperparameters.lr[0]))
    size = given.batch_size or len(x)
    for _ in range(int(given.epochs[member])):
        order = torch.randperm(len(x)) if size < len(x) else None
        for first in range(0, len(x), size):
            rows = slice(None) if order is None else order[first : first + size]
            loss = criterion(module(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """The median time of ``work``, after one call that does not count."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def mlp(*widths: int) -> SequentialModel:
    """Linear layers with relu between them."""
    layers: list[Any] = []
    for i in range(len(widths) - 1):
        layers += [ActivationLayer(function="relu")] if i else []
        layers.append(LinearLayer(in_features=widths[i], out_features=widths[i + 1]))
    return SequentialModel(layers=tuple(layers))


def linear(outputs: int = 1, features: int = FEATURES) -> LinearModel:
    """One linear layer."""
    return LinearModel(in_features=features, out_features=outputs)


def cases(members: int) -> list[tuple[str, CohortTask]]:
    """The four kinds of members that the benchmarks of the server train too."""
    adam = {"optimizer": OptimizerKind.ADAM, "batch_size": 16}
    return [
        ("linear, full-batch SGD", task(members, ROWS, FEATURES, linear(), LossKind.MSE)),
        ("logistic", task(members, ROWS, FEATURES, linear(), LossKind.BCE_WITH_LOGITS)),
        ("softmax(3)", task(members, ROWS, FEATURES, linear(3), LossKind.CROSS_ENTROPY, classes=3)),
        (
            "MLP 8-16-1, Adam, batch 16",
            task(members // 4, ROWS, FEATURES, mlp(8, 16, 1), LossKind.MSE, **adam),
        ),
    ]


def fleets(members: int) -> None:
    """Fleets of small models."""
    few, adam = members // 4, {"optimizer": OptimizerKind.ADAM, "batch_size": 16}
    own_seeds = task(few, ROWS, FEATURES, mlp(8, 16, 1), LossKind.MSE, seeds=np.arange(few), **adam)
    more = [
        ("MLP as above, a seed each", own_seeds),
        ("lone linear", task(1, ROWS, FEATURES, linear(), LossKind.MSE)),
        ("lone MLP", task(1, ROWS, FEATURES, mlp(8, 16, 1), LossKind.MSE, **adam)),
    ]
    for name, given in [*cases(members), *more]:
        ours = seconds(lambda given=given: train_cohort(given, SilentObserver()), 3) / given.members
        row(f"{given.members} x {name}", ours, seconds(lambda given=given: plain(given, 0), 3))


def limits(members: int) -> None:
    """How far each kind is from the arithmetic that this core can do."""
    print(
        f"\n{'one thread, GFLOP/s':46s} {'achieved':>10s} {'matmul':>10s} {'FMA loop':>10s} {'of the loop':>12s}"
    )
    peaks = {dtype: peak.measure(dtype) for dtype in (torch.float32, torch.float64)}
    for name, given in cases(members):
        through_gram = name.startswith("linear")
        best = peaks[torch.float64 if through_gram else torch.float32]
        taken = seconds(lambda given=given: train_cohort(given, SilentObserver()), 5)
        rate = peak.operations(given, through_gram=through_gram) * given.members / taken / 1e9
        ours = f"{given.members} x {name:37s} {rate:10.2f}"
        print(f"{ours} {best.matmul:10.1f} {best.chain:10.1f} {rate / best.chain:12.1%}", flush=True)


def tutorial() -> None:
    """The lone tutorial run: 2,000 epochs over 3 rows, logged every 100."""
    given = task(1, 3, 1, linear(features=1), LossKind.MSE, epochs=2000, log_every=100)
    row(
        "tutorial, 2,000 epochs",
        seconds(lambda: train_cohort(given, SilentObserver())),
        seconds(lambda: plain(given, 0), 3),
    )


def big() -> None:
    """One big run, against the best loop one can write by hand."""
    given = task(
        1, 100_000, 50, mlp(50, 64, 1), LossKind.MSE, optimizer=OptimizerKind.ADAM, batch_size=256, epochs=2
    )
    x, y = torch.from_numpy(given.data.features), torch.from_numpy(given.data.targets)[:, None]

    def best() -> None:
        module = module_of(given.model)
        optimizer = torch.optim.Adam(module.parameters(), 1e-3, fused=True)
        for _ in range(2):
            order = torch.randperm(len(x))
            shuffled_x, shuffled_y = x[order], y[order]
            for first in range(0, len(x), 256):
                optimizer.zero_grad()
                rows = slice(first, first + 256)
                F.mse_loss(module(shuffled_x[rows]), shuffled_y[rows]).backward()
                optimizer.step()

    ours = seconds(lambda: train_cohort(given, SilentObserver()), 5) / 2
    row("100,000 x 50, MLP 50-64-1, an epoch", ours, seconds(best, 5) / 2)


def predictions() -> None:
    """Raw outputs of one row, and of rows of many members."""
    rng = np.random.default_rng(0)
    slab = rng.standard_normal((10_000, FEATURES + 1), np.float32)
    parameters = {
        "linear.weight": slab[:, :FEATURES].reshape(-1, 1, FEATURES),
        "linear.bias": slab[:, FEATURES:],
    }
    fleet = Predictor(linear(), parameters)
    single = Predictor(linear(), {name: value[0] for name, value in parameters.items()})
    rows, members = rng.standard_normal((1000, FEATURES), np.float32), rng.integers(0, 10_000, 1000)
    module = nn.Linear(FEATURES, 1)
    with torch.no_grad():
        theirs = seconds(lambda: module(torch.from_numpy(rows[:1])).numpy(), 200)
        row("predict 1 row", seconds(lambda: single.predict(rows[:1]), 200), theirs)
        row(
            "predict 1,000 rows of 10,000 members",
            seconds(lambda: fleet.predict(rows, members), 50),
            1000 * theirs,
        )
        row("predict 1,000 rows of one model", seconds(lambda: single.predict(rows), 50), 1000 * theirs)


def row(name: str, ours: float, theirs: float) -> None:
    """Prints one line of the table."""
    print(f"{name:46s} {ours * 1e6:14,.1f} us {theirs * 1e6:14,.1f} us {theirs / ours:10,.1f} x", flush=True)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=10_000)
    members = parser.parse_args().members
    torch.set_num_threads(1)
    began = time.perf_counter()
    for precision in Precision:
        warm_up(precision)
    print(f"kernels ready after {time.perf_counter() - began:.2f} s\n")
    print(f"{'one thread, time a model (or call)':46s} {'epochd':>17s} {'plain PyTorch':>17s} {'ratio':>12s}")
    fleets(members)
    limits(members)
    print()
    tutorial()
    big()
    predictions()


if __name__ == "__main__":
    main()
