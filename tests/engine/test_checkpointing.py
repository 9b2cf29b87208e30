"""A member that goes on from where it was saved ends in the bits of one that was never interrupted."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.engine.test_determinism import build, cohorts, story

from epochd_server.domain import large_tables
from epochd_server.domain.checkpoints import MemberCheckpoint
from epochd_server.domain.schedules import LinearLR, ReduceLROnPlateau
from epochd_server.domain.specs import DropoutLayer, LossKind, ModuleModel, OptimizerKind
from epochd_server.domain.validation import EarlyStopping, Metric
from epochd_server.engine import cohort, windows
from epochd_server.engine.cohort import CohortTask, MemberState, train_cohort
from epochd_server.engine.modules import ModuleRegistry
from epochd_server.engine.programs import blocks, epoch_progress

SETTINGS = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def saved_often(lab: Any, task: CohortTask, **options: Any) -> tuple[Any, Any]:
    """What is trained and told where members are saved after every chunk of epochs; there, saving takes no time."""
    recorder = lab.Recorder()
    often = dataclasses.replace(task, checkpoint_seconds=0.0)
    return train_cohort(often, recorder, clock=lambda: 0.0, **options), recorder


def places(recorder: Any) -> list[tuple[int, MemberCheckpoint]]:
    """Every member's every checkpoint."""
    return [
        (
            int(member),
            MemberCheckpoint(
                int(batch.epochs[place]), {name: array[place] for name, array in batch.state.items()}
            ),
        )
        for batch in recorder.places
        for place, member in enumerate(batch.members)
    ]


def after(told: Any, epoch: int) -> Any:
    """What is told of a member from an epoch on."""
    points, *end = told
    return [point for point in points if point[0] >= epoch], *end


def resumed(task: CohortTask, resume: Mapping[int, MemberCheckpoint]) -> CohortTask:
    return dataclasses.replace(task, resume=dict(resume))


@given(spec=cohorts(), program=st.sampled_from(["lanes", "solo"]), data=st.data())
@SETTINGS
def test_members_go_on_from_any_of_their_checkpoints(lab: Any, spec: Any, program: str, data: Any) -> None:
    task = build(lab, spec)
    with pytest.MonkeyPatch.context() as patch:
        if program == "solo":
            patch.setattr(cohort, "SMALL_WORK", 0)
            patch.setattr(epoch_progress, "LOOK_SECONDS", data.draw(st.sampled_from([0.0, 1.0])))
        patch.setattr(blocks, "CHUNK_SECONDS", 0.0)  # a chunk, and so a checkpoint, for every epoch
        undisturbed = saved_often(lab, task)
        found = places(undisturbed[1])
        assert found or task.epochs.max() == 1 or (undisturbed[0].states == MemberState.DIVERGED).any()
        resume = dict(data.draw(st.lists(st.sampled_from(found)))) if found else {}
        again = lab.run(resumed(task, resume))
    for k in range(task.members):
        first = resume[k].epoch if k in resume else 0
        assert story(*again, k) == after(story(*undisturbed, k), first)


@pytest.mark.parametrize("program", ["lanes", "solo"])
@pytest.mark.parametrize("metric", [None, Metric.ACCURACY])
def test_early_stopping_and_rates_that_follow_the_loss_go_on(
    lab: Any, monkeypatch: pytest.MonkeyPatch, program: str, metric: Metric | None
) -> None:
    rng = np.random.default_rng(3)
    task = lab.make_task(
        rng.normal(size=(60, 3)),
        rng.integers(0, 2, 60),
        sizes=[25, 35],
        held_out=(rng.normal(size=(20, 3)), rng.integers(0, 2, 20), [8, 12]),
        loss=LossKind.BCE_WITH_LOGITS,
        model=lab.mlp(3, 4, 1),
        optimizer=OptimizerKind.ADAM,
        batch_size=8,
        epochs=60,
        lr=0.05,
        seeds=[1, 2],
        log_every=7,
        log_parameters=True,
        metrics=(Metric.LOG_LOSS,),
        early_stopping=EarlyStopping(patience=9, metric=metric, restore_best=True),
        schedule=ReduceLROnPlateau(patience=1, factor=0.5),
        warmup=LinearLR(total_iters=3),
    )
    if program == "solo":
        monkeypatch.setattr(cohort, "SMALL_WORK", 0)
    undisturbed, told = saved_often(lab, task)
    assert (undisturbed.epochs_done < 60).all()
    for k, checkpoint in places(told)[:: 7 if program == "lanes" else 3]:
        again = lab.run(resumed(task, {k: checkpoint}))
        assert story(*again, k) == after(story(undisturbed, told, k), checkpoint.epoch)
        assert again[0].best_epochs.tolist() == undisturbed.best_epochs.tolist()
        assert again[0].metrics.tobytes() == undisturbed.metrics.tobytes()


