"""A short chaos run with a fixed seed: nothing acknowledged is lost, nothing comes twice, and every bit is right."""

from __future__ import annotations

import pytest
from benchmarks.chaos.running import Options, run

pytestmark = pytest.mark.alone


@pytest.mark.timeout(600)
def test_kills_lose_nothing_repeat_nothing_and_change_no_bit():
    options = Options(seed=4, seconds=12.0, kills=3, clients=5)
    report = run(options)
    assert report.wrong == [], str(report)
    assert len(report.kills) == 3
    assert all(kill.survived for kill in report.kills)
    assert any(kill.of_server for kill in report.kills)
    assert report.findings.compared > 3
    assert report.findings.events_seen > 10
