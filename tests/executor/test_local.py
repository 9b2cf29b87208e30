"""Real worker processes: what they train, how they are stopped, how they die and are replaced."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import psutil
import pyarrow as pa
import pytest
import torch
from pyarrow import ipc

from epochd_server.domain.data import ColumnRoles, TrainingArrays
from epochd_server.domain.work import (
    DatasetFile,
    RunBegan,
    RunFailed,
    RunLogged,
    RunStopped,
    RunTrained,
    WorkerDied,
)
from epochd_server.executor import local
from epochd_server.executor.process import WorkerProcess, WorkerStartError


def ends(messages):
    return {message.run_id: message for message in messages if not isinstance(message, RunBegan | RunLogged)}


def pytorch_line(epochs, seed=1, lr=0.01):
    """The plain loop: parameters at the end, and every epoch's loss before its update."""
    torch.manual_seed(seed)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    x, y = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[2.0], [4.0], [6.0]])
    losses = []
    for _ in range(epochs):
        loss = torch.nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, losses


async def test_a_run_is_trained_as_plain_pytorch_would(executor, train, cohort, run_work, logs_of):
    messages = await train(executor, cohort(run_work(epochs=100, every=10)))
    model, losses = pytorch_line(100)
    assert messages[0] == RunBegan(run_id="run", device="cpu")
    assert logs_of(messages, "run") == [
        (epoch, pytest.approx(losses[epoch], rel=1e-6)) for epoch in range(0, 100, 10)
    ]
    trained = messages[-1]
    assert trained.epochs == 100
    assert trained.final_loss == pytest.approx(losses[-1], rel=1e-6)
    assert trained.training_seconds > 0
    assert trained.parameters["linear.weight"].shape == (1, 1)
    assert trained.parameters["linear.weight"].item() == pytest.approx(model.weight.item(), rel=1e-6)


async def test_parameters_are_logged_where_they_are_asked_for(executor, train, cohort, run_work):
    messages = await train(
        executor,
        cohort(
            run_work("with", parameters=True, every=1),
            run_work("without"),
            run_work("too", parameters=True),
        ),
    )
    for message in messages:
        for log in message.logs if isinstance(message, RunLogged) else ():
            assert (log.parameters is None) == (message.run_id == "without")
    last = [m.logs[-1] for m in messages if isinstance(m, RunLogged) and m.run_id == "with"][-1]
    trained = ends(messages)["with"]
    for name, array in trained.parameters.items():
        assert np.array_equal(last.parameters[name], array)


async def test_members_of_a_cohort_get_the_bits_they_get_alone(executor, train, cohort, run_work, logs_of):
    runs = [
        run_work(f"run-{index}", seed=index, lr=0.01 + index / 1_000, epochs=50 + index) for index in range(5)
    ]
    together = await train(executor, cohort(*runs))
    for run in runs:
        alone = await train(executor, cohort(run))
        assert logs_of(alone, run.run_id) == logs_of(together, run.run_id)
        for name, array in ends(alone)[run.run_id].parameters.items():
            assert array.tobytes() == ends(together)[run.run_id].parameters[name].tobytes()


async def test_in_a_crowd_each_run_begins_once_and_before_anything_else_is_told_of_it(
    executor, train, cohort, run_work
):
    runs = [
        run_work(f"run-{index}", seed=index, lr=1e6 if index == 7 else 0.01, epochs=500)
        for index in range(100)
    ]
    messages = await train(executor, cohort(*runs))
    for run in runs:
        own = [type(message) for message in messages if message.run_id == run.run_id]
        assert own[0] is RunBegan
        assert RunBegan not in own[1:]
        assert own[-1] is (RunFailed if run.run_id == "run-7" else RunTrained)


async def test_a_diverged_run_fails_with_epoch_and_hint_and_its_neighbour_succeeds(
    executor, train, cohort, run_work
):
    messages = await train(executor, cohort(run_work("bad", lr=1e6, epochs=500), run_work("good")))
    failure = ends(messages)["bad"].failure
    assert failure.reason == "LOSS_NOT_FINITE"
    assert 0 < failure.epoch < 500
    assert "learning rate" in failure.hint
    assert isinstance(ends(messages)["good"], RunTrained)


