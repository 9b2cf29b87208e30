"""Predictions, from a request's rows to its answer."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from epochd_server.domain.commands import AliasCommand
from epochd_server.domain.errors import EpochdError, InvalidInput, Reason
from epochd_server.domain.specs import Precision
from epochd_server.serving import PredictionService
from epochd_server.serving.outputs import Labels, sigmoid, softmax

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ROWS = np.float32([[1, 2], [3, 4], [5, 6]])


def violations(caught) -> dict[str, str]:
    return {violation.field: violation.description for violation in caught.value.violations}


class TestRegression:
    async def test_one_target_gives_one_number_a_row(self, registry, service, ask):
        await registry.add([2.0, -1.0], 0.5)
        prediction = await service.predict(ask(ROWS))
        assert prediction.values.tolist() == [0.5, 2.5, 4.5]
        assert prediction.values.dtype == np.float32
        assert prediction.probabilities is prediction.logits is None
        assert (prediction.version.model, prediction.version.version) == ("m", 1)

    async def test_several_targets_give_a_column_each(self, registry, service, ask):
        await registry.add([[1, 0], [0, 1], [1, 1]])
        prediction = await service.predict(ask(ROWS))
        assert prediction.values.tolist() == [[1, 2, 3], [3, 4, 7], [5, 6, 11]]

    async def test_has_the_precision_of_the_model(self, registry, service, ask):
        await registry.add([1 / 3, 1.0], precision=Precision.FLOAT64)
        prediction = await service.predict(ask(np.int64([[1, 0]])))
        assert prediction.values.dtype == np.float64
        assert prediction.values[0] == 1 / 3

    async def test_no_rows_give_no_predictions(self, registry, service, ask, tables):
        await registry.add([1.0, 1.0])
        assert (await service.predict(ask(np.empty((0, 2))))).values.shape == (0,)
        empty = tables({"x0": [], "x1": []})
        assert (await service.predict(ask(empty))).values.shape == (0,)

    async def test_a_missing_value_gives_a_missing_prediction_of_its_row_only(self, registry, service, ask):
        await registry.add([1.0, 1.0])
        values = (await service.predict(ask(np.float64([[np.nan, 1], [1, 1]])))).values
        assert np.isnan(values[0])
        assert values[1] == 2

    async def test_probabilities_are_refused(self, registry, service, ask):
        await registry.add([1.0, 1.0])
        with pytest.raises(InvalidInput) as caught:
            await service.predict(ask(ROWS[:, :1], probabilities=True, logits=True))
        assert set(violations(caught)) == {"probabilities", "logits", "tensor.shape"}

    async def test_a_large_batch_gives_what_its_rows_give_alone(self, registry, service, ask):
        await registry.add(np.linspace(-1, 1, 50))
        rows = np.random.default_rng(0).normal(size=(40_000, 50))
        values = (await service.predict(ask(rows))).values
        assert np.allclose(values, rows @ np.linspace(-1, 1, 50), atol=1e-4)


class TestRows:
    async def test_columns_may_come_in_any_order(self, registry, service, ask, tables):
        await registry.add([10.0, 1.0], features=["area", "rooms"])
        for order in (["area", "rooms"], ["rooms", "area"]):
            columns = {"area": [1.0, 2.0], "rooms": [3.0, 4.0]}
            values = (await service.predict(ask(tables({name: columns[name] for name in order})))).values
            assert values.tolist() == [13, 24]

    async def test_missing_and_extra_columns_and_text_are_all_named(self, registry, service, ask, tables):
        await registry.add([1.0, 1.0, 1.0, 1.0], features=["a", "b", "c", "d"])
        rows = tables({"d": ["x"], "zip": ["text"], "a": [1.0], "e": [1.0]})
        with pytest.raises(InvalidInput) as caught:
            await service.predict(ask(rows))
        found = violations(caught)
        assert "lacks 'b', 'c'" in found["table.columns"]
        assert "'zip' is no feature" in found["table.columns[1]"]
        assert "'e' is no feature" in found["table.columns[3]"]
        assert "'d' holds text" in found["table.columns[0]"]
        assert len(found) == 4

    async def test_numbers_and_booleans_of_any_type_are_taken(self, registry, service, ask, tables):
        await registry.add([1.0, 2.0], features=["a", "b"])
        rows = tables({"a": [True, False], "b": np.int8([3, -4])})
        assert (await service.predict(ask(rows))).values.tolist() == [7, -8]

    async def test_a_number_too_large_for_the_precision_is_infinite(self, registry, service, ask, tables):
        await registry.add([1.0, 2.0], features=["a", "b"])
        assert (await service.predict(ask(np.float64([1e300, 1])))).values.tolist() == [np.inf]
        rows = tables({"a": [1e300], "b": [1.0]})
        assert (await service.predict(ask(rows))).values.tolist() == [np.inf]

    async def test_one_dimension_is_one_row(self, registry, service, ask):
        await registry.add([2.0, -1.0])
        assert (await service.predict(ask(np.float32([4, 1])))).values.tolist() == [7]

    @pytest.mark.parametrize("shape", [(2, 3), (3,), (2, 1), (0,), (1, 1, 2), ()])
    async def test_another_width_names_the_features(self, registry, service, ask, shape):
        await registry.add([2.0, -1.0], features=["area", "rooms"])
        with pytest.raises(InvalidInput) as caught:
            await service.predict(ask(np.zeros(shape)))
        said = violations(caught)["tensor.shape"]
        assert "must be [rows, 2] or [2]" in said
        assert "'area', 'rooms'" in said

    async def test_rows_that_may_not_be_written_to_are_not(self, registry, service, ask):
        """Rows are views of a message's bytes."""
        await registry.add([2.0, -1.0])
        rows = np.frombuffer(ROWS.tobytes(), np.float32).reshape(3, 2)
        assert (await service.predict(ask(rows))).values.tolist() == [0, 2, 4]


