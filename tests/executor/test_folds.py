"""Folds of a cross-validation as tasks for the engine: the right rows, and the same bits however they are cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from epochd_server.domain.data import TrainingArrays
from epochd_server.domain.exact_fits import LeastSquaresFit
from epochd_server.domain.fleets import Sweep
from epochd_server.domain.specs import (
    GradientFit,
    Init,
    LinearModel,
    Logging,
    Loss,
    LossKind,
    Optimizer,
    OptimizerKind,
    Precision,
    TrainingSpec,
)
from epochd_server.domain.validation import Folds, Metric, Split, Validation
from epochd_server.engine.cohort import CohortTask, train_cohort
from epochd_server.executor import fleet_tasks, fold_tasks
from epochd_server.executor.wire import TrainFleet

FOLDS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0], np.int16)


class Quiet:
    """Listens to nothing."""

    def logs(self, batch: object) -> None:
        pass

    def ended(self, batch: object) -> None:
        pass

    def progress(self, batch: object) -> None:
        pass

    def stopped_members(self) -> tuple[int, ...]:
        return ()


@pytest.fixture
def data() -> TrainingArrays:
    random = np.random.default_rng(0)
    return TrainingArrays(
        features=random.normal(size=(10, 3)).astype(np.float32),
        targets=random.normal(size=(10, 1)).astype(np.float32),
        feature_columns=("a", "b", "c"),
        target_columns=("y",),
        weights=random.integers(1, 3, 10).astype(np.float32),
        folds=FOLDS,
    )


def work(data: TrainingArrays, split: Split = Split.RANDOM, share: tuple[int, int] = (0, 6)) -> TrainFleet:
    spec = TrainingSpec(
        model=LinearModel(in_features=3, out_features=1),
        loss=Loss(kind=LossKind.MSE),
        fit=GradientFit(optimizer=Optimizer(kind=OptimizerKind.SGD, lr=0.1), epochs=7),
        init=Init.DEFAULT,
        precision=Precision.FLOAT32,
        seed=3,
        logging=Logging(every=1),
        key_columns=("lr", "fold"),
        sweep=Sweep(lr=(0.1, 0.01), folds=3),
        validation=Validation(rows=Folds(count=3, split=split), metrics=(Metric.MAE,)),
    )
    return TrainFleet(run_id="r", spec=spec, data=data, share=share)


def parameters(data: TrainingArrays, share: tuple[int, int] = (0, 6)) -> dict[int, bytes]:
    """The bits of each member of a part: its parameters, loss and metrics."""
    found = {}
    for part in fleet_tasks.fleet_tasks(work(data, share=share), data):
        assert isinstance(part.task, CohortTask)
        result = train_cohort(part.task, Quiet())
        for place, member in enumerate(part.fit.tolist()):
            numbers = [array[place] for array in result.parameters.values()]
            numbers += [result.validation_losses[place], result.metrics[place]]
            found[share[0] + member] = b"".join(np.asarray(number).tobytes() for number in numbers)
    return found


def test_each_member_is_trained_without_its_fold_and_measured_on_it(data: TrainingArrays) -> None:
    (part,) = fleet_tasks.fleet_tasks(work(data), data)
    task = part.task
    assert task.validation is not None
    for member in range(6):
        held = member % 3 == FOLDS
        trained = slice(*task.data.offsets[member : member + 2])
        tested = slice(*task.validation.offsets[member : member + 2])
        np.testing.assert_array_equal(task.data.features[trained], data.features[~held])
        np.testing.assert_array_equal(task.validation.targets[tested], data.targets[held])
    sizes = fleet_tasks.rows_of_members(work(data), data)
    np.testing.assert_array_equal(sizes, [6, 7, 7] * 2)


def test_by_time_a_fold_is_trained_on_the_rows_before_it(data: TrainingArrays) -> None:
    ordered = TrainingArrays(
        features=data.features, targets=data.targets, feature_columns=("a", "b", "c"), target_columns=("y",),
        folds=np.sort(FOLDS) - 1,
    )  # fmt: skip
    forward = work(ordered, Split.TIME)
    np.testing.assert_array_equal(fleet_tasks.rows_of_members(forward, ordered), [4, 7, 10] * 2)


def test_folds_in_one_task_or_each_in_its_own_end_in_the_same_bits(
    data: TrainingArrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = parameters(data)
    monkeypatch.setattr(fold_tasks, "_COPIED_BYTES", 0)
    assert parameters(data) == together
    assert parameters(data, (0, 2)) | parameters(data, (2, 6)) == together


def test_least_squares_leave_out_what_says_nothing_in_a_folds_rows(data: TrainingArrays) -> None:
    constant = np.where(FOLDS == 1, np.arange(10), 7.0).astype(np.float32)
    rows = replace(data, features=np.column_stack([data.features[:, 0], constant, data.features[:, 1]]))
    gradient = work(rows)
    exact = replace(gradient.spec, fit=LeastSquaresFit(), sweep=Sweep(folds=3), key_columns=("fold",))
    parts = list(fleet_tasks.fleet_tasks(replace(gradient, spec=exact, share=(0, 3)), rows))
    assert [part.fit.tolist() for part in parts] == [[0, 2], [1]]
    assert parts[0].narrowing is None
    narrowing = parts[1].narrowing
    assert narrowing is not None
    assert parts[1].task.data.features.shape == (7, 2)
    widened = narrowing.parameters(
        {"linear.weight": np.array([[[2.0, 3.0]]]), "linear.bias": np.ones((1, 1))}
    )
    assert widened["linear.weight"].tolist() == [[[2.0, 0.0, 3.0]]]
    assert widened["linear.bias"].tolist() == [[1.0]]
    known = {name: np.array([[[2.0, 3.0, 1.0]]]) for name in ("coefficients", "standard_errors")}
    told = narrowing.statistics(known | {"ranks": np.array([3.0])})
    assert told["coefficients"].tolist() == [[[2.0, 0.0, 3.0, 1.0]]]
    np.testing.assert_array_equal(told["standard_errors"], [[[2.0, np.nan, 3.0, 1.0]]])
    assert told["ranks"].tolist() == [3.0]

    ridge = replace(exact, fit=LeastSquaresFit(l2=1.0))
    (together,) = fleet_tasks.fleet_tasks(replace(gradient, spec=ridge, share=(0, 3)), rows)
    assert together.narrowing is None
