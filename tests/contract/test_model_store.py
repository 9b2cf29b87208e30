"""What every ModelStore does, on every database."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from epochd_server.domain.commands import AliasCommand
from epochd_server.domain.errors import Code, EpochdError, Reason
from epochd_server.domain.resources import VersionReference
from epochd_server.storage import Storage
from epochd_server.storage.weights import pack, unpack

NOW = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)


def versions_of(model) -> dict[str, int]:
    return {name: alias.version for name, alias in model.aliases.items()}


async def add_version(storage: Storage, make, model="house-price", parameters=None):
    run = make.run(model=model)
    await storage.runs.accept(run, make.queued(run))
    event = await make.succeed(
        storage.runs, run.run_id, 2, run.create_time, make.trained(run.run_id, parameters), 1.0
    )
    return run, event.body.version


def large(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"0.weight": rng.normal(size=(512, 600)).astype(np.float32), "0.bias": np.zeros(512, np.float32)}


def reason_of(caught) -> tuple[Reason, str]:
    return caught.value.reason, caught.value.metadata["name"]


class TestGetVersion:
    async def test_a_version_says_what_it_was_made_of(self, storage, make):
        run, _ = await add_version(storage, make)
        version = await storage.models.get_version(VersionReference("house-price", version=1))
        assert (version.model, version.version) == ("house-price", 1)
        assert version.create_time == run.create_time
        assert version.card == make.trained(run.run_id).card

    async def test_a_bare_name_means_the_newest(self, storage, make):
        for _ in range(11):
            await add_version(storage, make)
        version = await storage.models.get_version(VersionReference("house-price"))
        assert version.version == 11

    async def test_an_alias_means_the_version_it_points_at(self, storage, make):
        for _ in range(3):
            await add_version(storage, make)
        await storage.models.set_alias(AliasCommand(model="house-price", alias="champion", version=2), NOW)
        version = await storage.models.get_version(VersionReference("house-price", alias="champion"))
        assert version.version == 2

    @pytest.mark.parametrize(
        ("reference", "expected"),
        [
            (VersionReference("nobody"), (Reason.MODEL_NOT_FOUND, "models/nobody")),
            (VersionReference("nobody", version=1), (Reason.MODEL_NOT_FOUND, "models/nobody")),
            (VersionReference("nobody", alias="a"), (Reason.MODEL_NOT_FOUND, "models/nobody")),
            (
                VersionReference("house-price", version=9),
                (Reason.VERSION_NOT_FOUND, "models/house-price/versions/9"),
            ),
            (VersionReference("house-price", alias="a"), (Reason.ALIAS_NOT_FOUND, "models/house-price@a")),
        ],
    )
    async def test_what_is_missing_is_named(self, storage, make, reference, expected):
        await add_version(storage, make)
        with pytest.raises(EpochdError) as caught:
            await storage.models.get_version(reference)
        assert reason_of(caught) == expected


class TestWeights:
    @pytest.mark.parametrize("size", ["small", "large"])
    async def test_come_back_bit_for_bit_in_their_order(self, storage, make, size):
        parameters = (
            large()
            if size == "large"
            else {"2.weight": np.array([[np.nan, -0.0]], np.float64), "0.bias": np.float32([np.inf])}
        )
        await add_version(storage, make, parameters=parameters)
        found = await storage.models.load_parameters("house-price", 1)
        assert list(found) == list(parameters)
        for name, value in parameters.items():
            assert found[name].dtype == value.dtype
            assert found[name].tobytes() == value.tobytes()
            assert found[name].shape == value.shape

    @pytest.mark.parametrize("size", ["small", "large"])
    async def test_are_exported_as_a_safetensors_file(self, storage, make, size):
        parameters = large() if size == "large" else {"linear.bias": np.float32([1.5])}
        await add_version(storage, make, parameters=parameters)
        chunks = [chunk async for chunk in storage.models.read_safetensors("house-price", 1)]
        assert all(0 < len(chunk) <= 1 << 20 for chunk in chunks)
        found = safetensors.numpy.load(b"".join(chunks))
        assert all(np.array_equal(found[name], parameters[name]) for name in parameters)

    async def test_of_a_missing_version_are_refused(self, storage, make):
        await add_version(storage, make)
        with pytest.raises(EpochdError) as caught:
            await storage.models.load_parameters("house-price", 2)
        assert reason_of(caught) == (Reason.VERSION_NOT_FOUND, "models/house-price/versions/2")

    @pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
    async def test_damage_is_data_loss_naming_the_version_and_others_are_served(self, storage, make, damage):
        await add_version(storage, make, parameters=large(1))
        await add_version(storage, make, parameters=large(2))
        first, _ = sorted(storage.folder.artifacts.rglob("*.safetensors"))
        content = bytearray(first.read_bytes())
        content[len(content) // 2] ^= 1
        if damage == "remove":
            first.unlink()
        else:
            first.write_bytes(content if damage == "flip" else content[:-1])
        with pytest.raises(EpochdError) as caught:
            await storage.models.load_parameters("house-price", 1)
        assert caught.value.code is Code.DATA_LOSS
        assert reason_of(caught) == (Reason.ARTIFACT_CORRUPT, "models/house-price/versions/1")
        with pytest.raises(EpochdError) as caught:
            [chunk async for chunk in storage.models.read_safetensors("house-price", 1)]
        assert caught.value.reason is Reason.ARTIFACT_CORRUPT
        await storage.models.load_parameters("house-price", 2)

    async def test_large_ones_are_named_by_their_digest(self, storage, make):
        await add_version(storage, make, parameters=large())
        [path] = storage.folder.artifacts.rglob("*.safetensors")
        assert hashlib.sha256(path.read_bytes()).hexdigest() in path.name


class TestModels:
    async def test_a_model_has_its_newest_version_and_aliases(self, storage, make):
        runs = [(await add_version(storage, make))[0] for _ in range(2)]
        await storage.models.set_alias(AliasCommand(model="house-price", alias="b", version=1), NOW)
        model = await storage.models.set_alias(AliasCommand(model="house-price", alias="a", version=2), NOW)
        assert model == await storage.models.get_model("house-price")
        assert (model.latest_version, versions_of(model)) == (2, {"a": 2, "b": 1})
        assert (model.create_time, model.update_time) == (runs[0].create_time, runs[1].create_time)

    async def test_are_listed_by_name(self, storage, make):
        for name in ["b", "a-1", "a", "c", "a1"]:
            await add_version(storage, make, model=name)
        first = await storage.models.list_models(2)
        rest = await storage.models.list_models(9, after=first[-1].model)
        assert [model.model for model in first + rest] == ["a", "a-1", "a1", "b", "c"]

    async def test_versions_are_listed_newest_first(self, storage, make):
        for _ in range(5):
            await add_version(storage, make)
        first = await storage.models.list_versions("house-price", 2)
        rest = await storage.models.list_versions("house-price", 9, before=first[-1].version)
        assert [version.version for version in first + rest] == [5, 4, 3, 2, 1]

    async def test_versions_of_a_missing_model_are_refused(self, storage):
        with pytest.raises(EpochdError) as caught:
            await storage.models.list_versions("nobody", 9)
        assert reason_of(caught) == (Reason.MODEL_NOT_FOUND, "models/nobody")


class TestAliases:
    async def test_can_be_moved_and_deleted(self, storage, make):
        for _ in range(2):
            await add_version(storage, make)
        await storage.models.set_alias(AliasCommand(model="house-price", alias="champion", version=1), NOW)
        command = AliasCommand(model="house-price", alias="champion", version=2)
        assert versions_of(await storage.models.set_alias(command, NOW)) == {"champion": 2}
        await storage.models.delete_alias("house-price", "champion", NOW)
        assert (await storage.models.get_model("house-price")).aliases == {}

    async def test_point_only_at_what_is_there(self, storage, make):
        await add_version(storage, make)
        with pytest.raises(EpochdError) as caught:
            await storage.models.set_alias(
                AliasCommand(model="house-price", alias="champion", version=2), NOW
            )
        assert reason_of(caught) == (Reason.VERSION_NOT_FOUND, "models/house-price/versions/2")
        with pytest.raises(EpochdError) as caught:
            await storage.models.set_alias(AliasCommand(model="nobody", alias="champion", version=1), NOW)
        assert reason_of(caught) == (Reason.MODEL_NOT_FOUND, "models/nobody")

    async def test_deleting_a_missing_one_names_it(self, storage, make):
        await add_version(storage, make)
        with pytest.raises(EpochdError) as caught:
            await storage.models.delete_alias("house-price", "champion", NOW)
        assert reason_of(caught) == (Reason.ALIAS_NOT_FOUND, "models/house-price@champion")


class TestDelete:
    async def test_a_version_an_alias_points_at_stays(self, storage, make):
        await add_version(storage, make)
        await storage.models.set_alias(AliasCommand(model="house-price", alias="champion", version=1), NOW)
        with pytest.raises(EpochdError) as caught:
            await storage.models.delete_version("house-price", 1)
        assert reason_of(caught) == (Reason.ALIAS_IN_USE, "models/house-price/versions/1")
        assert caught.value.metadata["alias"] == "champion"
        await storage.models.load_parameters("house-price", 1)

    async def test_a_version_goes_with_its_weights_and_its_number_is_not_given_again(self, storage, make):
        for _ in range(2):
            await add_version(storage, make, parameters=large())
        await storage.models.delete_version("house-price", 2)
        assert len(list(storage.folder.artifacts.rglob("*.safetensors"))) == 1
        assert (await storage.models.get_model("house-price")).latest_version == 1
        assert (await add_version(storage, make))[1] == 3

    async def test_a_model_without_versions_is_not_there_but_counts_on(self, storage, make):
        await add_version(storage, make)
        await storage.models.delete_version("house-price", 1)
        assert await storage.models.list_models(9) == []
        with pytest.raises(EpochdError) as caught:
            await storage.models.get_model("house-price")
        assert reason_of(caught) == (Reason.MODEL_NOT_FOUND, "models/house-price")
        assert (await add_version(storage, make))[1] == 2

    async def test_a_model_goes_with_everything(self, storage, make):
        for parameters in [None, large()]:
            await add_version(storage, make, parameters=parameters)
        await add_version(storage, make, model="other")
        await storage.models.set_alias(AliasCommand(model="house-price", alias="champion", version=1), NOW)
        await storage.models.delete_model("house-price")
        assert [model.model for model in await storage.models.list_models(9)] == ["other"]
        assert list(storage.folder.artifacts.rglob("*.safetensors")) == []

    async def test_a_missing_model_is_named(self, storage):
        with pytest.raises(EpochdError) as caught:
            await storage.models.delete_model("nobody")
        assert reason_of(caught) == (Reason.MODEL_NOT_FOUND, "models/nobody")

    async def test_a_missing_version_is_named(self, storage, make):
        await add_version(storage, make)
        with pytest.raises(EpochdError) as caught:
            await storage.models.delete_version("house-price", 2)
        assert reason_of(caught) == (Reason.VERSION_NOT_FOUND, "models/house-price/versions/2")


async def test_only_postgresql_is_shared_with_other_servers(storage, database_url):
    assert storage.models.is_shared == database_url.startswith("postgresql")


async def test_every_change_is_told_after_it_can_be_read(storage, make):
    told = []
    storage.models.changes.subscribe(told.append)
    await add_version(storage, make, model="a")
    await storage.models.set_alias(AliasCommand(model="a", alias="x", version=1), NOW)
    await storage.models.delete_alias("a", "x", NOW)
    await storage.models.delete_version("a", 1)
    await add_version(storage, make, model="a")
    await storage.models.delete_model("a")
    assert told == ["a"] * 6


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=20).filter(lambda name: name != "__metadata__"),
        st.sampled_from([np.float32, np.float64]).flatmap(
            lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
        ),
        max_size=6,
    )
)
def test_packing_keeps_any_parameters_and_is_deterministic(parameters):
    data = pack(parameters)
    found = unpack(memoryview(data))
    assert list(found) == list(parameters)
    assert all(found[name].tobytes() == value.tobytes() for name, value in parameters.items())
    assert all(found[name].shape == value.shape for name, value in parameters.items())
    assert pack(parameters) == data
