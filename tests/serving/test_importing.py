"""Exported files read back: round trips, and everything that may be wrong with a file."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochd_server.domain.commands import ExportCommand
from epochd_server.domain.errors import EpochdError, InvalidInput, Reason
from epochd_server.domain.lineage import ParentKind
from epochd_server.domain.resources import VersionReference
from epochd_server.engine.modules import ModuleRegistry
from epochd_server.serving.exporting.exporter import Exporter
from epochd_server.serving.exporting.files import CARD, read_file
from epochd_server.serving.importing import read_import


@pytest.fixture
def export(storage):
    async def exported(model="m", member=None) -> bytes:
        command = ExportCommand(reference=VersionReference(model), member=member)
        return b"".join([chunk async for chunk in Exporter(storage.models).export(command)])

    return exported


@pytest.fixture
async def file(registry, export) -> bytes:
    """An exported classifier."""
    await registry.add([[1.0, 2.0], [3.0, 4.0]], [0.5, 0.25], classes=("no", "yes"))
    return await export()


def imported(data: bytes, max_parameters: int = 1_000):
    return read_import(memoryview(data), ModuleRegistry(), max_parameters=max_parameters)


def changed(data: bytes, change) -> bytes:
    """The file with another card, whose digest of the tensors is still right."""
    file = read_file(memoryview(data))
    card = json.loads(file.metadata[CARD])
    change(card)
    return file.head_with(json.dumps(card)) + bytes(file.tensors)


async def test_a_single_model_comes_back_with_its_import_as_parent(storage, file):
    found = imported(file)
    version = await storage.models.get_version(VersionReference("m"))
    parent = found.trained.card.lineage.parent
    assert found.model == "m"
    assert replace(found.trained.card, lineage=None) == version.card
    assert (parent.name, parent.kind) == ("models/m/versions/1", ParentKind.IMPORT)
    expected = await storage.models.load_parameters("m", 1)
    assert list(found.trained.parameters) == list(expected)
    for name, array in expected.items():
        assert found.trained.parameters[name].tobytes() == array.tobytes()


async def test_a_fleet_comes_back_with_its_members(storage, registry, export):
    weights = np.arange(6.0).reshape(3, 1, 2)
    await registry.add_fleet(
        weights, weights[..., 0], {"city": ["a", "a", "b"], "shop": [1, 2, 1]}, failed={1: "X"}
    )
    found = imported(await export("fleet")).trained
    members = await storage.models.load_members("fleet", 1)
    for name in ("states", "rows", "epochs", "final_losses"):
        np.testing.assert_array_equal(getattr(found.members, name), getattr(members, name))
    assert [found.members.keys.key(n) for n in range(3)] == [("a", 1), ("a", 2), ("b", 1)]
    assert found.members.reasons == {1: "X"}


async def test_a_member_is_exported_as_a_single_model(storage, registry, export):
    weights = np.arange(4.0).reshape(2, 1, 2)
    await registry.add_fleet(weights, weights[..., 0], {"city": ["a", "b"]})
    found = imported(await export("fleet", ("b",))).trained
    assert found.members is None
    assert found.card.members == 0
    assert found.card.origin.key == ("b",)
    assert found.parameters["linear.weight"].tolist() == [[2, 3]]


async def test_changed_tensors_are_data_loss(file):
    with pytest.raises(EpochdError) as caught:
        imported(file[:-1] + bytes([file[-1] ^ 1]))
    assert caught.value.reason is Reason.DIGEST_MISMATCH


async def test_models_that_are_too_large_are_refused(file):
    with pytest.raises(EpochdError) as caught:
        imported(file, max_parameters=5)
    assert caught.value.reason is Reason.MODEL_TOO_LARGE


def set_in(*path, to):
    def change(card):
        for step in path[:-1]:
            card = card[step]
        card[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_in("epochd_card", to=2), "form 2"),
        (set_in("version", to="text"), "no JSON object with a version"),
        (set_in("version", "rows", to="many"), "cannot be read"),
        (set_in("version", "nobody", to=1), "cannot be read"),
        (set_in("version", "name", to="models/m"), "without the version's name"),
        (set_in("version", "loss", to={}), "no model this server can make"),
        (set_in("version", "run", to="runs/1"), "no model this server can make"),
        (set_in("version", "model", "linear", to={}), "open sizes"),
        (set_in("version", "model", "linear", "in_features", to="3"), r"linear.weight as float32 \[2, 3\]"),
        (set_in("version", "dtype", to="DATA_TYPE_FLOAT64"), "as float64"),
        (set_in("version", "feature_columns", to=["x0"]), "another number of features"),
        (set_in("version", "feature_columns", to=["x0", "x0"]), "features, each once"),
        (set_in("version", "classes", to={"strings": {"values": ["a", "b", "c"]}}), "3 classes"),
        (set_in("version", "classes", to={"strings": {"values": ["a", "a"]}}), "two classes"),
        (set_in("version", "members", to=3), "members cannot be read"),
        (set_in("version", "labels", to={"Not": "one"}), "the key must be"),
    ],
)
async def test_cards_that_do_not_fit_are_refused(file, change, said):
    with pytest.raises(InvalidInput, match=said):
        imported(changed(file, change))


def cities(*labels, places=None, folds=0):
    """A card whose two features come from a text column with these categories."""
    column = {
        "name": "city",
        "kind": "COLUMN_KIND_TEXT",
        "steps": [{"step": {"one_hot": {}}, "categories": {"labels": labels}}],
        "outputs": ["x0", "x1"],
    }
    if places is not None:
        column["places"] = {"places": places}
    steps = {"columns": [column]}
    return set_in("version", "preprocess", to=steps | {"folds": [steps] * folds})


async def test_steps_must_make_the_features_they_say(file):
    steps = imported(changed(file, cities("Bergen", "Oslo"))).trained.card.preprocess
    assert steps.inputs == ("city",)
    assert imported(changed(file, cities("Oslo", places=[1]))).trained.card.preprocess.outputs == ("x0", "x1")
    for wrong in (
        cities("Bergen", "Oslo", "Tromsø"),
        cities("Oslo"),
        cities("Bergen", "Oslo", places=[1]),
    ):
        with pytest.raises(InvalidInput, match="makes other features than the model reads"):
            imported(changed(file, wrong))
    with pytest.raises(InvalidInput, match="no model this server can make"):
        imported(changed(file, cities("Oslo", places=[2])))
    with pytest.raises(InvalidInput, match="other folds than its members"):
        imported(changed(file, cities("Bergen", "Oslo", folds=2)))


async def test_a_module_that_is_not_registered_is_named(file):
    module = {"module": {"name": "Unheard"}}
    with pytest.raises(EpochdError, match="Unheard") as caught:
        imported(changed(file, set_in("version", "model", to=module)))
    assert caught.value.reason is Reason.MODULE_NOT_FOUND


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 7, b"\xff" * 64, b"\x02" + b"\0" * 7 + b"{}", b"\x04" + b"\0" * 7 + b"null"]
)
def test_other_files_are_refused(data):
    with pytest.raises(InvalidInput, match=r"safetensors file|has no card"):
        imported(data)


async def test_fleets_with_members_out_of_order_are_refused(registry, export):
    weights = np.zeros((2, 1, 2))
    await registry.add_fleet(weights, weights[..., 0], {"city": ["b", "a"]})
    with pytest.raises(InvalidInput, match="ascending order"):
        imported(await export("fleet"))


async def test_no_damage_ever_escapes_as_another_error(file):
    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def damage(data):
        position = data.draw(st.integers(0, len(file) - 1))
        length = data.draw(st.integers(0, 40))
        damaged = file[:position] + data.draw(st.binary(max_size=40)) + file[position + length :]
        with suppress(EpochdError):
            imported(damaged)

    damage()