class TestClassification:
    async def test_one_logit_decides_between_two_classes(self, registry, service, ask):
        await registry.add([1.0], classes=("no", "yes"))
        rows = np.float32([[-2], [0], [3]])
        prediction = await service.predict(ask(rows, probabilities=True, logits=True))
        assert prediction.values.tolist() == ["no", "no", "yes"]
        assert prediction.logits.tolist() == [-2, 0, 3]
        expected = torch.sigmoid(torch.tensor([-2.0, 0, 3])).numpy()
        assert prediction.probabilities == pytest.approx(expected, rel=1e-6)

    async def test_several_logits_pick_the_largest(self, registry, service, ask):
        await registry.add([[1, 0], [0, 1], [1, 1]], classes=(3, 5, 8))
        rows = np.float32([[1, -1], [-1, 1], [1, 1]])
        prediction = await service.predict(ask(rows, probabilities=True, logits=True))
        assert prediction.values.tolist() == [3, 5, 8]
        assert prediction.values.dtype == np.int64
        expected = torch.softmax(torch.from_numpy(prediction.logits), 1).numpy()
        assert prediction.probabilities == pytest.approx(expected, rel=1e-6)

    async def test_labels_alone_come_without_probabilities(self, registry, service, ask):
        await registry.add([1.0], classes=("no", "yes"))
        prediction = await service.predict(ask(np.float32([[1]])))
        assert prediction.probabilities is prediction.logits is None

    @pytest.mark.parametrize("outputs", [1, 3])
    async def test_a_row_without_a_class_is_named(self, registry, service, ask, outputs):
        classes = ("a", "b") if outputs == 1 else ("a", "b", "c")
        await registry.add(np.ones((outputs, 1)), classes=classes)
        with pytest.raises(InvalidInput) as caught:
            await service.predict(ask(np.float32([[1], [np.nan], [2], [np.nan]])))
        assert violations(caught)["rows"].startswith("row 1 (and 1 more) has no class")


