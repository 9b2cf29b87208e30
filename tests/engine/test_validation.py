"""Held-out rows in every program: what is measured after which epoch, and when a training ends early."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score
from torch import nn

from epochd_server.domain.specs import Loss, LossKind, ModuleModel, OptimizerKind, Precision
from epochd_server.domain.validation import EarlyStopping, Metric
from epochd_server.engine import cohort
from epochd_server.engine.cohort import MemberState
from epochd_server.engine.modules import ModuleRegistry
from epochd_server.engine.programs import blocks

PROGRAMS = {"lanes": 6, "gram": 40, "solo": 6, "module": 6}
SETTINGS = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Doubled(nn.Module):
    """Two calls of one layer: nothing the engine's own programs train."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.second = nn.Linear(2, 1)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """First twice, then second."""
        outputs: torch.Tensor = self.second(self.first(self.first(rows)))
        return outputs


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Sends every member to one program."""
    if request.param == "solo":
        monkeypatch.setattr(cohort, "SMALL_WORK", 0)
    return str(request.param)


def problem(lab: Any, program: str, members: int = 1, **options: Any) -> Any:
    """Members with as many rows as lead to a program, and held-out rows of which each has another number."""
    rows = PROGRAMS[program]
    rng = np.random.default_rng(rows + members)
    slopes = rng.normal(size=2)

    def sample(count: int) -> tuple[Any, Any]:
        x = rng.normal(size=(count, 2))
        return x, x @ slopes + 2.0 * rng.normal(size=count)

    sizes = 5 + np.arange(members) % 3
    options = {"precision": Precision.FLOAT64, "lr": 0.05, "epochs": 60} | options
    if program == "module":
        options["model"] = ModuleModel(name="Doubled")
    return lab.make_task(
        *sample(rows * members),
        sizes=[rows] * members,
        held_out=(*sample(int(sizes.sum())), sizes),
        **options,
    )


def train(lab: Any, task: Any, observer: Any = None) -> Any:
    observer, registry = observer or lab.Recorder(), ModuleRegistry()
    registry.register(Doubled)
    return cohort.train_cohort(task, observer, modules=registry), observer


def logged(recorder: Any, member: int, column: str) -> dict[int, Any]:
    """Epoch → a column of the log points of a member."""
    return {
        int(batch.epochs[i]): getattr(batch, column)[i]
        for batch in recorder.batches
        for i in np.flatnonzero(batch.members == member)
    }


def plain_held_out_losses(lab: Any, task: Any, epochs: int) -> list[float]:
    """The loop everybody writes: the loss on the held-out rows after each epoch's step."""
    torch.manual_seed(int(task.seeds[0]))
    module = Doubled().double() if isinstance(task.model, ModuleModel) else lab.torch_module(task)
    optimizer = lab.torch_optimizer(task, module.parameters())
    x, y = torch.from_numpy(task.data.features), torch.from_numpy(task.data.targets)[:, None]
    held_x, held_y = (
        torch.from_numpy(task.validation.features),
        torch.from_numpy(task.validation.targets)[:, None],
    )
    losses = []
    for _ in range(epochs):
        optimizer.zero_grad()
        nn.functional.huber_loss(module(x), y, delta=0.7).backward()
        optimizer.step()
        with torch.no_grad():
            losses.append(float(nn.functional.huber_loss(module(held_x), held_y, delta=0.7)))
    return losses


@pytest.mark.parametrize("program", ["lanes", "solo", "module"], indirect=True)
def test_losses_on_held_out_rows_are_those_after_the_epochs_update(lab: Any, program: str) -> None:
    task = problem(lab, program, loss=Loss(kind=LossKind.HUBER, delta=0.7), log_every=7, epochs=30)
    if program == "module":  # the module's own float64 draws differ from those of a float32 one made double
        start = {name: value.detach().double().numpy()[None] for name, value in _seeded().named_parameters()}
        task = dataclasses.replace(task, initial=start)
    result, recorder = train(lab, task)
    want = plain_held_out_losses(lab, task, 30)
    found = logged(recorder, 0, "validation_losses")
    assert list(found) == [0, 7, 14, 21, 28]
    np.testing.assert_allclose(list(found.values()), [want[epoch] for epoch in found], rtol=1e-12)
    np.testing.assert_allclose(result.validation_losses, want[-1:], rtol=1e-12)
    assert list(result.best_epochs) == [-1]


def _seeded() -> nn.Module:
    torch.manual_seed(0)
    return Doubled()


