"""docs/fleets.md: its blocks run one after the other, and print what the page says."""

from __future__ import annotations

import re
from pathlib import Path

from epochd_server.codec import fleets

PAGE = (Path(__file__).parents[2] / "docs" / "fleets.md").read_text(encoding="utf-8")


def test_every_block_prints_what_stands_below_it(run_page):
    run_page("fleets.md")


def test_every_reason_of_a_failed_member_is_listed():
    listed = set(re.findall(r"`([A-Z_]+)`", "\n".join(line for line in PAGE.splitlines() if line[:1] == "|")))
    assert listed == set(fleets._FAILURES)
