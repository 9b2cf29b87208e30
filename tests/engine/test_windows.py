"""Rows that are large: how windows mix them, and that it does not matter where they are."""

from __future__ import annotations

import dataclasses
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from epochd_server.data.row_files import RowFile
from epochd_server.domain import large_tables
from epochd_server.domain.checkpoints import MemberCheckpoint
from epochd_server.domain.specs import (
    ActivationLayer,
    DropoutLayer,
    LinearLayer,
    Loss,
    LossKind,
    ModuleModel,
    OptimizerKind,
    Precision,
    SequentialModel,
)
from epochd_server.engine import windows
from epochd_server.engine.cohort import train_cohort
from epochd_server.engine.modules import ModuleRegistry
from epochd_server.engine.rows import rows_of
from epochd_server.engine.windows import LargeRows, window_order

FEATURES = 4
ROW_BYTES = (FEATURES + 1) * 4


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members of more than 100 rows of 4 features are large; chunks have 4 rows, windows 64."""
    monkeypatch.setattr(large_tables, "LARGE_BYTES", 100 * ROW_BYTES)
    monkeypatch.setattr(windows, "CHUNK_BYTES", 4 * ROW_BYTES)
    monkeypatch.setattr(windows, "WINDOW_BYTES", 64 * ROW_BYTES)
    monkeypatch.setattr(windows, "WHOLE_ROWS", 16)


def data(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, FEATURES)).astype(np.float32)
    return x, (x @ np.arange(1, FEATURES + 1)).astype(np.float32)


def taken(rows: int, seed: int, epoch: int, row_bytes: int) -> np.ndarray:
    """The rows of an epoch in the order in which they are taken."""
    found = []
    for window, order in window_order(seed, epoch, rows, row_bytes):
        found.append(np.concatenate([np.arange(one.start, one.stop) for one in window])[order])
    return np.concatenate(found)


@given(
    rows=st.integers(1, 3_000),
    seed=st.integers(-(2**63), 2**63 - 1),
    epoch=st.integers(0, 10**6),
    row_bytes=st.sampled_from([1 << 10, 1 << 14, 1 << 17, 1 << 26]),
)
def test_every_row_is_taken_once_and_in_the_same_order_again(
    rows: int, seed: int, epoch: int, row_bytes: int
) -> None:
    order = taken(rows, seed, epoch, row_bytes)
    assert sorted(order) == list(range(rows))
    assert (order == taken(rows, seed, epoch, row_bytes)).all()


def test_a_row_comes_anywhere_in_an_epoch_with_the_same_probability() -> None:
    rows, epochs, row_bytes = 4_096, 400, 1 << 14  # 8 rows a chunk, 2,048 a window
    places = np.empty((epochs, rows), np.int64)
    for epoch in range(epochs):
        places[epoch, taken(rows, 5, epoch, row_bytes)] = np.arange(rows)
    for row in (0, 1, 2_047, 2_048, 4_095):
        counts = np.bincount(places[:, row] // 512, minlength=8)
        assert stats.chisquare(counts).pvalue > 1e-4


def test_batches_of_sorted_rows_are_nearly_as_even_as_those_of_a_full_permutation() -> None:
    """The worst case: a table that is sorted by its target, so that the rows of a chunk are all alike."""
    rows, batch, row_bytes = 200_000, 256, 1 << 12  # 32 rows a chunk, 256 chunks a window
    target = np.arange(rows) / rows
    deviations, whole = [], []
    for epoch in range(4):
        order = taken(rows, 1, epoch, row_bytes)
        count = rows // batch * batch
        deviations.append(target[order[:count]].reshape(-1, batch).mean(1))
        random = np.random.default_rng(epoch).permutation(rows)[:count]
        whole.append(target[random].reshape(-1, batch).mean(1))
    # a window's mean deviates by 1/sqrt(256) of the target's deviation, a batch's by as much: together sqrt(2) of it
    ratio = np.std(np.concatenate(deviations)) / np.std(np.concatenate(whole))
    assert 1.0 < ratio < 1.6
    lags = np.corrcoef(np.concatenate(deviations)[:-1], np.concatenate(deviations)[1:])[0, 1]
    assert abs(lags) < 0.65  # neighbours share a window, and thus its mean


def test_batches_have_the_size_that_was_asked_for_across_windows(small_limits: None, lab: Any) -> None:
    x, y = data(301)
    task = lab.make_task(x, y, batch_size=50, seeds=3)
    large = LargeRows(task, rows_of(task), 0)
    sizes = [len(batch) for batch in large.batches(0, 50)]
    assert sizes == [50] * 6 + [1]
    found = np.concatenate([batch.features for batch in large.batches(2, 50)])
    assert (found == x[taken(301, 3, 2, ROW_BYTES)]).all()


OPTIONS: list[dict[str, Any]] = [
    {"batch_size": 32},
    {"batch_size": 32, "shuffle": False},
    {"batch_size": 32, "accumulation_steps": 3, "optimizer": OptimizerKind.ADAM},
    {},
]


def network(p: float = 0.0) -> SequentialModel:
    first = LinearLayer(in_features=FEATURES, out_features=8)
    last = LinearLayer(in_features=8, out_features=1)
    return SequentialModel(layers=(first, ActivationLayer(function="relu"), DropoutLayer(p=p), last))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("model", [None, network(0.2)])
def test_rows_in_a_file_in_memory_and_in_company_give_the_same_bits(
    small_limits: None, lab: Any, options: dict[str, Any], weighted: bool, model: Any
) -> None:
    x, y = data(300)
    weights = np.random.default_rng(2).random(300).astype(np.float32) if weighted else None
    common = {"epochs": 3, "seeds": 7, "model": model, **options}
    task = lab.make_task(x, y, weights=weights, **common)
    alone, _ = lab.run(task)
    mapped, _ = lab.run(in_files(task))
    others = data(140, 1)
    both = lab.make_task(
        np.concatenate([others[0], x]),
        np.concatenate([others[1], y]),
        sizes=[140, 300],
        weights=None if weights is None else np.concatenate([np.ones(140, np.float32), weights]),
        **common,
    )
    together, _ = lab.run(both)
    for name, array in alone.parameters.items():
        assert (array[0] == mapped.parameters[name][0]).all()
        assert (array[0] == together.parameters[name][1]).all()
    assert alone.final_loss[0] == mapped.final_loss[0] == together.final_loss[1]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_large_member_goes_on_from_its_checkpoints_in_the_same_bits(
    small_limits: None, lab: Any, options: dict[str, Any]
) -> None:
    x, y = data(300)
    task = lab.make_task(x, y, epochs=4, seeds=7, model=network(0.2), **options)
    recorder = lab.Recorder()
    often = dataclasses.replace(task, checkpoint_seconds=0.0)
    whole = train_cohort(often, recorder, clock=lambda: 0.0)
    saved = next(batch for batch in recorder.places if batch.epochs[0] == 2)
    state = {name: array[0] for name, array in saved.state.items()}
    resume = {0: MemberCheckpoint(int(saved.epochs[0]), state)}
    again, _ = lab.run(dataclasses.replace(in_files(task), resume=resume))
    for name, array in whole.parameters.items():
        assert (array == again.parameters[name]).all()


def in_files(task: Any) -> Any:
    """The task with its rows in mapped files."""

    def written(array: np.ndarray | None) -> np.ndarray | None:
        if array is None:
            return None
        with tempfile.TemporaryDirectory() as folder, closing(RowFile(Path(folder))) as file:
            for first in range(0, len(array), 70):
                file.add(array[first : first + 70])
            return file.map()

    rows = task.data
    stored = dataclasses.replace(
        rows,
        features=written(rows.features),
        targets=written(rows.targets),
        weights=written(rows.weights),
    )
    return dataclasses.replace(task, data=stored)


def test_full_batches_are_those_of_pytorch_to_rounding(small_limits: None, lab: Any) -> None:
    x, y = data(300)
    options = {"epochs": 30, "lr": 0.05, "precision": Precision.FLOAT64, "model": network()}
    task = lab.make_task(x, y, **options)
    result, recorder = lab.run(task)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Dropout(0.0), nn.Linear(8, 1)).double()
    with torch.no_grad():
        start, _ = lab.run(dataclasses.replace(task, hyperparameters=lab.hyperparameters(1, lr=0.0)))
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(start.parameters[name][0]))
    want, losses = lab.plain_loop(task, module=module)
    assert lab.distance(lab.member(result), want) <= 1e-12
    assert lab.distance([loss for _, loss, _ in recorder.points(0)], losses) <= 1e-12


@pytest.mark.parametrize("kind", [LossKind.BCE_WITH_LOGITS, LossKind.CROSS_ENTROPY])
@pytest.mark.parametrize("weighted", [False, True])
def test_weights_of_classes_reach_large_rows_batch_by_batch(
    small_limits: None, lab: Any, kind: LossKind, weighted: bool
) -> None:
    x, y = data(300)
    labels = (y > 1).astype(np.int64) if kind is LossKind.CROSS_ENTROPY else (y > 1).astype(np.float32)
    # either way a row is as wide as in the oracle, whose chunks then have as many rows
    weights = (
        np.random.default_rng(2).random(300).astype(np.float32) if weighted else np.ones(300, np.float32)
    )
    model = (
        None
        if kind is LossKind.BCE_WITH_LOGITS
        else SequentialModel(layers=(LinearLayer(in_features=FEATURES, out_features=2),))
    )
    common = {"batch_size": 32, "epochs": 2, "seeds": 7, "model": model}
    balanced = Loss(kind=kind, balanced=True)
    task = lab.make_task(x, labels, loss=balanced, weights=weights, **common)
    assert rows_of(task).class_scales is not None
    by_class, _ = lab.run(task)
    counted = weights.astype(np.float64)
    shares = np.array([counted[labels == one].sum() for one in (0, 1)])
    own = (counted.sum() / (2 * shares))[labels.astype(int)] * counted
    by_row, _ = lab.run(lab.make_task(x, labels, loss=kind, weights=own.astype(np.float32), **common))
    for name, array in by_row.parameters.items():
        assert lab.distance(by_class.parameters[name], array) <= 1e-6


class Halves(nn.Module):
    """Looks at values, so that it is no chain of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.where(x > 0, x, x * 0.5))


