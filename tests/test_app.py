"""A server's life as a process: start, refusals to start, graceful stop, crash and resume."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import grpc
import grpc.aio
import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from epochd.v1 import run_pb2, runs_pb2, runs_pb2_grpc, spec_pb2, tensor_pb2, trainer_pb2, trainer_pb2_grpc

LONG = 5_000
"""Epochs that take some seconds."""

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def to_tensor(values) -> tensor_pb2.Tensor:
    array = np.asarray(values, "float32")
    return tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=array.shape, data=array.tobytes())


def request(epochs: int, rows: int = 4_000) -> trainer_pb2.TrainRequest:
    """Mini-batches of 8 by Adam: a thousand epochs of 4,000 rows take seconds."""
    x = np.random.default_rng(0).normal(size=(rows, 8))
    pair = spec_pb2.TensorData(features=to_tensor(x), targets=to_tensor(x.sum(axis=1)))
    adam = spec_pb2.Optimizer(adam=spec_pb2.Adam())
    return trainer_pb2.TrainRequest(
        data=spec_pb2.TrainingData(tensors=pair),
        model=spec_pb2.ModelSpec(linear=spec_pb2.LinearSpec()),
        loss=spec_pb2.Loss(mse=spec_pb2.MseLoss()),
        gradient=spec_pb2.GradientFit(optimizer=adam, epochs=epochs, batch_size=8),
        logging=spec_pb2.Logging(every=10),
        seed=1,
    )


def run_to_end(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Starts a server that cannot start."""
    return subprocess.run(
        [sys.executable, "-m", "epochd_server", *flags],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
        check=False,
    )


def one_line(finished: subprocess.CompletedProcess[str]) -> str:
    """What a server that did not start said: one line for its operator, nothing on standard output."""
    assert finished.stdout == ""
    lines = finished.stderr.strip().splitlines()
    assert len(lines) == 1, finished.stderr
    assert lines[0].startswith("epochd: ")
    return lines[0]


async def read_rest(call, events: list[run_pb2.Event]) -> grpc.StatusCode:
    """Reads a stream to its end, adding to ``events``, and returns the code that it ended with."""
    try:
        while (message := await call.read()) is not grpc.aio.EOF:
            events += message.events
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def health(address: str, service: str = "") -> int:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


async def test_once_it_says_so_it_serves_and_logs_json_where_nobody_watches(start_server):
    server = start_server()
    assert re.fullmatch(r"127\.0\.0\.1:\d+", server.address)
    assert await health(server.address) == SERVING
    assert await asyncio.to_thread(server.stop) == 0
    events = [json.loads(line)["event"] for line in server.log().splitlines()]
    assert events == ["serving", "stopping", "stopped"]


def test_a_port_that_is_taken_is_told_in_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        finished = run_to_end("--listen", address, "--data-dir", str(tmp_path / "data"))
    assert finished.returncode == 1
    assert one_line(finished) == f"epochd: cannot listen on {address}: Address already in use"


def test_a_port_of_another_server_is_taken_too(server, tmp_path):
    finished = run_to_end("--listen", server.address, "--data-dir", str(tmp_path / "data"))
    assert finished.returncode == 1
    assert server.address in one_line(finished)


def test_a_host_that_does_not_exist_is_told_in_one_line(tmp_path):
    finished = run_to_end("--listen", "nowhere.invalid:0", "--data-dir", str(tmp_path / "data"))
    assert finished.returncode == 1
    assert "nowhere.invalid:0" in one_line(finished)


def test_a_data_folder_of_a_live_server_is_told_in_one_line(server):
    finished = run_to_end("--listen", "127.0.0.1:0", "--data-dir", str(server.data_dir))
    assert finished.returncode == 1
    line = one_line(finished)
    assert str(server.data_dir) in line
    assert str(server.process.pid) in line


