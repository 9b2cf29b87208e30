"""Runs that continue a version."""

from __future__ import annotations

from dataclasses import replace

from epochd_server.domain.lineage import Lineage, Parent, ParentKind
from epochd_server.domain.runs import Failure, RunState, Started


async def test_a_run_fails_when_the_version_that_it_continues_was_deleted(service, plan, watch_all):
    asked = plan()
    parent = Parent(name="models/gone/versions/1", kind=ParentKind.WARM_START)
    lineage = Lineage(dataset=None, data_digest="", parent=parent)
    accepted = await service.submit(replace(asked, started=replace(asked.started, lineage=lineage)), "me")
    events = await watch_all(service, accepted.run_id)
    end = events[-1].body
    assert isinstance(end, Failure)
    assert end.reason == "MODEL_NOT_FOUND"
    assert "continue" in end.message
    assert not any(isinstance(event.body, Started) for event in events)
    assert (await service.get(accepted.run_id)).state is RunState.FAILED


async def test_other_parents_are_nothing_to_begin_with(service, plan, watch_all):
    asked = plan()
    parent = Parent(name="models/gone/versions/1", kind=ParentKind.IMPORT)
    lineage = Lineage(dataset=None, data_digest="", parent=parent)
    accepted = await service.submit(replace(asked, started=replace(asked.started, lineage=lineage)), "me")
    await watch_all(service, accepted.run_id)
    assert (await service.get(accepted.run_id)).state is RunState.SUCCEEDED
