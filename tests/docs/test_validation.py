"""docs/validation.md: its blocks run one after the other, and print what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import epochd

PAGE = (Path(__file__).parents[2] / "docs" / "validation.md").read_text(encoding="utf-8")


def test_every_block_prints_what_stands_below_it(run_page):
    run_page("validation.md")


def test_every_metric_is_listed():
    table = PAGE.partition("## Metrics")[2].partition("## Stop early")[0]
    named = set(re.findall(r"`(\w+)`", table))
    between = {"recall_macro", "f1_macro", "precision_micro", "recall_micro"}  # precision_macro … f1_micro
    assert set(epochd.METRICS) - between <= named
