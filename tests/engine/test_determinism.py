"""The determinism contract: a member's bits do not depend on who shares its cohort, nor on how it is cut up."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epochd_server.domain.schedules import CosineAnnealingLR, LinearLR, ReduceLROnPlateau, StepLR
from epochd_server.domain.specs import (
    CLASSIFICATION_LOSSES,
    Clipping,
    Init,
    LinearModel,
    Loss,
    LossKind,
    OptimizerKind,
    Precision,
)
from epochd_server.engine import cohort
from epochd_server.engine.cohort import MemberState
from epochd_server.engine.programs import blocks, lanes

SETTINGS = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FEATURES = 3
SCHEDULES = [
    None,
    StepLR(step_size=2, gamma=0.5),
    CosineAnnealingLR(),
    ReduceLROnPlateau(patience=0, factor=0.5, threshold=0.1),
]


@st.composite
def cohorts(draw: Any) -> dict[str, Any]:
    """Everything about a small cohort but the arrays, which follow from ``data_seed``."""
    kind = draw(st.sampled_from(LossKind))
    return {
        "kind": kind,
        "data_seed": draw(st.integers(0, 2**32)),
        "sizes": draw(st.lists(st.integers(1, 40), min_size=2, max_size=9)),
        "hidden": draw(st.sampled_from([None, "relu", "tanh", "gelu"])),
        "optimizer": draw(st.sampled_from(OptimizerKind)),
        "batch_size": draw(st.sampled_from([None, None, 4, 16])),
        "accumulation_steps": draw(st.sampled_from([1, 1, 3])),
        "shuffle": draw(st.booleans()),
        "precision": draw(st.sampled_from(Precision)),
        "init": draw(st.sampled_from(Init)),
        "weighted": draw(st.booleans()),
        "momentum": draw(st.sampled_from([0.0, 0.9])),
        "weight_decay": draw(st.sampled_from([0.0, 0.1])),
        "schedule": draw(st.sampled_from(SCHEDULES)),
        "warmup": draw(st.sampled_from([None, LinearLR(total_iters=3)])),
        "clipping": draw(st.sampled_from([None, None, Clipping(max_norm=0.5), Clipping(clip_value=0.1)])),
        "l1": draw(st.sampled_from([0.0, 0.0, 0.05])),
        "l2": draw(st.sampled_from([0.0, 0.1])),
    }


def build(lab: Any, cohort_spec: dict[str, Any]) -> Any:
    options = dict(cohort_spec)
    kind, hidden = options.pop("kind"), options.pop("hidden")
    rng = np.random.default_rng(options.pop("data_seed"))
    sizes = options["sizes"]
    count, members = sum(sizes), len(sizes)
    outputs = {LossKind.CROSS_ENTROPY: 3, LossKind.BCE_WITH_LOGITS: 1, LossKind.GAUSSIAN_NLL: 4}.get(kind, 2)
    targets = {
        LossKind.CROSS_ENTROPY: rng.integers(0, 3, count),
        LossKind.BCE_WITH_LOGITS: rng.integers(0, 2, count),
        LossKind.POISSON_NLL: rng.integers(0, 9, (count, 2)),
    }.get(kind, rng.normal(size=(count, 2)))
    loss = Loss(kind=kind)
    if kind in CLASSIFICATION_LOSSES:
        loss = Loss(kind=kind, label_smoothing=0.1, balanced=True)
    model = LinearModel(in_features=FEATURES, out_features=outputs)
    if hidden:
        model = lab.mlp(FEATURES, 4, outputs, activation=hidden)
    weights = rng.integers(0, 3, count) + rng.random(count) if options.pop("weighted") else None
    return lab.make_task(
        rng.normal(size=(count, FEATURES)),
        targets,
        model=model,
        loss=loss,
        weights=weights,
        epochs=rng.integers(1, 12, members),
        seeds=rng.integers(0, 5, members),
        log_every=rng.integers(1, 4, members),
        log_parameters=True,
        lr=rng.uniform(0.001, 0.1, members),
        **options,
    )


def story(result: Any, recorder: Any, index: int) -> Any:
    """Everything a member's owner gets to see, as bytes where it is numbers."""
    points = [
        (epoch, np.float64(loss).tobytes(), {name: value.tobytes() for name, value in parameters.items()})
        for epoch, loss, parameters in recorder.points(index)
    ]
    final = {name: value[index].tobytes() for name, value in result.parameters.items()}
    loss = np.float64(result.final_loss[index]).tobytes()
    return points, final, loss, int(result.states[index]), int(result.epochs_done[index])


@given(spec=cohorts(), data=st.data())
@SETTINGS
def test_a_member_has_the_same_bits_alone_and_in_any_company(lab: Any, spec: Any, data: Any) -> None:
    task = build(lab, spec)
    together = lab.run(task)
    for k in range(task.members):
        assert story(*lab.run(lab.subset(task, [k])), 0) == story(*together, k)
    order = data.draw(st.permutations(range(task.members)))[: data.draw(st.integers(1, task.members))]
    some = lab.run(lab.subset(task, order))
    for place, k in enumerate(order):
        assert story(*some, place) == story(*together, k)