async def test_logs_come_while_training_goes_on(executor, train, cohort, forever):
    async for delivery in executor.run(cohort(forever())):
        if isinstance(delivery[-1], RunLogged):
            assert delivery[-1].logs[0].epoch == 0
            break
        executor.stop_runs(["forever"])


async def test_a_stopped_run_ends_soon_and_its_compute_ends_with_it(executor, train, cohort, forever):
    asked = 0.0

    def stop(message):
        nonlocal asked
        if isinstance(message, RunBegan):
            asked = time.monotonic()
            executor.stop_runs(["forever", "unknown"])

    async with asyncio.timeout(30):
        messages = await train(executor, cohort(forever()), stop)
    assert isinstance(messages[-1], RunStopped)
    assert 0 < messages[-1].epochs < 2_000_000_000
    assert time.monotonic() - asked < 2.0
    worker = psutil.Process(executor.worker_pids[0])
    before = sum(worker.cpu_times()[:2])
    await asyncio.sleep(0.3)
    assert sum(worker.cpu_times()[:2]) - before < 0.1


async def test_a_stopped_member_leaves_and_the_other_goes_on_to_the_bits_it_has_alone(
    executor, train, cohort, run_work, forever
):
    def stop(message):
        if isinstance(message, RunBegan):
            executor.stop_runs(["forever"])

    good = run_work("good", epochs=3_000)
    messages = await train(executor, cohort(forever(), good), stop)
    assert isinstance(ends(messages)["forever"], RunStopped)
    alone = ends(await train(executor, cohort(good)))["good"].parameters
    for name, array in ends(messages)["good"].parameters.items():
        assert array.tobytes() == alone[name].tobytes()


async def test_a_run_stopped_while_it_waits_for_a_worker_is_stopped_when_it_gets_one(
    executor, train, cohort, forever
):
    first = asyncio.create_task(train(executor, cohort(forever("first"))))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(train(executor, cohort(forever("second"))))
    await asyncio.sleep(0.05)
    executor.stop_runs(["second"])
    executor.stop_runs(["first"])
    async with asyncio.timeout(30):
        assert isinstance((await first)[-1], RunStopped)
        assert isinstance((await second)[-1], RunStopped)


async def test_a_killed_worker_costs_its_own_cohort_only_and_is_replaced(
    make_executor, train, cohort, forever, run_work
):
    executor = await make_executor(2)
    began: asyncio.Queue[str] = asyncio.Queue()
    doomed, neighbour = (
        asyncio.create_task(train(executor, cohort(forever(name)), lambda m: began.put_nowait(m.run_id)))
        for name in ("doomed", "neighbour")
    )
    assert {await began.get(), await began.get()} == {"doomed", "neighbour"}
    busy = executor._assignments["doomed"].workers[0].pid
    os.kill(busy, signal.SIGKILL)
    with pytest.raises(WorkerDied) as caught:
        await doomed
    assert caught.value.evidence.startswith("was killed by SIGKILL")
    assert not neighbour.done()
    again = await train(executor, cohort(run_work("again")))
    assert isinstance(again[-1], RunTrained)
    assert busy not in executor.worker_pids
    executor.stop_runs(["neighbour"])
    assert isinstance((await neighbour)[-1], RunStopped)


async def test_a_worker_killed_while_idle_costs_no_run(executor, train, cohort, run_work):
    os.kill(executor.worker_pids[0], signal.SIGKILL)
    await asyncio.sleep(0.1)
    assert isinstance((await train(executor, cohort(run_work())))[-1], RunTrained)


async def test_workers_ignore_the_signals_of_a_terminal(executor, train, cohort, run_work):
    pid = executor.worker_pids[0]
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    assert isinstance((await train(executor, cohort(run_work())))[-1], RunTrained)
    assert executor.worker_pids == [pid]


async def test_workers_come_after_serving_at_the_processor(make_executor):
    executor = await make_executor(1, nice=7)
    assert psutil.Process(executor.worker_pids[0]).nice() == min(19, os.nice(0) + 7)


async def test_workers_have_one_thread_for_arithmetic(executor):
    environment = psutil.Process(executor.worker_pids[0]).environ()
    assert environment["OMP_NUM_THREADS"] == environment["MKL_NUM_THREADS"] == "1"


async def test_an_abandoned_cohort_ends_its_worker(executor, train, cohort, forever, run_work):
    pid = executor.worker_pids[0]
    deliveries = executor.run(cohort(forever()))
    await anext(deliveries)
    await deliveries.aclose()
    assert isinstance((await train(executor, cohort(run_work())))[-1], RunTrained)
    assert not psutil.pid_exists(pid)


