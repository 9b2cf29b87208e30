"""What names mean is remembered no longer than it holds."""

from __future__ import annotations

import asyncio

import pytest

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.resources import VersionReference
from epochd_server.serving.names import VersionNames

NEWEST = VersionReference("m")


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class GatedSource:
    """A registry whose answers can be held back or fail; counts lookups."""

    def __init__(self, models) -> None:
        self._models = models
        self.gate = asyncio.Event()
        self.gate.set()
        self.has_read = asyncio.Event()
        self.error: EpochdError | None = None
        self.lookups = 0

    async def get_version(self, reference):
        self.lookups += 1
        if self.error is not None:
            raise self.error
        version = await self._models.get_version(reference)
        self.has_read.set()
        await self.gate.wait()
        return version


@pytest.fixture
async def source(storage, registry):
    await registry.add([1.0])
    return GatedSource(storage.models)


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_a_meaning_holds_until_it_is_due(source, clock):
    names = VersionNames(source, recheck_s=1.0, clock=clock)
    assert names.known(NEWEST) is None
    version = await names.look_up(NEWEST)
    clock.now = 0.99
    assert names.known(NEWEST) is version
    clock.now = 1.0
    assert names.known(NEWEST) is None


async def test_another_servers_change_is_seen_when_it_is_due(source, clock, registry):
    names = VersionNames(source, recheck_s=1.0, clock=clock)
    await names.look_up(NEWEST)
    await registry.add([2.0])
    clock.now = 1.0
    assert (await names.look_up(NEWEST)).version == 2


async def test_without_other_servers_a_meaning_holds_until_it_is_forgotten(source, clock):
    names = VersionNames(source, recheck_s=None, clock=clock)
    version = await names.look_up(NEWEST)
    clock.now = 1e9
    assert names.known(NEWEST) is version
    names.forget("n")
    assert names.known(NEWEST) is version
    names.forget("m")
    assert names.known(NEWEST) is None


async def test_a_change_during_a_lookup_makes_its_answer_too_old_to_keep(source, clock, registry):
    names = VersionNames(source, recheck_s=None, clock=clock)
    source.gate.clear()
    early = asyncio.ensure_future(names.look_up(NEWEST))
    await source.has_read.wait()
    await registry.add([2.0])
    names.forget("m")
    late = asyncio.ensure_future(names.look_up(NEWEST))
    await asyncio.sleep(0)
    source.gate.set()
    assert (await early).version == 1
    assert (await late).version == 2
    assert names.known(NEWEST).version == 2


async def test_while_the_database_is_away_what_is_remembered_is_used(source, clock):
    names = VersionNames(source, recheck_s=1.0, clock=clock)
    version = await names.look_up(NEWEST)
    clock.now = 1.0
    source.error = EpochdError(Reason.STORAGE_UNAVAILABLE)
    assert await names.look_up(NEWEST) is version
    assert names.known(NEWEST) is version
    clock.now = 2.0
    with pytest.raises(EpochdError):
        await names.look_up(VersionReference("m", version=1))
    source.error = None
    assert await names.look_up(NEWEST) == version


async def test_while_the_database_is_slow_what_is_remembered_is_used(source, clock):
    names = VersionNames(source, recheck_s=1.0, clock=clock)
    version = await names.look_up(NEWEST)
    clock.now = 1.0
    source.gate.clear()
    assert await names.look_up(NEWEST) is version
    source.gate.set()


async def test_a_deleted_version_is_not_remembered(source, clock, storage):
    names = VersionNames(source, recheck_s=1.0, clock=clock)
    await names.look_up(NEWEST)
    await storage.models.delete_model("m")
    clock.now = 1.0
    with pytest.raises(EpochdError) as caught:
        await names.look_up(NEWEST)
    assert caught.value.reason is Reason.MODEL_NOT_FOUND
    assert names.known(NEWEST) is None


async def test_one_who_leaves_does_not_disturb_the_others(source, clock):
    names = VersionNames(source, recheck_s=None, clock=clock)
    source.gate.clear()
    waiting = [asyncio.ensure_future(names.look_up(NEWEST)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    source.gate.set()
    assert [version.version for version in await asyncio.gather(*waiting[1:])] == [1, 1]
    assert source.lookups == 1