def test_a_data_folder_that_cannot_be_made_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    finished = run_to_end("--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "file" / "data"))
    assert finished.returncode == 1
    assert "cannot be written to" in one_line(finished)


@pytest.mark.parametrize(
    "url", ["nonsense", "mysql://host/db", "postgresql://127.0.0.1:1/nobody", "sqlite:////nowhere/at/all.db"]
)
def test_a_database_that_cannot_be_used_is_told_in_one_line(tmp_path, url):
    finished = run_to_end(
        "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "data"), "--database-url", url
    )
    assert finished.returncode == 1
    assert "database" in one_line(finished)


def test_a_module_that_cannot_be_loaded_is_told_in_one_line(tmp_path):
    flags = ("--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "data"))
    finished = run_to_end(*flags, "--modules", str(tmp_path / "nobody.py"), "--workers", "1")
    assert finished.returncode == 1
    assert "nobody.py" in one_line(finished)


@pytest.mark.parametrize(
    ("flags", "named"), [(("--workers", "0"), "--workers"), (("--bogus",), "--bogus"), (("x",), "x")]
)
def test_settings_that_make_no_sense_are_told_in_one_line(flags, named):
    finished = run_to_end(*flags)
    assert finished.returncode == 2
    assert named in one_line(finished)


def test_help_explains_the_flags():
    finished = run_to_end("--help")
    assert finished.returncode == 0
    assert "--data-dir" in finished.stdout


def test_variables_configure_it_too(tmp_path):
    finished = run_to_end(EPOCHD_LISTEN="nonsense")
    assert "--listen (or EPOCHD_LISTEN)" in one_line(finished)


async def test_a_stopping_server_refuses_new_work_finishes_what_runs_and_exits_with_zero(start_server):
    server = start_server("--grace", "60")
    async with grpc.aio.insecure_channel(server.address) as channel:
        trainer, runs = trainer_pb2_grpc.TrainerStub(channel), runs_pb2_grpc.RunsStub(channel)
        call = trainer.Train(request(epochs=LONG))
        events = []
        while not events or events[-1].WhichOneof("kind") != "epoch_log":
            events += (await call.read()).events
        run = events[0].queued.run
        server.signal()
        server.wait_for_log('"stopping"')
        assert (await runs.GetRun(runs_pb2.GetRunRequest(name=run))).run.state == run_pb2.RUN_STATE_RUNNING
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service="epochd.v1.Trainer"))
        assert answer.status == NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await trainer.Train(request(epochs=1)).read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await read_rest(call, events) is grpc.StatusCode.OK
    assert events[-1].WhichOneof("kind") == "succeeded"
    assert await asyncio.to_thread(server.process.wait, 30) == 0


async def test_what_is_not_finished_in_the_grace_is_resumed_by_the_next_start(start_server, tmp_path):
    server = start_server("--grace", "0.2")
    async with grpc.aio.insecure_channel(server.address) as channel:
        call = trainer_pb2_grpc.TrainerStub(channel).Train(request(epochs=LONG))
        events = list((await call.read()).events)
        while events[-1].WhichOneof("kind") != "epoch_log":
            events += (await call.read()).events
        run = events[0].queued.run
        server.signal()
        assert await read_rest(call, events) is grpc.StatusCode.UNAVAILABLE
    assert await asyncio.to_thread(server.process.wait, 30) == 0
    assert events[-1].WhichOneof("kind") == "epoch_log"
    resumed = start_server(data_dir=server.data_dir)
    async with grpc.aio.insecure_channel(resumed.address) as channel:
        watch = runs_pb2.WatchRunRequest(run=run, after_sequence=events[-1].sequence)
        async for message in runs_pb2_grpc.RunsStub(channel).WatchRun(watch):
            events += message.events
    assert events[-1].WhichOneof("kind") == "succeeded"
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    epochs = [event.epoch_log.epoch for event in events if event.WhichOneof("kind") == "epoch_log"]
    assert epochs == [*range(0, LONG, 10)]


async def test_a_crash_loses_nothing_that_was_acknowledged(start_server):
    server = start_server()
    async with grpc.aio.insecure_channel(server.address) as channel:
        call = trainer_pb2_grpc.TrainerStub(channel).Train(request(epochs=LONG))
        events = list((await call.read()).events)
        while len(events) < 10:
            events += (await call.read()).events
        server.kill()
    again = start_server(data_dir=server.data_dir)
    async with grpc.aio.insecure_channel(again.address) as channel:
        stream = runs_pb2_grpc.RunsStub(channel).WatchRun(runs_pb2.WatchRunRequest(run=events[0].queued.run))
        replayed = [event async for message in stream for event in message.events]
    assert replayed[: len(events)] == events
    assert replayed[-1].WhichOneof("kind") == "succeeded"


async def test_a_second_signal_ends_it_at_once(start_server):
    server = start_server("--grace", "60")
    async with grpc.aio.insecure_channel(server.address) as channel:
        call = trainer_pb2_grpc.TrainerStub(channel).Train(request(epochs=10_000_000))
        events = list((await call.read()).events)
        while events[-1].WhichOneof("kind") != "epoch_log":
            events += (await call.read()).events
        server.signal()
        server.wait_for_log('"stopping"')
        began = time.monotonic()
        server.signal(signal.SIGINT)
        code = await asyncio.to_thread(server.process.wait, 20)
    assert code == 128 + signal.SIGINT
    assert time.monotonic() - began < 10


def test_a_signal_during_the_start_stops_it_without_a_trace(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "epochd_server", "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "d")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not psutil.Process(process.pid).children():
        time.sleep(0.01)
    process.terminate()
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "", "")


def test_a_stopped_server_leaves_no_process_behind(start_server):
    server = start_server()
    children = psutil.Process(server.process.pid).children(recursive=True)
    assert children
    server.stop()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def test_a_killed_server_leaves_no_process_behind(start_server):
    server = start_server()
    children = psutil.Process(server.process.pid).children(recursive=True)
    server.kill()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
