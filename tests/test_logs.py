"""What log lines look like, in a process of its own: logging is configured once and for all."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import logging, warnings, structlog
from epochd_server import logs

def add_place(logger, method, event):
    event["place"] = "here"
    return event

logs.configure({level!r}, {form!r}, add_place)
log = structlog.get_logger()
log.debug("detail")
log.info("news", number=3)
private = "a user's row"
try:
    1 / 0
except ZeroDivisionError as error:
    log.error("bug", exc_info=error)
logging.getLogger("library").info("chatter")
logging.getLogger("library").warning("trouble")
warnings.warn("deprecated")
"""


def logged(level: str, form: str) -> list[str]:
    program = PROGRAM.format(level=level, form=form)
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout == ""
    return finished.stderr.splitlines()


def test_json_has_one_object_a_line_also_from_libraries():
    lines = [json.loads(line) for line in logged("info", "json")]
    assert [line["event"] for line in lines[:3]] == ["news", "bug", "trouble"]
    assert "deprecated" in lines[3]["event"]
    assert all({"level", "timestamp", "place"} <= line.keys() for line in lines)
    assert lines[0]["number"] == 3
    assert lines[1]["exception"][0]["exc_type"] == "ZeroDivisionError"


@pytest.mark.parametrize("form", ["json", "pretty"])
def test_tracebacks_hold_no_local_variables(form: str):
    assert "a user's row" not in "".join(line for line in logged("info", form) if "private =" not in line)


def test_auto_is_json_where_nobody_watches():
    assert all(line.startswith("{") for line in logged("info", "auto"))


def test_pretty_is_for_people():
    text = "\n".join(logged("info", "pretty"))
    assert "news" in text
    assert "ZeroDivisionError" in text
    assert "{" not in text.splitlines()[0]


@pytest.mark.parametrize(("level", "shown"), [("debug", True), ("info", False)])
def test_what_is_less_severe_than_the_level_is_not_shown(level, shown):
    events = [json.loads(line)["event"] for line in logged(level, "json")]
    assert ("detail" in events) is shown
    assert "chatter" not in events