def test_a_registered_module_takes_its_batches_from_windows(small_limits: None, lab: Any) -> None:
    registry = ModuleRegistry()
    registry.register(Halves)
    x, y = data(300)
    task = lab.make_task(x, y, model=ModuleModel(name="Halves"), batch_size=32, epochs=2, seeds=7)
    result = train_cohort(task, lab.Recorder(), modules=registry)
    mapped = train_cohort(in_files(task), lab.Recorder(), modules=registry)
    weight = torch.from_numpy(result.parameters["linear.weight"][0].copy())
    assert (weight.numpy() == mapped.parameters["linear.weight"][0]).all()
    module = Halves()
    still = dataclasses.replace(task, hyperparameters=lab.hyperparameters(1, lr=0.0))
    seeded = train_cohort(still, lab.Recorder(), modules=registry)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(seeded.parameters[name][0]))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    for epoch in range(2):
        for chosen in np.split(taken(300, 7, epoch, ROW_BYTES), range(32, 300, 32)):
            optimizer.zero_grad()
            nn.functional.mse_loss(
                module(torch.from_numpy(x[chosen])), torch.from_numpy(y[chosen, None])
            ).backward()
            optimizer.step()
    assert lab.distance(weight.numpy(), module.linear.weight.detach().numpy()) <= 1e-5
