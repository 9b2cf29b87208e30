"""Live progress, and what Ctrl-C does."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

import pytest

import epochd
from epochd import events
from epochd.progress import ProgressBar, clock
from epochd.v1 import runs_pb2

NOW = datetime.now(UTC)


def logs(epochs=100):
    yield events.Queued(sequence=1, time=NOW, run="runs/r1", model="models/m")
    for epoch in range(epochs):
        yield events.EpochLog(
            sequence=epoch + 2, time=NOW, epoch=epoch, epochs=epochs, loss=0.5, lr=0.1, rows_per_second=2000
        )
    yield events.Succeeded(
        sequence=epochs + 2, time=NOW, model_version="models/m/versions/1", epochs=epochs, final_loss=0.5,
        training_seconds=1.0,
    )  # fmt: skip


def shown(*, live, stream=None):
    file = stream or io.StringIO()
    with ProgressBar("house-price", file=file, live=live) as bar:
        for event in logs():
            bar.show(event)
    return file.getvalue()


def test_a_terminal_gets_one_line_redrawn_with_epoch_loss_speed_and_eta():
    text = shown(live=True)
    lines = text.split("\n")
    assert len(lines) == 3, "the bar, the outcome, and nothing"
    last = lines[0].split("\r")[-1]
    assert last.startswith("house-price ━━━━━━━━━━━━━━━━━━━━━━━━ 100/100  loss 0.5  2.0k rows/s  ETA 0:00")
    assert lines[1].startswith("house-price: Succeeded: models/m/versions/1")


@pytest.mark.parametrize("live", [True, False])
def test_the_loss_on_held_out_rows_is_shown_beside_the_other(live):
    log = next(event for event in logs() if isinstance(event, events.EpochLog))
    file = io.StringIO()
    with ProgressBar("m", file=file, live=live) as bar:
        bar.show(replace(log, validation_loss=0.75, measured={"f1": 0.125}))
    assert "loss 0.5" in file.getvalue()
    assert "validation 0.75" in file.getvalue()


def test_elsewhere_lines_are_sparse_and_plain():
    lines = shown(live=False).splitlines()
    assert "\r" not in "".join(lines)
    assert len(lines) == 4, "queued, the first log, the last, the outcome"
    assert lines[2].startswith("house-price: Epoch 99/99")


def test_a_shorter_line_covers_a_longer_one():
    file = io.StringIO()
    with ProgressBar("m", file=file, live=True) as bar:
        for event in list(logs(2))[1:3]:
            bar.show(event)
            bar._shown_at = float("-inf")
    widths = [len(part.rstrip("\n")) for part in file.getvalue().split("\r")[1:]]
    assert widths[1] >= widths[0]


def test_what_is_no_terminal_is_seen_as_such():
    assert "\r" not in shown(live=None)


def test_a_notebook_gets_the_live_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert "\r" in shown(live=None)


def test_durations_look_like_a_clock():
    assert [clock(seconds) for seconds in (0, 9.6, 75, 3661)] == ["0:00", "0:10", "1:15", "1:01:01"]


def test_training_with_progress_shows_it_and_waits_for_the_end(call, fake, steps, capfd, train_arguments):
    @steps
    def use(client):
        run = yield client.train([[1.0]], [2.0], progress=True, **train_arguments)
        asked = fake.does.count("GetRun")
        return (yield run.state), asked

    state, asked = call(use)
    assert state is epochd.State.SUCCEEDED
    assert asked == 0
    assert "house-price: Succeeded: models/house-price/versions/3" in capfd.readouterr().err


SCRIPT = """
import sys, epochd
with epochd.connect(sys.argv[1]) as client:
    run = client.train([[1.0]], [2.0], model=epochd.Linear(), optimizer=epochd.SGD(lr=0.1), epochs=5,
                       progress=sys.argv[2] == "progress")
    print("waiting", flush=True)
    try:
        run.result()
    except epochd.TrainingCancelled as error:
        print("cancelled", error.epochs, flush=True)
"""


@contextmanager
def waiting_client(fake, mode):
    """A process that waits for a run, to be interrupted by the test."""
    fake.does.hold.clear()
    fake.does.break_after = [3]  # so that a watch tells when the client has begun to wait
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, fake.address, mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert fake.does.watched.wait(60)
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("mode", ["result", "progress"])
def test_ctrl_c_while_waiting_cancels_the_run_and_waits_for_its_end(fake, mode):
    with waiting_client(fake, mode) as process:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert "cancelled 3" in out, err
    assert "Cancelling runs/r1" in err
    assert process.returncode == 0
    assert fake.does.count("CancelRun") == 1


def test_a_second_ctrl_c_leaves_at_once(fake):
    def cancel(request, context):
        return runs_pb2.CancelRunResponse(run=fake.does._run(request.name))  # and the run goes on regardless

    fake.does.CancelRun = cancel
    fake.restart()
    with waiting_client(fake, "result") as process:
        process.send_signal(signal.SIGINT)
        while "Cancelling" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in err
