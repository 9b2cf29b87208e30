"""What was acknowledged survives."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from epochd_server.domain.runs import RunState

SCRIPT = Path(__file__).with_name("writes_until_killed.py")


def write_until_killed(folder: str, url: str, lines: int) -> dict[str, list[str]]:
    """What was acknowledged of each run by a process that was killed after so many acknowledgements."""
    process = subprocess.Popen([sys.executable, str(SCRIPT), folder, url], stdout=subprocess.PIPE, text=True)
    said = [process.stdout.readline() for _ in range(lines)]
    process.kill()
    said += process.communicate()[0].splitlines()
    acknowledged = defaultdict(list)
    for line in said:
        run_id, what = line.split()
        acknowledged[run_id].append(what)
    return acknowledged


@pytest.mark.parametrize("lines", [1, 700, 2500])
async def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path, database_url, open_at, make, lines):
    """Also no request_id; and of what was under way nothing is half there: a version has a run and its weights."""
    acknowledged = write_until_killed(str(tmp_path / "data"), database_url, lines)
    storage = open_at("data")
    versions = await storage.models.list_versions("house-price", 10_000) if lines > 1 else []
    made = {version.card.run_id: version.version for version in versions}
    assert sorted(made.values()) == list(range(1, len(made) + 1))
    for number in made.values():
        parameters = await storage.models.load_parameters("house-price", number)
        assert parameters["linear.weight"].shape == (1, 4)
    for run_id, said in acknowledged.items():
        assert await storage.runs.find_made(make.asked(run_id)) == run_id
        run = (await storage.runs.get(run_id)).run
        events = await storage.runs.events(run_id, 0, 100)
        assert [event.sequence for event in events] == list(range(1, run.latest_sequence + 1))
        assert (run.state is RunState.SUCCEEDED) == (run_id in made)
        if said[-1] == "succeeded":
            assert run.version == made[run_id]
        else:
            assert run.latest_sequence >= int(said[-1])


async def test_closing_commits_what_was_submitted(open_at, make):
    storage = open_at("data")
    runs = [make.run() for _ in range(50)]
    waiting = [asyncio.ensure_future(storage.runs.accept(run, make.queued(run))) for run in runs]
    await asyncio.sleep(0)
    again = open_at("data")
    assert all(accepted.created for accepted in await asyncio.gather(*waiting))
    assert len(await again.claims.take(99)) == 50
