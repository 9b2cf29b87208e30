"""Canaries: a share of the keys goes to a second version, always the same keys."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest

from epochd_server.domain.commands import AliasCommand
from epochd_server.domain.data import Column, Table
from epochd_server.domain.errors import InvalidInput
from epochd_server.domain.models import Canary
from epochd_server.serving.canaries import canary_rows

NOW = datetime(2026, 1, 2, tzinfo=UTC)
KEYS = [f"store-{n}" for n in range(400)]


@pytest.fixture
def point(storage):
    """Points ``@best`` at version 1, with version 2 as canary for a share of the keys."""

    async def move(percent, model="m"):
        canary = Canary(version=2, hundredths=round(percent * 100))
        await storage.models.set_alias(AliasCommand(model=model, alias="best", version=1, canary=canary), NOW)

    return move


@pytest.fixture
async def two(registry):
    """Version 1 says 1 for every row, version 2 says 2."""
    for bias in (1.0, 2.0):
        await registry.add([0.0, 0.0], bias)


@pytest.fixture
async def two_fleets(registry):
    """The same with a member for each of KEYS."""
    for bias in (1.0, 2.0):
        zeros = np.zeros((len(KEYS), 1, 1))
        await registry.add_fleet(zeros, zeros[:, 0] + bias, {"store": KEYS}, model="fleet")


def rows(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 2)).astype(np.float32)


class TestRowsOfASingleModel:
    async def test_the_share_is_about_what_was_asked_for_and_every_row_says_who_predicted_it(
        self, two, service, ask, point
    ):
        await point(10)
        prediction = await service.predict(ask(rows(5_000), alias="best"))
        chosen = prediction.values == 2
        assert 0.08 < chosen.mean() < 0.12
        assert prediction.canary_rows.tolist() == np.flatnonzero(chosen).tolist()
        assert (prediction.version.version, prediction.canary.version) == (1, 2)

    async def test_a_row_goes_the_same_way_whatever_comes_beside_it(self, two, service, ask, point, tables):
        await point(50)
        sample = rows(40)
        together = (await service.predict(ask(sample, alias="best"))).values
        alone = [(await service.predict(ask(row, alias="best"))).values[0] for row in sample]
        named = tables({"x1": sample[:, 1].astype(np.float64), "x0": sample[:, 0], "y": np.zeros(40)})
        assert together.tolist() == alone
        assert together.tolist() == (await service.predict(ask(named, alias="best"))).values.tolist()

    async def test_a_larger_share_keeps_the_rows_of_a_smaller_one(self, two, service, ask, point):
        sample, before = rows(300), np.zeros(300, bool)
        for percent in (5, 20, 60):
            await point(percent)
            chosen = (await service.predict(ask(sample, alias="best"))).values == 2
            assert (chosen | ~before).all()
            before = chosen

    async def test_other_names_of_the_version_know_no_canary(self, two, service, ask, point):
        await point(99)
        prediction = await service.predict(ask(rows(50), version=1))
        assert (prediction.values == 1).all()
        assert prediction.canary is prediction.canary_rows is None


class TestRoutingKeys:
    async def test_one_key_sends_all_rows_one_way_and_keys_are_shared_out(self, two, service, ask, point):
        await point(30)
        said = []
        for customer in range(200):
            prediction = await service.predict(
                ask(rows(3, customer), alias="best", routing_key=f"customer-{customer}")
            )
            assert prediction.canary is None
            assert (prediction.values == prediction.version.version).all()
            said.append(prediction.version.version)
        assert 0.2 < np.mean(np.array(said) == 2) < 0.4

    async def test_are_for_aliases_only_in_effect(self, two, service, ask):
        prediction = await service.predict(ask(rows(3), routing_key="x"))
        assert prediction.version.version == 2


class TestFleets:
    async def test_a_key_goes_one_way_by_table_by_keys_and_by_member(
        self, two_fleets, fleets, ask, point, tables
    ):
        await point(25, "fleet")
        features = np.zeros((len(KEYS), 1), np.float32)
        in_table = tables({"x0": features[:, 0], "store": KEYS})
        by_table = await fleets.predict(ask(in_table, "fleet", alias="best"))
        by_keys = await fleets.predict(ask(features, "fleet", alias="best", keys=tables({"store": KEYS})))
        assert by_table.values.tolist() == by_keys.values.tolist()
        assert 0.15 < np.mean(by_table.values == 2) < 0.35
        for key, value in list(zip(KEYS, by_table.values, strict=True))[:20]:
            one = await fleets.predict(ask(features[:2], "fleet", alias="best", member=(key,)))
            assert one.values.tolist() == [value, value]

    async def test_an_unknown_key_is_refused_as_ever(self, two_fleets, fleets, ask, point, tables):
        await point(25, "fleet")
        with pytest.raises(InvalidInput, match="no member"):
            await fleets.predict(ask(tables({"x0": [1.0], "store": ["nobody"]}), "fleet", alias="best"))


def test_texts_with_holes_times_and_whole_numbers_decide_too(ask):
    texts = np.array(["a", None, "", "b"], object)
    times = np.array(["2026-01-01", "NaT", "2026-01-02", "2026-01-03"], "M8[us]")
    table = Table((Column("text", texts), Column("time", times), Column("whole", np.arange(4))))
    card = SimpleNamespace(key_columns=(), input_columns=("text", "time", "whole"))
    chosen = [canary_rows(ask(table, alias="best"), card, share) for share in (1, 5_000, 9_999)]
    assert all(one.shape == (4,) for one in chosen)
    empty = Table((Column("text", np.array(["a", "", "", "b"], object)), *table.columns[1:]))
    assert canary_rows(ask(empty, alias="best"), card, 5_000).tolist() == chosen[1].tolist()


async def test_classifiers_give_labels_and_probabilities_of_both(registry, service, ask, point):
    for bias in (-1.0, 1.0):
        await registry.add([0.0, 0.0], bias, classes=("no", "yes"))
    await point(50)
    prediction = await service.predict(ask(rows(50), alias="best", probabilities=True))
    chosen = np.isin(np.arange(50), prediction.canary_rows)
    assert 0 < chosen.sum() < 50
    assert prediction.values.tolist() == np.where(chosen, "yes", "no").tolist()
    assert ((prediction.probabilities > 0.5) == chosen).all()