def test_mse_as_a_metric_is_the_loss_of_mse(lab: Any, program: str) -> None:
    task = problem(lab, program, members=4, metrics=[Metric.MSE, Metric.R2], log_every=20)
    result, recorder = train(lab, task)
    np.testing.assert_allclose(result.metrics[:, 0], result.validation_losses, rtol=1e-12)
    assert np.isfinite(result.metrics).all()
    for k in range(4):
        losses, metrics = logged(recorder, k, "validation_losses"), logged(recorder, k, "metrics")
        assert list(losses) == [0, 20, 40]
        np.testing.assert_allclose([metrics[epoch][0] for epoch in losses], list(losses.values()), rtol=1e-12)


@pytest.mark.parametrize("kind", LossKind)
def test_every_loss_on_held_out_rows_equals_that_on_the_same_training_rows(lab: Any, kind: LossKind) -> None:
    """With the training rows held out, an epoch's loss after its update is the next epoch's loss before its own."""
    rng = np.random.default_rng(4)
    x, weights = rng.normal(size=(12, 2)), rng.integers(0, 3, 12)
    y, outputs = rng.normal(size=(12, 2)), 2
    if kind is LossKind.CROSS_ENTROPY:
        y, outputs = rng.integers(0, 3, 12), 3
    if kind is LossKind.BCE_WITH_LOGITS:
        y = rng.integers(0, 2, (12, 2))
    if kind is LossKind.GAUSSIAN_NLL:
        outputs = 4
    loss = Loss(kind=kind, delta=0.7, quantile=0.3, label_smoothing=0.2)
    task = lab.make_task(
        x, y, model=lab.mlp(2, 3, outputs), loss=loss, weights=weights, epochs=20,
        precision=Precision.FLOAT64, held_out=(x, y, [12], weights), lr=0.1,
    )  # fmt: skip
    _, recorder = train(lab, task)
    before = [loss for _, loss, _ in recorder.points(0)]
    after = list(logged(recorder, 0, "validation_losses").values())
    np.testing.assert_allclose(after[:-1], before[1:], rtol=1e-12)


def test_a_classifiers_metrics_are_measured_on_its_outputs(lab: Any) -> None:
    rng = np.random.default_rng(5)
    x, held_x = rng.normal(size=(30, 2)), rng.normal(size=(25, 2))
    y, held_y = (x[:, 0] > 0).astype(int), rng.integers(0, 2, 25)
    model = lab.mlp(2, 3, 2)
    task = lab.make_task(
        x, y, model=model, loss=LossKind.CROSS_ENTROPY, held_out=(held_x, held_y), metrics=[Metric.ACCURACY]
    )
    result, _ = train(lab, task)
    module = lab.torch_module(task)
    module.load_state_dict({name: torch.from_numpy(value[0]) for name, value in result.parameters.items()})
    predicted = module(torch.from_numpy(held_x.astype(np.float32))).argmax(1)
    assert result.metrics[0, 0] == accuracy_score(held_y, predicted)


def expected_end(values: list[float], rule: EarlyStopping, epochs: int) -> tuple[int, int]:
    """Epochs made and the best one, by the rule as its documentation says."""
    best, best_epoch, waited = np.inf, -1, 0
    for epoch in range(epochs):
        if epoch % rule.every and epoch != epochs - 1:
            continue
        if values[epoch] < best - rule.min_delta:
            best, best_epoch, waited = values[epoch], epoch, 0
        else:
            waited += 1
            if waited >= rule.patience:
                return epoch + 1, best_epoch
    return epochs, best_epoch


@pytest.mark.parametrize(
    "rule",
    [
        EarlyStopping(patience=3),
        EarlyStopping(patience=2, every=5),
        EarlyStopping(patience=4, min_delta=1e-3, restore_best=False),
        EarlyStopping(patience=3, metric=Metric.R2),
        EarlyStopping(patience=10_000),
    ],
    ids=["loss", "every", "min_delta", "metric", "patient"],
)
def test_training_ends_early_as_the_rule_says(lab: Any, program: str, rule: EarlyStopping) -> None:
    members, epochs = 5, 60
    task = problem(
        lab, program, members, epochs=epochs, log_parameters=True, metrics=[Metric.MSE], seeds=np.arange(5)
    )
    _, whole = train(lab, task)
    result, recorder = train(lab, dataclasses.replace(task, early_stopping=rule))
    ends = []
    for k in range(members):
        losses = list(logged(whole, k, "validation_losses").values())
        snapshots = [parameters for _, _, parameters in whole.points(k)]
        done, best = expected_end(losses, rule, epochs)
        ends.append(done)
        assert (result.states[k], result.epochs_done[k]) == (MemberState.FINISHED, done)
        kept = best if rule.restore_best else done - 1
        assert result.best_epochs[k] == (best if rule.restore_best else -1)
        assert result.validation_losses[k] == losses[kept]
        for name, value in result.parameters.items():
            assert (value[k] == snapshots[kept][name]).all()
        assert len(recorder.points(k)) == done
        assert result.final_loss[k] == whole.points(k)[done - 1][1]
    if rule.patience < 10 and rule.min_delta == 0:
        assert min(ends) < epochs