@given(spec=cohorts(), program=st.sampled_from(["lanes", "solo"]))
@SETTINGS
def test_bits_do_not_depend_on_blocks_chunks_or_padding(lab: Any, spec: Any, program: str) -> None:
    task = build(lab, spec)
    with pytest.MonkeyPatch.context() as patch:
        if program == "solo":
            patch.setattr(cohort, "SMALL_WORK", 0)
        expected = lab.run(task)
        patch.setattr(blocks, "MOST_LANES", 3)
        patch.setattr(blocks, "CHUNK_SECONDS", 0.0)  # a chunk for every epoch
        cut_up = lab.run(task)
    for k in range(task.members):
        assert story(*cut_up, k) == story(*expected, k)


@given(spec=cohorts(), data=st.data())
@SETTINGS
def test_a_diverging_neighbour_is_not_noticed(lab: Any, spec: Any, data: Any) -> None:
    task = build(lab, spec)
    expected = lab.run(task)
    victim = data.draw(st.integers(0, task.members - 1))
    features = task.data.features.copy()
    features[task.data.offsets[victim]] = data.draw(st.sampled_from([np.nan, np.inf, 1e30]))
    result, recorder = lab.run(
        dataclasses.replace(task, data=dataclasses.replace(task.data, features=features))
    )
    for k in set(range(task.members)) - {victim}:
        assert story(result, recorder, k) == story(*expected, k)


@given(spec=cohorts(), data=st.data())
@SETTINGS
def test_a_stopped_neighbour_is_not_noticed(lab: Any, spec: Any, data: Any) -> None:
    task = build(lab, spec)
    expected = lab.run(task)
    victim = data.draw(st.integers(0, task.members - 1))
    after = data.draw(st.integers(0, 5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "CHUNK_SECONDS", 0.0)
        patch.setattr("epochd_server.engine.reporting.POLL_INTERVAL", 0.0)
        patch.setattr("epochd_server.engine.reporting.LOG_INTERVAL", 0.0)
        calls = iter(range(10**6))
        result, recorder = lab.run(task, stop_when=lambda _: {victim} if next(calls) >= after else ())
    for k in set(range(task.members)) - {victim}:
        assert story(result, recorder, k) == story(*expected, k)
    stopped = result.states[victim] == MemberState.STOPPED
    assert result.epochs_done[victim] == task.epochs[victim] or stopped


def test_members_that_leave_free_their_lanes(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing ranks halfway changes no bits."""
    rng = np.random.default_rng(1)
    monkeypatch.setattr(blocks, "CHUNK_SECONDS", 0.0)
    task = lab.make_task(
        rng.normal(size=(60, 3)), rng.normal(size=60), sizes=[10] * 6, epochs=[1, 2, 3, 4, 30, 31],
        batch_size=4, log_parameters=True, seeds=np.arange(6), optimizer=OptimizerKind.ADAM,
    )  # fmt: skip
    kept: list[int] = []
    keep = lanes._LaneBlock._keep
    monkeypatch.setattr(
        lanes._LaneBlock, "_keep", lambda self, alive: (kept.append(len(alive)), keep(self, alive))[1]
    )
    together = lab.run(task)
    assert kept
    for k in range(6):
        assert story(*together, k) == story(*lab.run(lab.subset(task, [k])), 0)


def test_a_sweep_gives_each_member_what_it_has_alone(lab: Any) -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=40)
    rates = np.array([0.001, 0.01, 0.1])
    sweep = lab.run(lab.make_task(x, y, shared_members=3, lr=rates, log_parameters=True))
    for k, rate in enumerate(rates):
        assert story(*sweep, k) == story(*lab.run(lab.make_task(x, y, lr=rate, log_parameters=True)), 0)


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("kind", LossKind)
def test_wide_vectors_give_what_single_lanes_give(lab: Any, kind: LossKind, precision: Precision) -> None:
    """A hundred members fill whole vector registers; the first, the last and some between have the same bits alone."""
    rng = np.random.default_rng(3)
    sizes = rng.integers(2, 9, 100)
    spec = {
        "kind": kind,
        "data_seed": 1,
        "sizes": list(sizes),
        "hidden": "tanh",
        "optimizer": OptimizerKind.ADAM,
        "batch_size": 4,
        "precision": precision,
        "weighted": True,
    }
    task = build(lab, spec)
    together = lab.run(task)
    for k in (0, 37, 63, 64, 99):
        assert story(*lab.run(lab.subset(task, [k])), 0) == story(*together, k)


def test_rows_that_only_fill_a_lane_cannot_overflow_its_loss(lab: Any) -> None:
    """Beside a longer neighbour a short member is padded with rows of zeros, on which its residual may be huge."""
    x = np.array([[1.0], [1.0], [1.0], [1.0], [1.0]])
    y = np.array([3e19, 3e19, 1.0, 1.0, 1.0])
    start = {"linear.weight": np.array([[[1e19]], [[0.0]]]), "linear.bias": np.array([[2e19], [0.0]])}
    task = lab.make_task(x, y, sizes=[2, 3], epochs=3, lr=1e-3, initial=start)
    result, _ = lab.run(task)
    assert list(result.states) == [MemberState.FINISHED, MemberState.FINISHED]
