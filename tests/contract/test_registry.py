"""Labels, and aliases with their etags, canaries and history, on every database."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epochd_server.domain.commands import AliasCommand
from epochd_server.domain.errors import Code, EpochdError, InvalidInput, Reason
from epochd_server.domain.labels import LabelChange
from epochd_server.domain.models import Canary
from epochd_server.domain.resources import VersionReference
from epochd_server.domain.runs import RunState

NOW = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)


@pytest.fixture
async def models(storage, make):
    """The registry with three versions of ``m``."""
    for _ in range(3):
        await add(storage, make)
    return storage.models


async def add(storage, make, **changed):
    run = make.run(**({"model": "m"} | changed))
    await storage.runs.accept(run, make.queued(run))
    await make.succeed(storage.runs, run.run_id, 2, run.create_time, make.trained(run.run_id), 1.0)
    return run


def pointing(version, etag=None, canary=None) -> AliasCommand:
    return AliasCommand(model="m", alias="best", version=version, etag=etag, canary=canary)


class TestEtags:
    async def test_a_move_with_a_stale_etag_changes_nothing_and_tells_the_current_one(self, models):
        first = (await models.set_alias(pointing(1), NOW)).aliases["best"]
        second = (await models.set_alias(pointing(2, first.etag), NOW)).aliases["best"]
        with pytest.raises(EpochdError) as caught:
            await models.set_alias(pointing(3, first.etag), NOW)
        assert (caught.value.reason, caught.value.code) == (Reason.ETAG_MISMATCH, Code.ABORTED)
        assert caught.value.metadata == {"name": "models/m@best", "etag": second.etag}
        assert (await models.get_model("m")).aliases == {"best": second}

    async def test_absent_is_the_etag_of_an_alias_that_is_not_there(self, models):
        await models.set_alias(pointing(1, "absent"), NOW)
        with pytest.raises(EpochdError, match="was moved"):
            await models.set_alias(pointing(2, "absent"), NOW)

    async def test_a_deleted_alias_that_is_made_again_has_another_etag(self, models):
        first = (await models.set_alias(pointing(1), NOW)).aliases["best"]
        with pytest.raises(EpochdError, match="was moved"):
            await models.delete_alias("m", "best", NOW, "0-0")
        await models.delete_alias("m", "best", NOW, first.etag)
        again = (await models.set_alias(pointing(1), NOW)).aliases["best"]
        assert again.etag != first.etag

    async def test_of_many_who_read_the_same_etag_one_moves_the_alias(self, models):
        etag = (await models.set_alias(pointing(1), NOW)).aliases["best"].etag
        moves = [models.set_alias(pointing(2 + n % 2, etag), NOW) for n in range(8)]
        ends = await asyncio.gather(*moves, return_exceptions=True)
        refused = [end for end in ends if isinstance(end, EpochdError)]
        assert len(refused) == 7
        assert {error.reason for error in refused} == {Reason.ETAG_MISMATCH}

    async def test_pointing_where_it_points_is_no_move(self, models):
        first = await models.set_alias(pointing(1), NOW)
        assert await models.set_alias(pointing(1), NOW + timedelta(hours=1)) == first


class TestHistory:
    async def test_moves_are_listed_newest_first_with_canaries_and_deletions(self, models):
        canary = Canary(version=2, hundredths=1_000)
        await models.set_alias(pointing(1), NOW)
        await models.set_alias(pointing(1, canary=canary), NOW + timedelta(hours=1))
        await models.delete_alias("m", "best", NOW + timedelta(hours=2))
        moves = await models.list_alias_moves("m", "best", 9)
        assert [(move.move, move.version, move.canary) for move in moves] == [
            (3, None, None),
            (2, 1, canary),
            (1, 1, None),
        ]
        assert [(move.time - NOW) // timedelta(hours=1) for move in moves] == [2, 1, 0]
        assert await models.list_alias_moves("m", "best", 1, before=3) == moves[1:2]
        assert await models.list_alias_moves("m", "best", 9, before=1) == []

    async def test_an_alias_that_never_was_has_none(self, models):
        with pytest.raises(EpochdError) as caught:
            await models.list_alias_moves("m", "nobody", 9)
        assert caught.value.reason is Reason.ALIAS_NOT_FOUND

    async def test_goes_with_the_model(self, storage, models, make):
        await models.set_alias(pointing(1), NOW)
        await models.delete_model("m")
        await add(storage, make)
        with pytest.raises(EpochdError) as caught:
            await models.list_alias_moves("m", "best", 9)
        assert caught.value.reason is Reason.ALIAS_NOT_FOUND


class TestCanaries:
    async def test_a_version_found_by_an_alias_tells_its_canary(self, models):
        canary = Canary(version=3, hundredths=1)
        await models.set_alias(pointing(1, canary=canary), NOW)
        found = await models.get_version(VersionReference("m", alias="best"))
        assert (found.version, found.canary) == (1, canary)
        assert (await models.get_version(VersionReference("m", 1))).canary is None
        assert (await models.get_model("m")).aliases["best"].canary == canary

    async def test_a_canary_cannot_be_deleted_and_all_aliases_in_the_way_are_named(self, models):
        await models.set_alias(pointing(1, canary=Canary(version=3, hundredths=1)), NOW)
        await models.set_alias(AliasCommand(model="m", alias="a", version=3), NOW)
        with pytest.raises(EpochdError, match="@a, @best of models/m/versions/3") as caught:
            await models.delete_version("m", 3)
        assert caught.value.code is Code.FAILED_PRECONDITION

    async def test_must_be_there_and_suit_the_same_rows(self, storage, models, make):
        with pytest.raises(EpochdError) as caught:
            await models.set_alias(pointing(1, canary=Canary(version=9, hundredths=1)), NOW)
        assert caught.value.reason is Reason.VERSION_NOT_FOUND
        run = make.run(model="m")
        await storage.runs.accept(run, make.queued(run))
        await make.succeed(storage.runs, run.run_id, 2, NOW, make.fleet(run.run_id), 1.0)
        with pytest.raises(InvalidInput, match="key columns"):
            await models.set_alias(pointing(1, canary=Canary(version=4, hundredths=1)), NOW)


class TestLabels:
    async def test_a_run_hands_its_labels_to_its_version(self, storage, make):
        run = await add(storage, make, labels={"team": "blue"})
        assert (await storage.runs.get(run.run_id)).run.labels == {"team": "blue"}
        assert (await storage.models.get_version(VersionReference("m"))).labels == {"team": "blue"}
        assert (await storage.models.get_model("m")).labels == {}

    async def test_are_set_replaced_and_removed_on_each_resource_alone(self, storage, models, make):
        run = await add(storage, make, labels={"a": "1", "b": "2"})
        change = LabelChange(labels={"b": "3", "c": "4"}, removed=("a", "nobody"))
        expected = {"b": "3", "c": "4"}
        assert await models.change_labels("m", 4, change) == expected
        assert await models.change_labels("m", None, change) == expected
        changed = await storage.runs.change_labels(run.run_id, LabelChange(labels={}, removed=("a",)))
        assert (changed.run_id, changed.state, changed.labels) == (run.run_id, RunState.SUCCEEDED, {"b": "2"})
        assert (await models.get_version(VersionReference("m", 4))).labels == expected
        assert (await models.get_version(VersionReference("m", 3))).labels == {}
        assert (await models.get_model("m")).labels == expected

    async def test_lists_find_what_has_all_labels(self, storage, make):
        for team, stage in [("blue", "test"), ("red", "test"), ("blue", "live")]:
            await add(storage, make, labels={"team": team, "my.stage-1": stage})
        await storage.models.change_labels("m", None, LabelChange(labels={"kept": "yes"}))
        both = {"team": "blue", "my.stage-1": "live"}
        assert [v.version for v in await storage.models.list_versions("m", 9, labels={"team": "blue"})] == [
            3,
            1,
        ]
        assert [v.version for v in await storage.models.list_versions("m", 9, labels=both)] == [3]
        listed = await storage.runs.page(limit=9, before=None, states=(), model=None, labels=both)
        assert [run.labels for run in listed] == [both]
        assert [m.model for m in await storage.models.list_models(9, labels={"kept": "yes"})] == ["m"]
        assert await storage.models.list_models(9, labels={"kept": "no"}) == []

    async def test_of_what_is_not_there_are_refused(self, storage, models):
        change = LabelChange(labels={"a": "b"})
        with pytest.raises(EpochdError, match="No such run"):
            await storage.runs.change_labels("01J" + "0" * 23, change)
        for model, version in [("nobody", None), ("m", 9)]:
            with pytest.raises(EpochdError, match="No such model"):
                await models.change_labels(model, version, change)

    async def test_are_at_most_64(self, models):
        many = LabelChange(labels={f"k{n}": "" for n in range(60)})
        await models.change_labels("m", 1, many)
        with pytest.raises(InvalidInput, match="would have 65"):
            await models.change_labels("m", 1, LabelChange(labels={f"n{n}": "" for n in range(5)}))

    @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20))
    def test_any_text_is_kept_and_found(self, storage, make, value):
        async def keep() -> None:
            run = await add(storage, make, labels={"odd": value})
            listed = await storage.runs.page(
                limit=1, before=None, states=(), model=None, labels={"odd": value}
            )
            assert [found.run_id for found in listed] == [run.run_id]

        asyncio.run(keep())


async def test_a_version_tells_digest_and_size_of_its_weights(models):
    version = await models.get_version(VersionReference("m", 1))
    file = b"".join([chunk async for chunk in models.read_safetensors("m", 1)])
    assert (version.weights_digest, version.weights_bytes) == (hashlib.sha256(file).hexdigest(), len(file))
