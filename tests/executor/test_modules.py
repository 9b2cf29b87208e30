"""Registered modules in real workers: whatever one does, its own run alone bears it, and no text of its leaks."""

from __future__ import annotations

import asyncio
import resource
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch

from epochd_server.domain.data import TrainingArrays
from epochd_server.domain.specs import LinearLayer, ModuleModel, SequentialModel
from epochd_server.domain.work import (
    RunBegan,
    RunFailed,
    RunLogged,
    RunStopped,
    RunTrained,
    WorkerDied,
)
from epochd_server.executor.process import WorkerStartError

SOURCE = '''
import ctypes, os, sys, time
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
        self.calls = 0

    def forward(self, x):
        if bool((x > 100).any()):
            if self.mood == "raise":
                raise ValueError("the password is hunter2")
            if self.mood == "exit":
                sys.exit("the password is hunter2")
            if self.mood == "die":
                os._exit(3)
            if self.mood == "crash":
                ctypes.string_at(0)
            if self.mood == "hoard":
                torch.empty(2**46)
            self.calls += 1
            if self.mood == "hang" and self.calls > 3:
                time.sleep(3600)
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


async def test_a_module_that_crashes_is_told_with_its_signal(executor, train, cohort, moody, run_work):
    with pytest.raises(WorkerDied) as caught:
        await train(executor, cohort(moody("bad", "crash")))
    assert caught.value.evidence.startswith("was killed by SIGSEGV")
    assert isinstance((await train(executor, cohort(run_work())))[-1], RunTrained)


async def test_a_module_that_needs_more_memory_than_there_is_fails_its_own_run(
    executor, train, cohort, moody
):
    pids = executor.worker_pids
    messages = ends(await train(executor, cohort(moody("bad", "hoard"), moody("ok", "hoard", trigger=False))))
    assert messages["bad"].failure.reason == "OUT_OF_MEMORY"
    assert isinstance(messages["ok"], RunTrained)
    assert executor.worker_pids == pids


def limit_memory(pid, nbytes):
    """Lets a process have so much more memory than it has."""
    used = psutil.Process(pid).memory_info().vms
    resource.prlimit(pid, resource.RLIMIT_AS, (used + nbytes, used + nbytes))


async def test_a_training_that_needs_more_memory_than_its_worker_may_have_fails_alone(
    executor, train, cohort, run_work
):
    (pid,) = executor.worker_pids
    limit_memory(pid, 40 * 2**20)
    layers = (
        LinearLayer(in_features=1, out_features=9_000_000),
        LinearLayer(in_features=9_000_000, out_features=1),
    )
    wide = run_work("wide", model=SequentialModel(layers=layers))
    assert ends(await train(executor, cohort(wide)))["wide"].failure.reason == "OUT_OF_MEMORY"
    assert isinstance((await train(executor, cohort(run_work())))[-1], RunTrained)
    assert executor.worker_pids == [pid]


async def test_a_worker_that_has_no_memory_for_what_it_is_sent_ends(executor, train, cohort, run_work, rows):
    """It could not be told to stop any more; another one takes its place."""
    (pid,) = executor.worker_pids
    limit_memory(pid, 20 * 2**20)
    large = replace(rows(3.0), features=np.ones((3, 20_000_000), np.float32))
    async with asyncio.timeout(60):
        with pytest.raises(WorkerDied) as caught:
            await train(executor, cohort(run_work(data=large)))
        assert caught.value.evidence.startswith("ended with exit code 1")
        assert isinstance((await train(executor, cohort(run_work())))[-1], RunTrained)


async def test_a_module_that_hangs_is_ended_with_its_worker_once_it_is_to_stop(
    make_executor, source, train, cohort, moody, run_work
):
    executor = await make_executor(1, modules=[source], stop_seconds=0.3)
    (pid,) = executor.worker_pids

    def stop(message):
        if isinstance(message, RunBegan):
            asyncio.get_running_loop().call_later(1.0, executor.stop_runs, ["bad"])

    async with asyncio.timeout(100):
        with pytest.raises(WorkerDied) as caught:
            await train(executor, cohort(moody("bad", "hang")), stop)
        assert caught.value.deaths == 0
        assert "did not stop" in caught.value.evidence
        assert isinstance((await train(executor, cohort(run_work())))[-1], RunTrained)
    assert not psutil.pid_exists(pid)


async def test_a_run_that_stops_in_time_leaves_its_worker_and_its_neighbours_alone(
    make_executor, source, train, cohort, moody
):
    executor = await make_executor(1, modules=[source], stop_seconds=0.5)
    pids = executor.worker_pids

    def stop(message):
        if isinstance(message, RunBegan) and message.run_id == "brief":
            executor.stop_runs(["brief"])

    work = cohort(moody("brief", "slow", epochs=40), moody("other", "slow", epochs=40))
    messages = ends(await train(executor, work, stop))
    assert isinstance(messages["brief"], RunStopped)
    assert isinstance(messages["other"], RunTrained)
    assert executor.worker_pids == pids


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
