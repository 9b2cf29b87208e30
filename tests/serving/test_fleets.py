"""Predictions by key: each row by the member that it names, and what is said where there is none."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epochd_server.domain.commands import PromoteCommand
from epochd_server.domain.errors import EpochdError, InvalidInput, Reason
from epochd_server.domain.resources import VersionReference

FLEET = VersionReference("fleet")
STORES = ["a", "b", "c", "d"]


def violations(caught) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for violation in caught.value.violations:
        found.setdefault(violation.field, []).append(violation.description)
    return found


@pytest.fixture
async def stores(registry):
    """y = (member + 1)·x0 + 10·x1 + member for stores a to d, of which d failed."""
    weights = [[[n + 1, 10]] for n in range(4)]
    await registry.add_fleet(
        weights, [[n] for n in range(4)], {"store": STORES}, failed={3: "ONE_CLASS_ONLY"}
    )


class TestRows:
    async def test_each_goes_to_the_member_of_its_key_in_the_order_of_the_rows(
        self, stores, fleets, ask, tables
    ):
        rows = tables({"x1": [0, 0, 1, 1], "store": ["c", "a", "b", "c"], "x0": [1, 1, 1, 2]})
        prediction = await fleets.predict(ask(rows, model="fleet"))
        assert prediction.values.tolist() == [5, 1, 13, 18]
        assert prediction.values.dtype == np.float32

    async def test_that_are_tensors_have_their_keys_beside_them(self, stores, fleets, ask, tables):
        keys = tables({"store": ["b", "a"]})
        prediction = await fleets.predict(ask(np.float64([[1, 0], [1, 0]]), model="fleet", keys=keys))
        assert prediction.values.tolist() == [3, 1]

    async def test_may_all_be_predicted_by_one_member(self, stores, fleets, ask, tables):
        for rows in (np.float32([[1, 0], [2, 0]]), tables({"x0": [1, 2], "x1": [0, 0]})):
            prediction = await fleets.predict(ask(rows, model="fleet", member=("b",)))
            assert prediction.values.tolist() == [3, 5]

    async def test_none_give_no_predictions(self, stores, fleets, ask, tables):
        keys = tables({"store": np.empty(0, object)})
        assert (await fleets.predict(ask(np.empty((0, 2)), model="fleet", keys=keys))).values.shape == (0,)

    async def test_with_several_key_columns_need_all_of_them(self, registry, fleets, ask, tables):
        keys = {"city": ["x", "x", "y"], "shop": [1, 2, 1]}
        await registry.add_fleet(np.zeros((3, 1, 1)), [[1], [2], [3]], keys)
        rows = tables({"shop": [1.0, 2.0, 1.0], "x0": [0, 0, 0], "city": ["y", "x", "x"]})
        assert (await fleets.predict(ask(rows, model="fleet"))).values.tolist() == [3, 2, 1]
        with pytest.raises(InvalidInput) as caught:
            await fleets.predict(ask(tables({"shop": [2], "x0": [0], "city": ["y"]}), model="fleet"))
        assert "('y', 2)" in violations(caught)["table"][0]

    async def test_of_a_classifier_get_labels_and_probabilities(self, registry, fleets, ask, tables):
        biases = np.float32([[0, 0, 1], [0, 2, 0]])
        await registry.add_fleet(np.zeros((2, 3, 1)), biases, {"id": [7, 9]}, classes=("l", "m", "n"))
        rows = tables({"id": [9, 7], "x0": [1, 1]})
        prediction = await fleets.predict(ask(rows, model="fleet", probabilities=True, logits=True))
        assert prediction.values.tolist() == ["m", "n"]
        assert prediction.logits.tolist() == biases[::-1].tolist()
        expected = torch.softmax(torch.from_numpy(biases[::-1].copy()), 1).numpy()
        assert prediction.probabilities == pytest.approx(expected, rel=1e-6)


class TestBits:
    @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    async def test_of_a_row_depend_neither_on_the_others_nor_on_the_fleet(
        self, data, registry, storage, fleets, ask, tables
    ):
        """A member that was promoted predicts what it predicts within the fleet, alone and in any company."""
        seed = data.draw(st.integers(0, 2**32))
        width, outputs = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 3))
        rng = np.random.default_rng(seed)
        model, count = f"fleet-{seed}-{width}-{outputs}", 5
        weights = rng.normal(size=(count, outputs, width))
        number = await registry.add_fleet(
            weights, rng.normal(size=(count, outputs)), {"id": range(count)}, model=model
        )
        named = rng.integers(0, count, 20)
        features = rng.normal(size=(20, width)).astype(np.float32)
        keys = tables({"id": named})
        together = (await fleets.predict(ask(features, model=model, version=number, keys=keys))).values
        for member in range(count):
            promote = PromoteCommand(
                reference=VersionReference(model, number), key=(member,), model=f"{model}-alone"
            )
            alone = await storage.models.promote(promote, datetime(2026, 1, 1, tzinfo=UTC))
            rows = named == member
            if rows.any():
                command = ask(features[rows], model=alone.model, version=alone.version)
                assert (await fleets.predict(command)).values.tobytes() == together[rows].tobytes()


class TestUnknownKeys:
    async def test_are_named_and_counted_apart_from_members_that_failed(self, stores, fleets, ask, tables):
        names = ["a", "q", "d", "p", "q", *(f"u{n}" for n in range(7))]
        rows = tables({"store": names, "x0": [1] * len(names), "x1": [1] * len(names)})
        with pytest.raises(InvalidInput) as caught:
            await fleets.predict(ask(rows, model="fleet"))
        unknown, failed = violations(caught)["table"]
        assert "10 rows have keys of no member" in unknown
        assert "'q', 'p', 'u0', 'u1', 'u2' and 4 more" in unknown
        assert "1 row has the key of members without training: 'd' (ONE_CLASS_ONLY)" in failed
        assert all("unknown_as_nan or fallback_member" in said for said in (unknown, failed))

    async def test_may_give_nan(self, stores, fleets, ask, tables):
        rows = tables({"store": ["q", "a", "d"], "x0": [1, 1, 1], "x1": [0, 0, 0]})
        values = (await fleets.predict(ask(rows, model="fleet", unknown_as_nan=True))).values
        assert np.isnan(values).tolist() == [True, False, True]
        assert values[1] == 1

    async def test_may_go_to_another_member(self, stores, fleets, ask, tables):
        rows = tables({"store": ["q", "a", "d"], "x0": [1, 1, 1], "x1": [0, 0, 0]})
        values = (await fleets.predict(ask(rows, model="fleet", fallback_member=("b",)))).values
        assert values.tolist() == [3, 1, 3]

    @pytest.mark.parametrize("field", ["member", "fallback_member"])
    @pytest.mark.parametrize(
        ("key", "reason"),
        [(("q",), Reason.MEMBER_NOT_FOUND), ((1,), Reason.MEMBER_NOT_FOUND), (("d",), Reason.MEMBER_FAILED)],
    )
    async def test_of_a_single_named_member_are_not_found(
        self, stores, fleets, ask, tables, field, key, reason
    ):
        columns = {"x0": [1], "x1": [1]} | ({} if field == "member" else {"store": ["q"]})
        with pytest.raises(EpochdError) as caught:
            await fleets.predict(ask(tables(columns), model="fleet", **{field: key}))
        assert caught.value.reason is reason
        assert caught.value.metadata["name"] == "models/fleet/versions/1"


class TestRefusals:
    async def test_missing_key_columns_are_named_with_all_else_that_is_wrong(
        self, stores, fleets, ask, tables
    ):
        with pytest.raises(InvalidInput) as caught:
            await fleets.predict(ask(tables({"x0": [1], "zip": [2]}), model="fleet", probabilities=True))
        found = violations(caught)
        assert set(found) == {"table.columns", "table.columns[1]", "probabilities"}
        assert any("lacks key columns 'store'" in said for said in found["table.columns"])
        assert any("lacks 'x1'" in said for said in found["table.columns"])

    async def test_tensors_without_keys_are_told_how_to_give_them(self, stores, fleets, ask):
        with pytest.raises(InvalidInput) as caught:
            await fleets.predict(ask(np.ones((1, 3)), model="fleet"))
        found = violations(caught)
        assert "key columns 'store'" in found["keys"][0]
        assert "tensor.shape" in found

    async def test_keys_of_another_length_or_with_other_columns_are_refused(
        self, stores, fleets, ask, tables
    ):
        keys = tables({"store": ["a", "b"], "x0": [1, 2]})
        with pytest.raises(InvalidInput) as caught:
            await fleets.predict(ask(np.ones((3, 2)), model="fleet", keys=keys))
        found = violations(caught)
        assert "has 2 rows, but the tensor has 3" in found["keys"][0]
        assert "'x0' is no key column" in found["keys.columns[1]"][0]

    async def test_keys_of_another_kind_are_refused(self, stores, fleets, ask, tables):
        rows = tables({"store": [1], "x0": [1], "x1": [1]})
        with pytest.raises(InvalidInput) as caught:
            await fleets.predict(ask(rows, model="fleet"))
        assert "holds numbers; the fleet's keys there are text" in violations(caught)["table.columns[0]"][0]

    async def test_a_key_column_beside_a_named_member_is_too_much(self, stores, fleets, ask, tables):
        rows = tables({"store": ["a"], "x0": [1], "x1": [1]})
        with pytest.raises(InvalidInput) as caught:
            await fleets.predict(ask(rows, model="fleet", member=("a",)))
        assert set(violations(caught)) == {"table.columns[0]"}

    async def test_nan_for_a_classifier_is_refused(self, registry, fleets, ask, tables):
        await registry.add_fleet([[[1]]], [[0]], {"id": [1]}, classes=("no", "yes"))
        with pytest.raises(InvalidInput) as caught:
            await fleets.predict(ask(tables({"id": [2], "x0": [1]}), model="fleet", unknown_as_nan=True))
        assert set(violations(caught)) == {"unknown_as_nan"}

    async def test_a_single_model_has_no_members(self, registry, fleets, ask, tables):
        await registry.add([1.0])
        command = ask(
            np.ones((1, 1)), keys=tables({"id": [1]}), member=(1,), fallback_member=(1,), unknown_as_nan=True
        )
        with pytest.raises(InvalidInput) as caught:
            await fleets.predict(command)
        assert set(violations(caught)) == {"keys", "member", "fallback_member", "unknown_as_nan"}