class TestNames:
    async def test_version_alias_and_newest(self, registry, storage, service, ask):
        for weight in (1.0, 2.0, 3.0):
            await registry.add([weight])
        await storage.models.set_alias(AliasCommand(model="m", alias="champion", version=2), NOW)
        one = np.float32([[1]])
        assert (await service.predict(ask(one))).values == 3
        assert (await service.predict(ask(one, version=1))).values == 1
        assert (await service.predict(ask(one, alias="champion"))).values == 2

    @pytest.mark.parametrize(
        ("where", "reason"),
        [
            ({"model": "n"}, Reason.MODEL_NOT_FOUND),
            ({"version": 7}, Reason.VERSION_NOT_FOUND),
            ({"alias": "a"}, Reason.ALIAS_NOT_FOUND),
        ],
    )
    async def test_what_is_missing_is_refused(self, registry, service, ask, where, reason):
        await registry.add([1.0])
        with pytest.raises(EpochdError) as caught:
            await service.predict(ask(np.float32([[1]]), **where))
        assert caught.value.reason is reason

    async def test_own_changes_are_seen_at_once(self, registry, storage, service, ask):
        async def newest() -> float:
            return float((await service.predict(ask(np.float32([[1]])))).values[0])

        await registry.add([1.0])
        assert await newest() == 1
        await registry.add([2.0])
        assert await newest() == 2
        await storage.models.delete_version("m", 2)
        assert await newest() == 1
        await storage.models.delete_model("m")
        with pytest.raises(EpochdError):
            await newest()
        await registry.add([5.0])
        assert await newest() == 5

    async def test_a_moved_alias_is_seen_at_once(self, registry, storage, service, ask):
        for weight in (1.0, 2.0):
            await registry.add([weight])
        for version in (1, 2, 1):
            await storage.models.set_alias(AliasCommand(model="m", alias="a", version=version), NOW)
            assert (await service.predict(ask(np.float32([[1]]), alias="a"))).values == version


class TestResidents:
    async def test_many_at_once_load_a_model_once(self, registry, service, ask, builds):
        await registry.add([1.0])
        one = np.float32([[1]])
        await asyncio.gather(
            *(service.predict(ask(one, version=version)) for version in (None, 1) for _ in range(50))
        )
        assert builds() == 1

    async def test_a_resident_model_needs_neither_database_nor_waiting(self, registry, storage, service, ask):
        await registry.add([2.0])
        await service.predict(ask(np.float32([[1]])))
        storage.database.close()
        waiting = service.predict(ask(np.float32([[4]])))
        with pytest.raises(StopIteration) as done:
            waiting.send(None)
        assert done.value.value.values == 8

    async def test_the_least_recently_used_leaves(self, registry, storage, ask, builds, predictor):
        service = PredictionService(storage.models, predictor, cache_bytes=3 * 8_300)
        for weight in range(4):
            await registry.add([float(weight)])
        before = builds()
        one = np.float32([[1]])
        for version in (1, 2, 3, 1, 4):
            await service.predict(ask(one, version=version))
        assert builds() - before == 4
        await service.predict(ask(one, version=1))
        assert builds() - before == 4
        assert (await service.predict(ask(one, version=2))).values == 1
        assert builds() - before == 5
        assert service.resident_bytes <= 3 * 8_300

    async def test_a_model_larger_than_the_cache_still_predicts(self, registry, storage, ask, predictor):
        service = PredictionService(storage.models, predictor, cache_bytes=1)
        await registry.add([3.0])
        assert (await service.predict(ask(np.float32([[1]])))).values == 3


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arrays(
        np.float32,
        array_shapes(min_dims=2, max_dims=2, max_side=7),
        elements=st.floats(-200, 200, width=32),
    ),
    st.data(),
)
def test_probabilities_of_a_row_do_not_depend_on_the_rows_beside_it(logits, data):
    row = data.draw(st.integers(0, len(logits) - 1))
    alone = logits[row : row + 1].copy()
    assert softmax(logits)[row].tobytes() == softmax(alone)[0].tobytes()
    assert sigmoid(logits[:, 0])[row].tobytes() == sigmoid(alone[:, 0])[0].tobytes()
    labels = Labels(tuple(range(logits.shape[1])))
    assert labels.of(logits)[row] == labels.of(alone)[0]


@given(arrays(np.float64, 5, elements=st.floats(allow_nan=False)))
def test_sigmoid_of_any_number_is_a_probability(logits):
    found = sigmoid(logits)
    assert ((found >= 0) & (found <= 1)).all()
    assert found == pytest.approx(torch.sigmoid(torch.from_numpy(logits)).numpy(), rel=1e-12, abs=1e-300)
