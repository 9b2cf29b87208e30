"""What every ModelStore does with fleets, on every database."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from epochd_server.domain.commands import PromoteCommand
from epochd_server.domain.errors import EpochdError, InvalidInput, Reason
from epochd_server.domain.fleets import HeldOut, Keys, Members, Sweep
from epochd_server.domain.models import ModelVersion, Origin
from epochd_server.domain.once import AnsweredBefore, Once
from epochd_server.domain.resources import VersionReference
from epochd_server.domain.validation import Metric
from epochd_server.storage.member_columns import pack, unpack

NOW = datetime(2026, 7, 1, tzinfo=UTC)
SIZES = [5, 20_000]
"""In the database, and as artifacts."""


async def add_fleet(storage, make, members=5, **options):
    run = make.run(model="fleet")
    trained = make.fleet(run.run_id, members, **options)
    await storage.runs.accept(run, make.queued(run))
    event = await make.succeed(storage.runs, run.run_id, 2, run.create_time, trained, 1.0)
    return trained, event


def promotion(key=("city-00000", 1), *, model=None) -> PromoteCommand:
    return PromoteCommand(reference=VersionReference("fleet"), key=key, model=model)


def assert_same(found: Members, members: Members) -> None:
    assert found.keys.names == members.keys.names
    for one, other in zip(found.keys.columns, members.keys.columns, strict=True):
        assert one.dtype == other.dtype
        assert one.tolist() == other.tolist()
    for name in ("states", "rows", "epochs", "final_losses"):
        one, other = getattr(found, name), getattr(members, name)
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()
    assert found.reasons == members.reasons


class TestMembers:
    @pytest.mark.parametrize("size", SIZES)
    async def test_come_back_with_their_parameters_bit_for_bit(self, storage, make, size):
        trained, _ = await add_fleet(storage, make, size)
        assert_same(await storage.models.load_members("fleet", 1), trained.members)
        found = await storage.models.load_parameters("fleet", 1)
        assert {name: array.tobytes() for name, array in found.items()} == {
            name: array.tobytes() for name, array in trained.parameters.items()
        }

    async def test_are_counted_on_the_card_and_in_the_last_event(self, storage, make):
        trained, event = await add_fleet(storage, make)
        version = await storage.models.get_version(VersionReference("fleet"))
        assert version.card == trained.card
        assert (event.body.members, event.body.failed_members) == (5, 1)

    async def test_of_a_sweep_keep_what_was_swept(self, storage, make):
        sweep = Sweep(lr=(0.1, 0.2), seed=(1, 2, 3))
        trained, _ = await add_fleet(storage, make, 6, sweep=sweep)
        assert_same(await storage.models.load_members("fleet", 1), trained.members)
        assert (await storage.models.get_version(VersionReference("fleet"))).card.spec.sweep == sweep

    async def test_keep_what_was_measured_on_their_held_out_rows(self, storage, make):
        held_out = HeldOut(
            metrics=(Metric.R2, Metric.MAE),
            rows=np.arange(5),
            losses=np.array([0.5, 0.25, 1.0, 2.0, np.nan]),
            values=np.linspace(0, 1, 10).reshape(5, 2),
            best_epochs=np.array([3, -1, -1, 7, -1]),
        )
        await add_fleet(storage, make, 5, held_out=held_out)
        found = (await storage.models.load_members("fleet", 1)).held_out
        assert found.metrics == held_out.metrics
        for name in ("rows", "losses", "values", "best_epochs"):
            np.testing.assert_array_equal(getattr(found, name), getattr(held_out, name))

    @pytest.mark.parametrize("size", SIZES)
    async def test_are_exported_with_the_members_first(self, storage, make, size):
        trained, _ = await add_fleet(storage, make, size)
        chunks = [chunk async for chunk in storage.models.read_safetensors("fleet", 1)]
        found = safetensors.numpy.load(b"".join(chunks))
        assert found["linear.weight"].shape == (size, 1, 4)
        assert np.array_equal(found["linear.weight"], trained.parameters["linear.weight"])

    @pytest.mark.parametrize("damage", ["flip", "remove"])
    async def test_that_are_damaged_are_data_loss(self, storage, make, damage):
        await add_fleet(storage, make, 20_000)
        [path] = storage.folder.artifacts.rglob("*.members.arrow")
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.unlink()
        if damage == "flip":
            path.write_bytes(content)
        with pytest.raises(EpochdError) as caught:
            await storage.models.load_members("fleet", 1)
        assert caught.value.reason is Reason.ARTIFACT_CORRUPT
        assert caught.value.metadata["name"] == "models/fleet/versions/1"

    async def test_of_a_single_model_there_are_none(self, storage, make):
        run = make.run()
        await storage.runs.accept(run, make.queued(run))
        await make.succeed(storage.runs, run.run_id, 2, run.create_time, make.trained(run.run_id), 1.0)
        with pytest.raises(EpochdError) as caught:
            await storage.models.load_members("house-price", 1)
        assert caught.value.reason is Reason.ARTIFACT_CORRUPT

    @pytest.mark.parametrize("what", ["version", "model"])
    @pytest.mark.parametrize("size", SIZES)
    async def test_go_with_their_version(self, storage, make, size, what):
        await add_fleet(storage, make, size)
        await (
            storage.models.delete_version("fleet", 1)
            if what == "version"
            else storage.models.delete_model("fleet")
        )
        assert list(storage.folder.artifacts.rglob("*.*")) == []
        with pytest.raises(EpochdError) as caught:
            await storage.models.load_members("fleet", 1)
        assert caught.value.reason is Reason.MODEL_NOT_FOUND


class TestPromote:
    @pytest.mark.parametrize("size", SIZES)
    async def test_makes_a_version_of_the_member_alone(self, storage, make, size):
        trained, _ = await add_fleet(storage, make, size)
        version = await storage.models.promote(promotion(), NOW)
        assert (version.model, version.version, version.create_time) == ("fleet", 2, NOW)
        members = trained.members
        assert version.card == replace(
            trained.card,
            spec=replace(trained.card.spec, key_columns=()),
            members=0,
            failed_members=0,
            key_columns=(),
            rows=members.rows[1],
            epochs=members.epochs[1],
            final_loss=members.final_losses[1],
            origin=Origin(model="fleet", version=1, key=("city-00000", 1)),
        )
        assert version == await storage.models.get_version(VersionReference("fleet"))
        found = await storage.models.load_parameters("fleet", 2)
        assert {name: array.tolist() for name, array in found.items()} == {
            name: array[1].tolist() for name, array in trained.parameters.items()
        }

    async def test_takes_the_values_that_a_sweep_gave_the_member(self, storage, make):
        await add_fleet(storage, make, 4, sweep=Sweep(lr=(0.1, 0.2), seed=(3, 4)))
        spec = (await storage.models.promote(promotion((0.2, 3), model="best"), NOW)).card.spec
        assert (spec.fit.optimizer.lr, spec.seed, spec.sweep, spec.key_columns) == (0.2, 3, None, ())

    async def test_outlives_its_fleet(self, storage, make):
        await add_fleet(storage, make)
        version = await storage.models.promote(promotion(model="alone"), NOW)
        await storage.models.delete_model("fleet")
        assert version == await storage.models.get_version(VersionReference("alone"))

    async def test_may_be_asked_for_many_members_and_twice_for_one(self, storage, make):
        await add_fleet(storage, make)
        keys = [("city-00000", 0), ("city-00000", 1), ("city-00000", 1)]
        commands = [replace(promotion(key), reference=VersionReference("fleet", 1)) for key in keys]
        made = [await storage.models.promote(command, NOW) for command in commands]
        assert [version.version for version in made] == [2, 3, 4]

    async def test_repeated_by_two_servers_at_once_makes_one_version(self, open_at, make):
        """Also though the newest version is no fleet any more."""
        storages = [open_at("data")]
        if storages[0].models.is_shared:
            storages.append(open_at("other"))
        await add_fleet(storages[0], make)
        once = Once(make.asked("r-1"), lambda version: f"made {version.version}".encode())
        made = await asyncio.gather(
            *(storage.models.promote(promotion(), NOW, once) for storage in storages for _ in range(5)),
            return_exceptions=True,
        )
        assert [one.version for one in made if isinstance(one, ModelVersion)] == [2]
        before = [one.answer for one in made if isinstance(one, AnsweredBefore)]
        assert before == [b"made 2"] * (len(made) - 1)
        assert len(await storages[0].models.list_versions("fleet", 9)) == 2

    @pytest.mark.parametrize(
        ("key", "reason"),
        [
            (("city-00001", 1), Reason.MEMBER_FAILED),
            (("city-00001", 2), Reason.MEMBER_NOT_FOUND),
            (("city-00000",), Reason.MEMBER_NOT_FOUND),
        ],
    )
    async def test_of_whom_there_is_no_model_is_refused(self, storage, make, key, reason):
        await add_fleet(storage, make)
        with pytest.raises(EpochdError) as caught:
            await storage.models.promote(promotion(key), NOW)
        assert caught.value.reason is reason
        assert caught.value.metadata["name"] == "models/fleet/versions/1"

    async def test_of_a_single_model_is_refused(self, storage, make):
        await add_fleet(storage, make)
        await storage.models.promote(promotion(), NOW)
        with pytest.raises(InvalidInput) as caught:
            await storage.models.promote(promotion(), NOW)
        assert [violation.field for violation in caught.value.violations] == ["name"]

    async def test_is_told_to_those_who_remember_names(self, storage, make):
        await add_fleet(storage, make)
        told: list[str] = []
        storage.models.changes.subscribe(told.append)
        await storage.models.promote(promotion(model="alone"), NOW)
        assert told == ["alone"]


keys = st.lists(
    st.tuples(st.text(st.characters(codec="utf-8"), max_size=9), st.integers(-(2**63), 2**63 - 1)),
    min_size=1,
    max_size=20,
)


@settings(deadline=None)
@given(keys, st.lists(st.text(max_size=9), min_size=20, max_size=20), st.data())
def test_packing_keeps_any_members_and_is_deterministic(rows, reasons, data):
    count = len(rows)
    texts = np.empty(count, object)
    texts[:] = [text for text, _ in rows]
    failed = data.draw(st.sets(st.integers(0, count - 1)))
    members = Members(
        keys=Keys(("a\n", "ß"), (texts, np.array([number for _, number in rows], np.int64))),
        states=np.array([2 if n in failed else 1 for n in range(count)], np.uint8),
        rows=np.arange(count),
        epochs=np.arange(count) * 2**40,
        final_losses=np.resize([np.nan, np.inf, -0.0, 1.5], count),
        reasons={n: reasons[n] for n in failed},
    )
    packed = pack(members)
    assert_same(unpack(memoryview(packed)), members)
    assert pack(members) == packed
