"""`epochd train`."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable

import pytest

from epochd.cli.app import hoisted

LONG = ("--target", "cultivar", "--model", "64,tanh,out", "--epochs", "10000000", "--log-every", "10")


def test_with_a_request_id_it_trains_once(cli, points: str):
    arguments = ("train", points, "--target", "y", "--epochs", "3", "--request-id", "cli-once")
    first, again = (cli(*arguments, "--seed", "1") for _ in range(2))
    assert (first.code, again.code) == (0, 0)
    assert first.out.splitlines()[0] == again.out.splitlines()[0]
    refused = cli(*arguments, "--seed", "2")
    assert refused.code == 1
    assert "used before with a different request: seed differs" in refused.err


def test_in_a_pipe_every_event_is_a_line(cli, points: str):
    done = cli(
        "train",
        points,
        "--target",
        "y",
        "--init",
        "zeros",
        "--epochs",
        "2000",
        "--log-every",
        "100",
        "--name",
        "lines",
    )
    lines = done.out.splitlines()
    assert done.code == 0
    assert done.err == ""
    assert re.fullmatch(r"runs/\S+ queued for models/lines", lines[0])
    assert lines[1].startswith("Started on cpu: 2 parameters, 3 rows")
    assert lines[2].startswith("Epoch    0/1999  loss 18.666666  lr 0.01")
    assert [int(line[5:10]) for line in lines[2:-1]] == [*range(0, 2000, 100)]
    assert lines[-1].startswith("Succeeded: models/lines/versions/1 after 2,000 epochs in ")


def test_as_json_every_event_is_an_object(cli, points: str):
    done = cli(
        "train", points, "--target", "y", "--epochs", "3", "--seed", "7", "--name", "objects", "--json"
    )
    events = done.json_lines
    assert done.code == 0
    assert [event["event"] for event in events] == ["queued", "started", *["epochlog"] * 3, "succeeded"]
    assert [event["sequence"] for event in events] == list(range(1, 7))
    assert events[1]["seed"] == 7
    assert events[-1]["model_version"] == "models/objects/versions/1"


def test_the_table_may_come_from_standard_input(cli):
    done = cli("train", "-", "--target", "y", "--epochs", "1", stdin="x,y\n1,2\n2,4\n")
    assert done.code == 0
    assert "2 rows" in done.out


def test_columns_model_loss_and_optimizer_are_what_the_options_say(cli, wine: str):
    done = cli(
        "train", wine, "--target", "cultivar", "--features", "hue,flavanoids", "--loss", "cross-entropy",
        "--model", "8,tanh,out", "--optimizer", "adamw:weight_decay=0.1", "--lr", "0.05", "--batch-size", "32",
        "--dtype", "float64", "--epochs", "5", "--name", "cultivars", "--json",
    )  # fmt: skip
    started = done.json_lines[1]
    assert started["features"] == ["hue", "flavanoids"]
    assert started["targets"] == ["cultivar"]
    assert started["classes"] == [1, 2, 3]
    assert started["parameters"] == 2 * 8 + 8 + 8 * 3 + 3
    assert (started["batch_size"], started["dtype"]) == (32, "float64")
    assert done.json_lines[2]["lr"] == 0.05


def test_a_registered_module_is_trained_by_name(cli, points: str):
    done = cli(
        "train", points, "--target", "y", "--module", "LinearRegressionModel", "--epochs", "2", "--json"
    )
    assert done.code == 0
    assert done.json_lines[1]["parameters"] == 2


def test_detached_it_prints_the_run_and_leaves(cli, points: str):
    run = cli("train", points, "--target", "y", "--epochs", "2", "--detach", "--json").json["run"]
    assert cli("runs", "watch", run, "--json").json_lines[-1]["event"] == "succeeded"


def test_everything_wrong_is_said_at_once_with_its_field(cli, points: str):
    done = cli("train", points, "--target", "y", "--lr", "-1", "--epochs", "0", "--batch-size", "99")
    assert done.code == 1
    assert done.out == ""
    for field in ("gradient.optimizer.sgd.lr", "gradient.epochs", "gradient.batch_size"):
        assert field in done.err
    assert "Traceback" not in done.err


def test_a_failed_run_ends_with_1_and_says_why(cli, points: str):
    done = cli("train", points, "--target", "y", "--lr", "1e10", "--epochs", "500")
    assert done.code == 1
    assert "LOSS_NOT_FINITE" in done.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("--loss", "hinge"),
        ("--optimizer", "lion"),
        ("--model", "64,,1"),
        ("--init", "ones"),
        ("--epochs", "many"),
    ],
)
def test_wrong_usage_ends_with_2_before_a_server_is_asked(
    offline_cli, points: str, arguments: tuple[str, ...]
):
    done = offline_cli("train", points, "--target", "y", *arguments)
    assert done.code == 2
    assert arguments[0] in done.err


def test_without_a_server_it_says_how_to_start_one(offline_cli, points: str):
    done = offline_cli("train", points, "--target", "y")
    assert done.code == 1
    assert "No epochd server answers at 127.0.0.1:1" in done.err
    assert "epochd serve" in done.err


def test_ctrl_c_cancels_the_run_and_ends_with_130(
    cli, environment: dict[str, str], wine: str, command: list[str]
):
    training = [*command, "train", wine, *LONG, "--json"]
    with subprocess.Popen(training, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        seen = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 130
    assert '"event": "cancelled"' in rest.splitlines()[-1]
    run = re.search(r"runs/\w+", seen[0])
    assert run is not None
    assert cli("runs", "show", run[0], "--json").json["state"] == "CANCELLED"


def test_on_a_terminal_there_is_a_bar_and_then_the_curve(terminal: Callable, points: str):
    screen = terminal("train", points, "--target", "y", "--epochs", "2000", "--name", "screen")
    text = screen.read_all()
    assert screen.code() == 0
    assert "loss by epoch" in text
    assert "2,000 epochs in" in text
    assert "models/screen/versions/" in text


def test_on_a_terminal_ctrl_c_cancels_and_says_so(terminal: Callable, wine: str):
    screen = terminal("train", wine, *LONG)
    screen.read_until("10,000,000 epochs")
    screen.press("\x03")
    screen.read_until("Cancelled after")
    assert "the run is asked to cancel" in screen.text
    assert screen.code() == 130


def test_global_options_may_follow_the_command():
    assert hoisted(["train", "d.csv", "--server", "h:1", "--json", "--target", "y"]) == [
        "--server", "h:1", "--json", "train", "d.csv", "--target", "y",
    ]  # fmt: skip
    assert hoisted(["runs", "list", "--server=h:1"]) == ["--server=h:1", "runs", "list"]
    assert hoisted(["diff", "--", "--json"]) == ["diff", "--", "--json"]
    assert hoisted(["--json", "serve", "--server", "x", "--json"]) == [
        "--json",
        "serve",
        "--server",
        "x",
        "--json",
    ]
