"""What an observer of a cohort gets to see, and when."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epochd_server.domain.specs import Init, LossKind, OptimizerKind, Precision
from epochd_server.engine import cohort
from epochd_server.engine.cohort import MemberState
from epochd_server.engine.initialisation import seeded_parameters

PROGRAMS = {"lanes": 6, "gram": 40, "solo": 6}


@pytest.fixture(params=PROGRAMS)
def rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Row counts that lead to each program."""
    if request.param == "solo":
        monkeypatch.setattr(cohort, "SMALL_WORK", 0)
    return PROGRAMS[request.param]


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Polls and tells without delay, one epoch a chunk."""
    monkeypatch.setattr("epochd_server.engine.reporting.POLL_INTERVAL", 0.0)
    monkeypatch.setattr("epochd_server.engine.reporting.LOG_INTERVAL", 0.0)
    monkeypatch.setattr("epochd_server.engine.programs.blocks.CHUNK_SECONDS", 0.0)


def data(count: int, members: int = 1) -> tuple[Any, Any]:
    rng = np.random.default_rng(count)
    return rng.normal(size=(count * members, 2)), rng.normal(size=count * members)


def test_epochs_that_every_divides_are_logged(lab: Any, rows: int) -> None:
    task = lab.make_task(
        *data(rows, 4), sizes=[rows] * 4, epochs=[1, 10, 11, 25], log_every=[1, 3, 5, 100], lr=[1e-3, 2e-3, 3e-3, 4e-3],
        log_parameters=[False, True, False, True],
    )  # fmt: skip
    result, recorder = lab.run(task)
    logged = [[epoch for epoch, _, _ in recorder.points(k)] for k in range(4)]
    assert logged == [[0], [0, 3, 6, 9], [0, 5, 10], [0]]
    for k in range(4):
        points = recorder.points(k)
        assert [parameters is not None for _, _, parameters in points] == [k in (1, 3)] * len(points)
    for k in (0, 1, 2):  # their last epoch is among the logged ones
        assert result.final_loss[k] == recorder.points(k)[-1][1]
    last = recorder.points(1)[-1][2]
    assert all((last[name] == value[1]).all() for name, value in result.parameters.items())
    for batch in recorder.batches:
        assert (batch.lrs == task.hyperparameters.lr[batch.members]).all()
        assert (batch.rows_per_second > 0).all()


def test_every_member_ends_exactly_once_after_its_logs(lab: Any, rows: int) -> None:
    order: list[tuple[str, int]] = []

    class Listening(lab.Recorder):  # type: ignore[misc,name-defined]
        def logs(self, batch: Any) -> None:
            order.extend(("log", int(k)) for k in batch.members)

        def ended(self, batch: Any) -> None:
            super().ended(batch)
            order.extend(("end", int(k)) for k in batch.members)

    members = 150
    task = lab.make_task(*data(rows, members), sizes=[rows] * members, epochs=np.arange(members) % 5 + 1)
    observer = Listening()
    result = cohort.train_cohort(task, observer)
    ends = [k for kind, k in order if kind == "end"]
    assert sorted(ends) == list(range(members))
    for k in range(members):
        assert ("log", k) not in order[order.index(("end", k)) :]
    for batch in observer.ends:
        for name, value in batch.parameters.items():
            assert (value == result.parameters[name][batch.members]).all()
        assert (batch.epochs_done == task.epochs[batch.members]).all()
    assert (result.states == MemberState.FINISHED).all()
    assert result.messages == [None] * members


def test_a_stopped_member_keeps_what_it_had(lab: Any, rows: int, eager: None) -> None:
    task = lab.make_task(*data(rows, 2), sizes=[rows] * 2, epochs=500, log_parameters=True)
    result, recorder = lab.run(task, stop_when=lambda r: {1, 77} if len(r.points(1)) >= 5 else ())
    assert list(result.states) == [MemberState.FINISHED, MemberState.STOPPED]
    assert result.epochs_done[1] == 5
    epoch, loss, parameters = recorder.points(1)[-1]
    assert (epoch, loss) == (4, result.final_loss[1])
    assert all((parameters[name] == value[1]).all() for name, value in result.parameters.items())


def test_a_member_stopped_before_it_starts_has_its_initial_parameters(lab: Any, rows: int) -> None:
    task = lab.make_task(*data(rows), seeds=5)
    result, recorder = lab.run(task, stop_when=lambda _: [0])
    assert result.states[0] == MemberState.STOPPED
    assert result.epochs_done[0] == 0
    assert np.isnan(result.final_loss[0])
    assert recorder.points(0) == []
    torch.manual_seed(5)
    assert (result.parameters["linear.weight"][0] == torch.nn.Linear(2, 1).weight.detach().numpy()).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_diverged_member_tells_its_epoch_and_keeps_its_log(lab: Any, rows: int, bad: float) -> None:
    x, y = data(rows, 2)
    x[0, 0] = bad
    result, recorder = lab.run(lab.make_task(x, y, sizes=[rows] * 2))
    assert list(result.states) == [MemberState.DIVERGED, MemberState.FINISHED]
    assert result.epochs_done[0] == 0
    assert recorder.points(0) == []
    assert "epoch 0" in str(result.messages[0])


@pytest.mark.parametrize("precision", Precision)
def test_a_loss_that_overflows_diverges_when_plain_pytorchs_does(lab: Any, precision: Precision) -> None:
    task = lab.make_task(*data(6), lr=5.0, epochs=2000, precision=precision)
    result, _ = lab.run(task)
    _, losses = lab.plain_loop(task)
    assert result.epochs_done[0] == np.flatnonzero(~np.isfinite(losses))[0]


def test_given_start_values_are_used(lab: Any, rows: int) -> None:
    x, y = data(rows, 2)
    whole, _ = lab.run(lab.make_task(x, y, sizes=[rows] * 2, epochs=20, precision=Precision.FLOAT64))
    half, _ = lab.run(lab.make_task(x, y, sizes=[rows] * 2, epochs=10, precision=Precision.FLOAT64))
    rest, _ = lab.run(
        lab.make_task(x, y, sizes=[rows] * 2, epochs=10, precision=Precision.FLOAT64, initial=half.parameters)
    )
    assert lab.distance(rest.parameters, whole.parameters) <= 1e-15


@given(
    seeds=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=4),
    widths=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    precision=st.sampled_from(Precision),
)
@settings(max_examples=30, deadline=None)
def test_default_initialisation_is_pytorchs(
    lab: Any, seeds: list[int], widths: list[int], precision: Precision
) -> None:
    model = lab.mlp(*widths)
    task = lab.make_task(
        np.zeros((len(seeds), widths[0])), np.zeros((len(seeds), widths[-1])), sizes=[1] * len(seeds),
        model=model, seeds=seeds, precision=precision,
    )  # fmt: skip
    flat = seeded_parameters(cohort.chain_of(model, widths[0]), np.asarray(seeds), np.dtype(precision.value))
    for k in range(len(seeds)):
        drawn = [value.detach().numpy().ravel() for value in lab.torch_module(task, k).parameters()]
        assert flat[k].tobytes() == np.concatenate(drawn).tobytes()


def test_read_only_and_unaligned_data_are_taken_as_they_are(lab: Any, rows: int) -> None:
    x, y = data(rows)
    expected, _ = lab.run(lab.make_task(x, y))
    task = lab.make_task(x, y)
    size = task.data.features.size
    message = b"\0" + task.data.features.tobytes()
    unaligned = np.frombuffer(message, np.float32, size, 1).reshape(task.data.features.shape)
    frozen = np.frombuffer(task.data.targets.tobytes(), np.float32)
    received = cohort.CohortData(features=unaligned, targets=frozen, offsets=task.data.offsets)
    options = {name: getattr(task, name) for name in task.__dataclass_fields__}
    result, _ = lab.run(cohort.CohortTask(**options | {"data": received}))
    assert result.parameters["linear.weight"].tobytes() == expected.parameters["linear.weight"].tobytes()


def test_memory_of_a_fleet_is_its_data_and_its_result(lab: Any) -> None:
    """Members stream through in blocks: what is allocated besides the result does not grow with them."""

    def peak(members: int) -> int:
        x, y = data(20, members)
        task = lab.make_task(
            x, y, sizes=[20] * members, epochs=2, log_every=1000, loss=LossKind.L1,
            optimizer=OptimizerKind.ADAM, init=Init.ZEROS,
        )  # fmt: skip
        tracemalloc.start()
        lab.run(task)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(64)
    few, many = peak(500), peak(4000)
    assert (many - few) / 3500 < 1000
