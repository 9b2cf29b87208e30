"""docs/runs.md: its block runs, and prints what the page says."""

from __future__ import annotations

from collections.abc import Callable


def test_the_page_runs_and_prints_what_it_says(run_page: Callable[[str], None]) -> None:
    run_page("runs.md")