def test_dropout_goes_on_with_the_epochs_own_draws(lab: Any) -> None:
    rng = np.random.default_rng(0)
    network = lab.mlp(3, 8, 1)
    model = dataclasses.replace(network, layers=(*network.layers[:2], DropoutLayer(p=0.5), network.layers[2]))
    task = lab.make_task(rng.normal(size=(40, 3)), rng.normal(size=40), model=model, epochs=9, batch_size=8)
    undisturbed, told = saved_often(lab, task)
    assert len(places(told)) == 8
    for k, checkpoint in places(told):
        again, _ = lab.run(resumed(task, {k: checkpoint}))
        assert again.parameters["0.weight"].tobytes() == undisturbed.parameters["0.weight"].tobytes()


LARGE_OPTIONS: list[dict[str, Any]] = [
    {"batch_size": 32},
    {"batch_size": 32, "shuffle": False},
    {"batch_size": 50, "accumulation_steps": 3},
    {},
]


@pytest.mark.parametrize("options", LARGE_OPTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_large_rows_go_on_within_an_epoch(
    lab: Any, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], weighted: bool
) -> None:
    """Epochs of some windows, with dropout, saved after every batch."""
    row_bytes = (3 + 1 + weighted) * 4
    monkeypatch.setattr(large_tables, "LARGE_BYTES", 100 * row_bytes)
    monkeypatch.setattr(windows, "CHUNK_BYTES", 4 * row_bytes)
    monkeypatch.setattr(windows, "WINDOW_BYTES", 64 * row_bytes)
    monkeypatch.setattr(windows, "WHOLE_ROWS", 16)
    monkeypatch.setattr(epoch_progress, "LOOK_SECONDS", 0.0)
    rng = np.random.default_rng(0)
    network = lab.mlp(3, 8, 1)
    task = lab.make_task(
        rng.normal(size=(300, 3)),
        rng.normal(size=300),
        weights=rng.integers(0, 3, 300) if weighted else None,
        model=dataclasses.replace(
            network, layers=(*network.layers[:2], DropoutLayer(p=0.5), network.layers[2])
        ),
        optimizer=OptimizerKind.ADAM,
        epochs=2,
        log_parameters=True,
        **options,
    )
    undisturbed = saved_often(lab, task)
    found = places(undisturbed[1])
    batches = -(-300 // options.get("batch_size", 16))
    assert [int(place.state["batches"]) for _, place in found[: batches + 1]] == [*range(1, batches + 1), 0]
    for k, checkpoint in found[::3]:
        again = lab.run(resumed(task, {k: checkpoint}))
        assert story(*again, k) == after(story(*undisturbed, k), checkpoint.epoch)


def test_a_long_epoch_can_be_stopped_and_gone_on_with(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told of who stops counts whole epochs; what is saved has every batch."""
    monkeypatch.setattr(cohort, "SMALL_WORK", 0)
    rng = np.random.default_rng(0)
    task = lab.make_task(rng.normal(size=(640, 3)), rng.normal(size=640), epochs=3, batch_size=8)
    asked = itertools.count()
    told = lab.Recorder(stop_when=lambda recorder: (0,) if recorder.batches and next(asked) > 1 else ())
    result = train_cohort(task, told, clock=itertools.count(0.0, 0.03).__next__)
    ((member, checkpoint),) = places(told)
    assert result.states.tolist() == [MemberState.STOPPED]
    assert result.epochs_done.tolist() == [checkpoint.epoch] == [1]
    assert 0 < checkpoint.state["batches"] < 80
    again, _ = lab.run(resumed(task, {member: checkpoint}))
    expected, _ = lab.run(task)
    assert again.parameters["linear.weight"].tobytes() == expected.parameters["linear.weight"].tobytes()


MODULES = """
import torch
from torch import nn

class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))

    def forward(self, x):
        return self.layers(x).clamp(-9, 9)

class Counting(Plain):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3, momentum=None)  # averages by the number of batches, an integer buffer
        self.drop = nn.Dropout(0.3)

    def forward(self, x):
        return self.layers(self.drop(self.norm(x)))