def test_a_member_without_held_out_rows_is_never_stopped(lab: Any, program: str) -> None:
    task = problem(lab, program, 3, early_stopping=EarlyStopping(patience=1), metrics=[Metric.MAE])
    sizes = np.array([0, 8, 0])
    held = dataclasses.replace(
        task.validation,
        features=task.validation.features[:8],
        targets=task.validation.targets[:8],
        offsets=np.concatenate([[0], np.cumsum(sizes)]),
    )
    result, _ = train(lab, dataclasses.replace(task, validation=held))
    assert list(result.epochs_done[[0, 2]]) == [60, 60]
    assert np.isnan(result.validation_losses[[0, 2]]).all()
    assert np.isfinite(result.validation_losses[1])
    assert list(result.best_epochs[[0, 2]]) == [-1, -1]


def story(result: Any, recorder: Any, k: int) -> Any:
    """Everything a member's owner gets to see, in bits."""
    return (
        [(e, np.float64(v).tobytes()) for e, v in logged(recorder, k, "validation_losses").items()],
        [(e, v.tobytes()) for e, v in logged(recorder, k, "metrics").items()],
        [np.float64(loss).tobytes() for _, loss, _ in recorder.points(k)],
        {name: value[k].tobytes() for name, value in result.parameters.items()},
        (int(result.epochs_done[k]), int(result.best_epochs[k]), result.validation_losses[k].tobytes()),
        result.metrics[k].tobytes(),
    )


@st.composite
def validated(draw: Any) -> dict[str, Any]:
    """Options of a task with early stopping."""
    metric = draw(st.sampled_from([None, Metric.MAE, Metric.R2]))
    return {
        "early_stopping": EarlyStopping(
            metric=metric, patience=draw(st.integers(1, 4)), every=draw(st.integers(1, 4))
        ),
        "optimizer": draw(st.sampled_from(OptimizerKind)),
        "batch_size": draw(st.sampled_from([None, 4])),
        "precision": draw(st.sampled_from(Precision)),
        "log_every": draw(st.lists(st.integers(1, 7), min_size=6, max_size=6)),
        "epochs": draw(st.lists(st.integers(1, 25), min_size=6, max_size=6)),
        "metrics": [Metric.MAE],
        "log_parameters": True,
    }


@given(options=validated())
@SETTINGS
def test_a_member_stops_with_the_same_bits_alone_and_in_any_company(
    lab: Any, program: str, options: Any
) -> None:
    task = problem(lab, program, 6, **options)
    together = train(lab, task)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "MOST_LANES", 4)
        patch.setattr(blocks, "CHUNK_SECONDS", 0.0)
        patch.setattr("epochd_server.engine.validation.GROUP_ROWS", 7)
        cut_up = train(lab, task)
    for k in range(6):
        assert story(*together, k) == story(*cut_up, k)
        assert story(*together, k) == story(*train(lab, lab.subset(task, [k])), 0)


def test_holding_rows_out_changes_no_bits_of_the_training(lab: Any, program: str) -> None:
    task = problem(lab, program, 5, log_parameters=True, optimizer=OptimizerKind.ADAM, log_every=9)
    plain, plain_log = train(lab, dataclasses.replace(task, validation=None))
    result, recorder = train(lab, task)
    for k in range(5):
        for (_, loss, parameters), (_, want_loss, want) in zip(
            recorder.points(k), plain_log.points(k), strict=True
        ):
            assert loss == want_loss
            assert all((parameters[name] == want[name]).all() for name in want)
    assert all((result.parameters[name] == value).all() for name, value in plain.parameters.items())
    assert all(batch.validation_losses is None for batch in plain_log.batches)


def test_members_of_a_sweep_share_the_held_out_rows(lab: Any) -> None:
    rng = np.random.default_rng(6)
    x, y, held = (
        rng.normal(size=(20, 2)),
        rng.normal(size=20),
        (rng.normal(size=(9, 2)), rng.normal(size=9)),
    )
    rates = [0.001, 0.01, 0.1]
    options = {"held_out": held, "early_stopping": EarlyStopping(patience=2), "metrics": [Metric.MAE]}
    sweep = train(lab, lab.make_task(x, y, shared_members=3, lr=rates, **options))
    for k, rate in enumerate(rates):
        assert story(*sweep, k) == story(*train(lab, lab.make_task(x, y, lr=rate, **options)), 0)
