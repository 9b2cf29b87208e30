"""Registered modules and workers that go wrong, on a real server: only their own runs bear it, and the core is free."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import epochd
from epochd import events

pytestmark = pytest.mark.alone

SOURCE = '''
import ctypes, os, sys, time
import torch
from torch import nn

class Moody(nn.Module):
    """Does what ``mood`` says at the sight of a feature above 100, once it has seen it three times."""

    def __init__(self, mood):
        super().__init__()
        if mood == "refuse":
            sys.exit("no")
        if mood == "interrupt the constructor":
            raise KeyboardInterrupt
        self.linear, self.mood, self.calls = nn.Linear(1, 1), mood, 0

    def forward(self, x):
        self.calls += bool((x > 100).any())
        if self.calls > 3:
            if self.mood == "raise":
                raise ValueError("the password is hunter2")
            if self.mood == "exit":
                sys.exit(3)
            if self.mood == "interrupt":
                raise KeyboardInterrupt
            if self.mood == "die":
                os._exit(3)
            if self.mood == "crash":
                ctypes.string_at(0)
            if self.mood == "hoard":
                torch.empty(2**46)
            if self.mood == "hang":
                print("it hangs", file=sys.stderr, flush=True)
                time.sleep(3600)
            if self.mood == "spin":
                print("it hangs", file=sys.stderr, flush=True)
                while True:
                    x = torch.tanh(x)
        time.sleep(0.001)
        return self.linear(x)
'''

REASONS = {
    "raise": ("MODULE_FAILED", "raised an error"),
    "exit": ("MODULE_FAILED", "tried to end the process"),
    "die": ("WORKER_DIED", "ended with exit code 3"),
    "crash": ("WORKER_DIED", "was killed by SIGSEGV"),
    "hoard": ("OUT_OF_MEMORY", "not enough memory"),
}
"""What is told of a run by what its module does."""


@pytest.fixture
def server(start_server, tmp_path):
    source = tmp_path / "moody.py"
    source.write_text(SOURCE)
    return start_server("--modules", str(source), "--cancel-grace", "0.5")


@pytest.fixture
def client(server):
    with epochd.connect(server.address) as connected:
        yield connected


def train(client, mood, *, angry=False, **arguments):
    """Starts a run; all of one mood and length may share a cohort."""
    x = np.array([[1.0], [2.0], [150.0 if angry else 3.0]])
    given = {"epochs": 50, "log_every": 1, "seed": 1} | arguments
    model = epochd.Module("Moody", mood=mood)
    return client.train(x, 2 * x[:, 0], model=model, optimizer=epochd.SGD(lr=1e-6), **given)


def train_crowd(client, mood):
    """Three runs that share a cohort, since the only worker is taken when they come; the second one is angry."""
    blocker = train(client, "calm", epochs=1_000)
    next(blocker.logs())
    crowd = [train(client, mood, angry=number == 1) for number in range(3)]
    blocker.cancel()
    return crowd


def wait_until_it_hangs(run):
    """Its fourth epoch comes in no time; logs of those before are still with the worker."""
    next(event for event in run.events() if isinstance(event, events.Started))
    time.sleep(1.5)


def bits(run):
    return {name: array.tobytes() for name, array in run.result(timeout=100).parameters().items()}


def workers(server):
    children = psutil.Process(server.process.pid).children()
    return [child for child in children if "epochd_server.executor.worker" in child.cmdline()]


@pytest.mark.parametrize("mood", REASONS)
def test_a_module_that_goes_wrong_fails_its_own_run_and_its_neighbours_have_their_bits(client, mood):
    first, bad, third = train_crowd(client, mood)
    with pytest.raises(epochd.TrainingFailed) as caught:
        bad.result(timeout=100)
    reason, said = REASONS[mood]
    assert caught.value.reason == reason
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert bits(first) == bits(third) == bits(train(client, "calm"))


def test_a_module_that_hangs_is_ended_when_its_run_is_cancelled_and_costs_its_neighbours_nothing(
    client, server
):
    first, bad, third = train_crowd(client, "hang")
    wait_until_it_hangs(bad)
    began = time.monotonic()
    bad.cancel()
    assert bad.wait(timeout=60) == "CANCELLED"
    assert time.monotonic() - began < 30
    assert bits(first) == bits(third) == bits(train(client, "calm"))
    assert "does not stop" in server.log()


def test_a_neighbour_of_a_module_that_hangs_can_be_cancelled(client):
    first, bad, third = train_crowd(client, "hang")
    wait_until_it_hangs(bad)
    third.cancel()
    assert third.wait(timeout=60) == "CANCELLED"
    bad.cancel()
    assert bad.wait(timeout=60) == "CANCELLED"
    assert bits(first) == bits(train(client, "calm"))


def test_a_module_whose_constructor_ends_the_process_is_refused_and_the_server_goes_on(client):
    for mood in ("refuse", "interrupt the constructor"):
        with pytest.raises(epochd.InvalidArgument, match="cannot be constructed"):
            train(client, mood)
    assert train(client, "calm", epochs=3).wait(timeout=60) == "SUCCEEDED"


@pytest.mark.parametrize("mood", ["raise", "exit", "interrupt"])
def test_a_module_that_goes_wrong_in_predict_is_told_and_the_server_goes_on(client, mood):
    model = train(client, mood, epochs=3).result(timeout=60)
    assert model.predict([[1.0]]).shape == (1,)
    with pytest.raises(epochd.FailedPrecondition) as caught:
        model.predict([[200.0]] * 9)
    assert caught.value.reason == "MODULE_FAILED"
    assert "hunter2" not in str(caught.value)
    assert client.activation("relu", 1.0) == 1.0


@pytest.mark.parametrize("mood", ["hang", "spin"])
def test_a_module_that_never_returns_in_predict_blocks_nobody_and_no_stop(client, server, mood):
    calm = train(client, "calm", epochs=3).result(timeout=60)
    bad = train(client, mood, epochs=3).result(timeout=60)
    sgd = epochd.SGD(lr=0.01)
    plain = client.train([[1.0], [2.0]], [2.0, 4.0], model=epochd.Linear(), optimizer=sgd, epochs=3).result()
    for model in (calm, bad, plain):
        assert model.predict([[1.0]]).shape == (1,)
    with ThreadPoolExecutor(2) as threads:
        hung = threads.submit(predict_at_length, server, bad, 3.0)
        server.wait_for_log("it hangs")
        for model in (calm, bad, plain):
            with epochd.connect(server.address, timeout=1.0) as impatient:
                assert impatient.predict(model.name, [[1.0]]).shape == (1,)
        assert is_healthy(server)
        assert train(client, "calm", epochs=3).wait(timeout=60) == "SUCCEEDED"
        with pytest.raises(epochd.DeadlineExceeded):
            hung.result(timeout=30)
        hung = threads.submit(predict_at_length, server, bad, 60.0)
        until = time.monotonic() + 30
        while server.log().count("it hangs") < 2 and time.monotonic() < until:
            time.sleep(0.02)
        assert server.stop(20) == 0
        with pytest.raises(epochd.EpochdError):
            hung.result(timeout=30)


def predict_at_length(server, model, seconds):
    """Asks for what a bad model does not return from, for so long."""
    once = epochd.Retry(attempts=1)
    with epochd.connect(server.address, timeout=seconds, retry=once) as patient:
        patient.predict(model.name, [[200.0]] * 9)


def is_healthy(server):
    """Whether the server says so within a second."""
    with grpc.insecure_channel(server.address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        answer = check(health_pb2.HealthCheckRequest(), timeout=1, wait_for_ready=True)
    return answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_worker_killed_in_the_middle_of_a_crowd_costs_nobody_a_bit(client, server):
    crowd = [train(client, "calm", epochs=1_000, seed=seed) for seed in range(3)]
    next(crowd[0].logs())
    for worker in workers(server):
        os.kill(worker.pid, signal.SIGKILL)
    disturbed = [bits(run) for run in crowd]
    assert disturbed == [bits(train(client, "calm", epochs=1_000, seed=seed)) for seed in range(3)]
    assert any(isinstance(event, events.Warning) for event in crowd[0].events())


def test_a_worker_killed_in_the_middle_of_a_fleet_costs_no_member_a_bit(client, server):
    rng = np.random.default_rng(1)
    table = {"x": rng.normal(size=1_200), "y": rng.normal(size=1_200), "shop": np.arange(1_200) % 40}
    arguments = {
        "target": "y", "group_by": "shop", "model": epochd.Sequential(epochd.Linear(32), "tanh", epochd.Linear()),
        "optimizer": epochd.Adam(lr=0.01), "epochs": 4_000, "batch_size": 8, "seed": 1, "log_members": [7],
    }  # fmt: skip
    fleet = client.train(table, **arguments)
    next(log for log in fleet.logs() if isinstance(log, epochd.FleetProgress | epochd.MemberLog))
    for worker in workers(server):
        os.kill(worker.pid, signal.SIGKILL)
    disturbed = fleet.result(timeout=100).parameters()
    control = client.train(table, **arguments).result(timeout=100).parameters()
    assert {name: array.tobytes() for name, array in disturbed.items()} == {
        name: array.tobytes() for name, array in control.items()
    }
    epochs = [event.epoch for event in fleet.events() if isinstance(event, epochd.MemberLog)]
    assert epochs == sorted(set(epochs))