"""


@pytest.fixture
def registry(tmp_path: Path) -> ModuleRegistry:
    """Of a module that is called for many members at once, and of one that has buffers and draws."""
    source = tmp_path / "modules.py"
    source.write_text(MODULES)
    return ModuleRegistry.load([str(source)])


@pytest.mark.parametrize("name", ["Plain", "Counting"])
@pytest.mark.parametrize("options", [{}, {"accumulation_steps": 2}])
def test_registered_modules_go_on_from_any_batch(
    lab: Any,
    monkeypatch: pytest.MonkeyPatch,
    registry: ModuleRegistry,
    name: str,
    options: dict[str, Any],
) -> None:
    """With their buffers and draws; weights of 0 make batches that do not count."""
    monkeypatch.setattr(epoch_progress, "LOOK_SECONDS", 0.0)
    rng = np.random.default_rng(0)
    task = lab.make_task(
        rng.normal(size=(60, 3)),
        rng.normal(size=60),
        sizes=[20, 20, 20],
        weights=rng.integers(0, 2, 60),
        model=ModuleModel(name=name, arguments={}),
        optimizer=OptimizerKind.ADAM,
        epochs=[5, 8, 8],
        seeds=[1, 2, 3],
        batch_size=4,
        log_parameters=True,
        **options,
    )
    undisturbed = saved_often(lab, task, modules=registry)
    found = places(undisturbed[1])
    assert {int(place.state["batches"]) for _, place in found} == set(range(6))
    for k, checkpoint in found[::11]:
        told = lab.Recorder()
        again = train_cohort(resumed(task, {k: checkpoint}), told, modules=registry)
        assert story(again, told, k) == after(story(*undisturbed, k), checkpoint.epoch)
        others = [member for member in range(3) if member != k]
        assert all(story(again, told, other) == story(*undisturbed, other) for other in others)


@pytest.mark.parametrize("name", ["Plain", "Counting"])
def test_modules_stop_within_an_epoch_and_their_neighbours_do_not(
    lab: Any, monkeypatch: pytest.MonkeyPatch, registry: ModuleRegistry, name: str
) -> None:
    monkeypatch.setattr(epoch_progress, "LOOK_SECONDS", 0.0)
    rng = np.random.default_rng(0)
    task = lab.make_task(
        rng.normal(size=(80, 3)),
        rng.normal(size=80),
        sizes=[40, 40],
        model=ModuleModel(name=name, arguments={}),
        epochs=4,
        seeds=[1, 2],
        batch_size=4,
    )
    expected = train_cohort(task, lab.Recorder(), modules=registry)
    asked = itertools.count()
    told = lab.Recorder(stop_when=lambda recorder: (0,) if recorder.batches and next(asked) > 1 else ())
    result = train_cohort(task, told, modules=registry, clock=itertools.count(0.0, 0.013).__next__)
    ((member, checkpoint),) = places(told)
    assert member == 0
    assert result.states.tolist() == [MemberState.STOPPED, MemberState.FINISHED]
    assert 0 < checkpoint.state["batches"] < 10
    assert result.epochs_done.tolist() == [checkpoint.epoch, 4]
    again = train_cohort(resumed(task, {0: checkpoint}), lab.Recorder(), modules=registry)
    for column, values in expected.parameters.items():
        assert again.parameters[column].tobytes() == values.tobytes()
        assert result.parameters[column][1].tobytes() == values[1].tobytes()


def test_who_stops_is_saved_first_and_ends_as_if_it_had_not(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "CHUNK_SECONDS", 0.0)
    rng = np.random.default_rng(0)
    task = lab.make_task(rng.normal(size=(12, 3)), rng.normal(size=12), sizes=[6, 6], epochs=50)
    told = lab.Recorder(stop_when=lambda recorder: (0,) if recorder.batches else ())
    result = train_cohort(task, told, clock=itertools.count(0.0, 0.03).__next__)
    ((member, checkpoint),) = places(told)
    assert member == 0
    assert result.states.tolist() == [MemberState.STOPPED, MemberState.FINISHED]
    assert 0 < checkpoint.epoch == result.epochs_done[0] < 50
    again, _ = lab.run(resumed(lab.subset(task, [0]), {0: checkpoint}))
    expected, _ = lab.run(lab.subset(task, [0]))
    assert again.parameters["linear.weight"].tobytes() == expected.parameters["linear.weight"].tobytes()


def test_checkpoints_are_as_rare_as_asked_and_rarer_where_they_take_long(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "CHUNK_SECONDS", 0.0)
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.001
        return now

    class Slow(lab.Recorder):  # type: ignore[name-defined,misc]
        def progress(self, batch: Any) -> None:
            nonlocal now
            now += 1.0
            super().progress(batch)

    rng = np.random.default_rng(0)
    task = lab.make_task(rng.normal(size=(12, 3)), rng.normal(size=12), epochs=400)
    task = dataclasses.replace(task, checkpoint_seconds=0.1)
    usual, slow = lab.Recorder(), Slow()
    train_cohort(task, usual, clock=clock)
    assert 2 <= len(usual.places) <= now / 0.1
    train_cohort(task, slow, clock=clock)
    assert len(slow.places) == 1
