"""Which servers of a folder have ended for certain."""

from __future__ import annotations

import subprocess
import sys

from epochd_server.storage.presence import Presence

LIVE = """
import pathlib, sys, time
from epochd_server.storage.presence import Presence
print(Presence(pathlib.Path(sys.argv[1])).server, flush=True)
time.sleep(60)
"""


def test_a_living_process_is_not_gone_and_a_killed_one_is(tmp_path):
    presence = Presence(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", LIVE, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    other = process.stdout.readline().strip()
    assert presence.gone() == []
    process.kill()
    process.communicate()
    assert presence.gone() == [other]
    presence.forget([other])
    assert presence.gone() == []
    presence.close()


def test_a_server_that_let_go_is_gone_and_names_are_never_the_same(tmp_path):
    first = Presence(tmp_path)
    first.close()
    second = Presence(tmp_path)
    assert second.gone() == [first.server]
    assert first.server != second.server
    second.close()


def test_nothing_is_said_of_servers_on_other_machines(tmp_path):
    (tmp_path / "another-kernel.0123").touch()
    presence = Presence(tmp_path)
    assert presence.gone() == []
    presence.forget(["0123", "unknown"])
    assert (tmp_path / "another-kernel.0123").exists()
    presence.close()
