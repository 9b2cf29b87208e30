"""docs/datasets.md: its blocks run one after the other, and print what the page says."""

from __future__ import annotations


def test_every_block_prints_what_stands_below_it(run_page):
    run_page("datasets.md")
