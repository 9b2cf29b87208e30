"""What is fitted on which rows, what auto chooses, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from epochd_server.codec.preprocessing import decode_fitted, encode_fitted
from epochd_server.data.preprocessing.fitting import TrainingRows
from epochd_server.domain.errors import InvalidInput
from epochd_server.domain.preprocessing import (
    Auto,
    Bucketize,
    Drop,
    Fill,
    FittedPreprocessing,
    Hashing,
    Impute,
    MinMax,
    OneHot,
    Ordinal,
    Passthrough,
    Remainder,
    Standardize,
    Step,
    TimePart,
    TimeParts,
    Unseen,
)

Apply = Callable[..., NDArray[np.float64]]
Fit = Callable[..., FittedPreprocessing]
TIMES = np.array(["2024-01-01T00:00", "2024-06-01T00:00", "NaT"], "M8[us]")
CELLS = {
    "age": np.array([30.0, np.nan, 50.0]),
    "rooms": np.array([1, 2, 3]),
    "sold": np.array([True, False, True]),
    "city": ["Oslo", None, "Bergen"],
    "time": TIMES,
    "empty": np.full(3, np.nan),
    "same": ["x", "x", "x"],
}


def chosen(fitted: FittedPreprocessing) -> dict[str, tuple[Step, ...]]:
    return {column.name: tuple(step.step for step in column.steps) for column in fitted.columns}


def test_auto_chooses_by_type_and_values(fit: Fit) -> None:
    fitted = fit(CELLS)
    assert chosen(fitted) == {
        "age": (Impute(fill=Fill.MEDIAN, indicator=True), Standardize()),
        "rooms": (Impute(fill=Fill.MEDIAN), Standardize()),
        "sold": (Passthrough(),),
        "city": (OneHot(unseen=Unseen.IGNORE),),
        "time": (
            TimeParts(parts=(TimePart.WEEKDAY, TimePart.DAY_OF_YEAR)),
            Impute(fill=Fill.CONSTANT, number=0.0, indicator=True),
        ),
        "empty": (Drop(),),
        "same": (Drop(),),
    }
    assert fitted.outputs[:5] == ("age", "age_missing", "rooms", "sold", "city=Bergen")
    assert [column.note.split(":")[0] for column in fitted.columns[-2:]] == ["dropped", "dropped"]
    assert fitted.inputs == ("age", "rooms", "sold", "city", "time")


def test_auto_hashes_texts_of_many_categories(fit: Fit) -> None:
    assert chosen(fit({"id": [str(n) for n in range(51)]})) == {"id": (Hashing(features=64),)}


def test_columns_without_steps_of_their_own_follow_the_remainder(fit: Fit) -> None:
    cells = {"a": np.array([1.0, 2.0]), "b": np.array([3.0, 4.0])}
    fitted = fit(cells, MinMax(), columns=("a",), remainder=Remainder.PASSTHROUGH)
    assert chosen(fitted) == {"a": (MinMax(),), "b": (Passthrough(),)}
    assert fit(cells, MinMax(), columns=("a",), remainder=Remainder.DROP).outputs == ("a",)


def test_nothing_is_learned_from_other_than_training_rows(fit: Fit, apply: Apply) -> None:
    cells = {"x": np.array([1.0, 3.0, 1e9]), "c": ["a", "b", "z"]}
    fitted = fit(cells, training=TrainingRows(rows=np.array([0, 1])))
    np.testing.assert_array_equal(apply(fitted, cells)[:2], [[-1, 1, 0], [1, 0, 1]])
    assert fitted.outputs == ("x", "c=a", "c=b")


@pytest.mark.parametrize(
    "step", [Standardize(per_member=True), MinMax(per_member=True), Impute(per_member=True)]
)
def test_a_member_by_itself_learns_the_bits_of_a_single_fit(fit: Fit, apply: Apply, step: Step) -> None:
    generator = np.random.default_rng(3)
    members = generator.permutation(np.repeat(np.arange(5), [1, 2, 7, 40, 300]))
    x = generator.normal(1e3, 1, len(members))
    x[generator.random(len(x)) < 0.2] = np.nan
    x[np.searchsorted(np.sort(members), np.arange(5))] = 1.5
    fleet = fit({"x": x}, step, training=TrainingRows(members=members, count=5))
    got = apply(fleet, {"x": x}, members=members)
    for member in range(5):
        own = {"x": x[members == member]}
        if np.isfinite(own["x"]).any():
            single = {Standardize: Standardize(), MinMax: MinMax(), Impute: Impute()}[type(step)]
            np.testing.assert_array_equal(got[members == member], apply(fit(own, single), own))


def test_per_member_is_for_fleets(fit: Fit) -> None:
    with pytest.raises(InvalidInput, match="per_member is for fleets"):
        fit({"x": [1.0, 2.0]}, Standardize(per_member=True))


def test_features_of_equal_names_are_told_apart(fit: Fit) -> None:
    fitted = fit({"c=a": np.array([1.0, 2.0]), "c": ["a", "b"]})
    assert fitted.outputs == ("c=a", "c=a#2", "c=b")


def test_everything_wrong_is_told_at_once(fit: Fit) -> None:
    with pytest.raises(InvalidInput) as caught:
        fit({"c": ["a", "b"], "t": TIMES[:2]}, Standardize())
    assert [violation.field for violation in caught.value.violations] == [
        "preprocess.columns[0].steps[0]"
    ] * 2


def test_an_unknown_column_is_an_error(fit: Fit) -> None:
    with pytest.raises(InvalidInput, match=r"preprocess.columns\[0\].columns\[0\]: 'b' is no feature column"):
        fit({"a": [1.0, 2.0]}, Standardize(), columns=("b",))


def test_a_table_of_which_nothing_is_left_is_an_error(fit: Fit) -> None:
    with pytest.raises(InvalidInput, match="no feature is left: 'a' dropped: it has the same value"):
        fit({"a": [1.0, 1.0]})


def test_what_was_fitted_survives_storage(fit: Fit, apply: Apply) -> None:
    for steps in (
        (Auto(),),
        (Impute(fill=Fill.CONSTANT, text="?"), Ordinal(unseen=Unseen.OTHER)),
        (OneHot(unseen=Unseen.OTHER, max_categories=1, drop_first=True),),
    ):
        fitted = fit({"city": CELLS["city"]}, *steps)
        message = encode_fitted(fitted)
        assert message is not None
        stored = decode_fitted(type(message).FromString(message.SerializeToString()))
        assert stored == fitted
        np.testing.assert_array_equal(apply(stored, CELLS), apply(fitted, CELLS))
    numbers = fit({"x": np.arange(9.0)}, Bucketize(buckets=3))
    message = encode_fitted(numbers)
    assert message is not None
    assert decode_fitted(message) == numbers


def test_auto_leaves_out_a_category_where_features_must_not_add_up(fit: Fit) -> None:
    fitted = fit({"city": CELLS["city"]}, independent=True)
    assert fitted.outputs == ("city=Oslo", "city=<missing>")