async def test_close_ends_all_workers_also_busy_ones(make_executor, train, cohort, forever):
    executor = await make_executor(2)
    task = asyncio.create_task(train(executor, cohort(forever())))
    await asyncio.sleep(0.1)
    pids = executor.worker_pids
    task.cancel()
    await executor.close()
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)


async def test_killing_a_worker_that_is_cancelled_leaves_no_process():
    worker = await WorkerProcess.start((), 0)
    killing = asyncio.create_task(worker.kill())
    await asyncio.sleep(0)
    killing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await killing
    assert not psutil.pid_exists(worker.pid)


async def test_large_rows_reach_the_worker_whole(executor, train, cohort, run_work):
    generator = np.random.default_rng(0)
    features = generator.normal(size=(500_000, 1)).astype(np.float32)
    rows = TrainingArrays(
        features=features, targets=3 * features, feature_columns=("x0",), target_columns=("y",)
    )
    messages = await train(executor, cohort(run_work(data=rows, epochs=3, every=1, lr=0.1)))
    assert messages[-1].parameters["linear.weight"].item() == pytest.approx(
        _full_batch_weight(features, 3, 0.1), rel=1e-4
    )


def _full_batch_weight(features, epochs, lr):
    torch.manual_seed(1)
    model = torch.nn.Linear(1, 1)
    x = torch.from_numpy(features)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(epochs):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), 3 * x).backward()
        optimizer.step()
    return model.weight.item()


async def test_the_rows_of_a_dataset_are_read_by_the_worker(executor, train, cohort, run_work, tmp_path):
    path = tmp_path / "rows.arrow"
    table = pa.table({"x0": [1.0, 2.0, 3.0], "y": [2.0, 4.0, 6.0]})
    with ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    file = DatasetFile(path=str(path), roles=ColumnRoles(features=("x0",), targets=("y",)))
    messages = ends(await train(executor, cohort(run_work("file", data=file), run_work("inline"))))
    for name, array in messages["inline"].parameters.items():
        assert array.tobytes() == messages["file"].parameters[name].tobytes()


async def test_a_dataset_that_is_gone_fails_its_own_run_only(executor, train, cohort, run_work, tmp_path):
    gone = DatasetFile(path=str(tmp_path / "gone.arrow"), roles=ColumnRoles(targets=("y",)))
    messages = await train(executor, cohort(run_work("gone", data=gone), run_work("good")))
    assert ends(messages)["gone"].failure.reason == "DATASET_NOT_FOUND"
    assert isinstance(ends(messages)["good"], RunTrained)


async def test_a_worker_that_cannot_start_is_reported_in_one_line(make_executor, monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import os; os._exit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WorkerStartError) as caught:
        await make_executor(2)
    assert str(caught.value) == "a worker process ended with exit code 3 while it started"


SERVER = """
import asyncio, sys
from epochd_server.executor.local import LocalExecutor

async def main():
    executor = LocalExecutor(1)
    await executor.start()
    print(executor.worker_pids[0], flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_workers_do_not_outlive_a_killed_server():
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(SERVER)], stdout=subprocess.PIPE) as server:
        worker = psutil.Process(int(server.stdout.readline()))
        server.kill()
    worker.wait(timeout=5)


async def test_a_run_that_waits_behind_long_ones_gets_a_spare_worker_that_goes_again(
    make_executor, train, cohort, forever, run_work, monkeypatch
):
    monkeypatch.setattr(local, "_PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(local, "_SPARE_SECONDS", 0.01)
    executor = await make_executor()
    began = asyncio.Event()
    long = asyncio.create_task(train(executor, cohort(forever()), lambda _: began.set()))
    await began.wait()
    usual = executor.worker_pids
    async with asyncio.timeout(60):
        messages = await train(executor, cohort(run_work("brief")))
        assert isinstance(messages[-1], RunTrained)
        while len(executor.worker_pids) > 1:  # noqa: ASYNC110 - a process's end sets no event
            await asyncio.sleep(0.01)
    assert executor.worker_pids == usual
    executor.stop_runs(["forever"])
    assert isinstance((await long)[-1], RunStopped)
    assert isinstance((await train(executor, cohort(run_work())))[-1], RunTrained)
