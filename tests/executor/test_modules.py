"""Registered modules in real workers: whatever one does, its own run alone bears it, and no text of its leaks."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch

from epochd_server.domain.specs import ModuleModel
from epochd_server.domain.work import RunBegan, RunFailed, RunLogged, RunStopped, RunTrained, WorkerDied
from epochd_server.executor.process import WorkerStartError

SOURCE = '''
import os, sys, time
import torch
from torch import nn

class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, x):
        return self.linear(x)

class Moody(Line):
    """Does what ``mood`` says once it sees a feature above 100."""

    def __init__(self, mood):
        super().__init__()
        self.mood = mood

    def forward(self, x):
        if bool((x > 100).any()):
            if self.mood == "raise":
                raise ValueError("the password is hunter2")
            if self.mood == "exit":
                sys.exit("the password is hunter2")
            if self.mood == "die":
                os._exit(3)
            if self.mood == "slow":
                time.sleep(0.05)
        return super().forward(x)
'''


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "moody.py"
    path.write_text(SOURCE)
    return str(path)


@pytest.fixture
async def executor(make_executor, source):
    return await make_executor(1, modules=[source])


@pytest.fixture
def moody(run_work, rows):
    """A run of the module; ``trigger`` gives it the row that it does not like."""

    def make(run_id, mood, *, trigger=True, **changes):
        model = ModuleModel(name="Moody", arguments={"mood": mood})
        return run_work(run_id, model=model, data=rows(150.0 if trigger else 3.0), lr=1e-6, **changes)

    return make


@pytest.fixture
def rows():
    from epochd_server.domain.data import TrainingArrays

    def make(last):
        return TrainingArrays(
            features=np.array([[1], [2], [last]], np.float32),
            targets=np.array([[2], [4], [2 * last]], np.float32),
            feature_columns=("x0",),
            target_columns=("y",),
        )

    return make


def ends(messages):
    return {m.run_id: m for m in messages if not isinstance(m, RunBegan | RunLogged)}


async def test_a_registered_module_is_trained_as_plain_pytorch_would(executor, train, cohort, run_work):
    messages = await train(executor, cohort(run_work(model=ModuleModel(name="Line"), epochs=50)))
    torch.manual_seed(1)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[2.0], [4.0], [6.0]])
    for _ in range(50):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
    trained = messages[-1].parameters
    assert trained["linear.weight"].item() == pytest.approx(model.weight.item(), rel=1e-6)
    assert trained["linear.bias"].item() == pytest.approx(model.bias.item(), rel=1e-6)


@pytest.mark.parametrize("mood", ["raise", "exit"])
async def test_a_module_that_raises_fails_its_own_run_and_its_text_stays_in_the_log(
    executor, train, cohort, moody, mood, capfd
):
    pids = executor.worker_pids
    work = cohort(moody("good", mood, trigger=False), moody("bad", mood), moody("fine", mood, trigger=False))
    messages = ends(await train(executor, work))
    assert isinstance(messages["bad"], RunFailed)
    failure = messages["bad"].failure
    assert failure.reason == "MODULE_FAILED"
    assert failure.hint
    assert "hunter2" not in failure.message + failure.hint
    assert isinstance(messages["good"], RunTrained)
    assert isinstance(messages["fine"], RunTrained)
    assert executor.worker_pids == pids
    written = capfd.readouterr()
    assert "hunter2" in written.out + written.err
    assert "bad" in written.out + written.err


async def test_a_module_that_ends_the_process_is_told_with_its_exit_code(
    executor, train, cohort, moody, run_work
):
    with pytest.raises(WorkerDied) as caught:
        await train(executor, cohort(moody("bad", "die")))
    assert caught.value.evidence.startswith("ended with exit code 3")
    assert isinstance((await train(executor, cohort(run_work())))[-1], RunTrained)


async def test_a_slow_module_is_stopped_at_its_next_epoch(executor, train, cohort, moody):
    def stop(message):
        if isinstance(message, RunBegan):
            executor.stop_runs(["slow"])

    async with asyncio.timeout(20):
        messages = await train(executor, cohort(moody("slow", "slow", epochs=100_000)), stop)
    assert isinstance(messages[-1], RunStopped)
    assert messages[-1].epochs < 100


async def test_a_module_that_is_not_registered_fails_its_run(executor, train, cohort, run_work):
    messages = await train(executor, cohort(run_work(model=ModuleModel(name="Nowhere"))))
    assert messages[-1].failure.reason == "MODULE_NOT_FOUND"


async def test_a_source_that_cannot_be_loaded_keeps_the_executor_from_starting(make_executor, tmp_path):
    source = tmp_path / "broken.py"
    source.write_text("import nowhere_to_be_found")
    with pytest.raises(WorkerStartError) as caught:
        await make_executor(2, modules=[str(source)])
    assert "broken.py" in str(caught.value)
    assert "nowhere_to_be_found" in str(caught.value)
    assert "\n" not in str(caught.value)
