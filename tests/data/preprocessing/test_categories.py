"""Categories as features, against scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.feature_extraction import FeatureHasher
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder
from sklearn.utils.murmurhash import murmurhash3_32

from epochd_server.data.preprocessing.hashing import murmur3
from epochd_server.domain.errors import InvalidInput
from epochd_server.domain.preprocessing import (
    Fill,
    FittedPreprocessing,
    Hashing,
    Impute,
    OneHot,
    Ordinal,
    Unseen,
)

Run = Callable[..., NDArray[np.float64]]
Fit = Callable[..., FittedPreprocessing]
TEXTS = st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=20)
TRAINING = ["Oslo", "Bergen", None, "Oslo", "Ålesund"]
OTHERS = ["Bergen", "Paris", None, "Oslo"]


def objects(texts: list[Any]) -> NDArray[Any]:
    array: NDArray[Any] = np.empty((len(texts), 1), dtype=object)
    array[:, 0] = texts
    return array


@settings(max_examples=50)
@given(TEXTS, TEXTS)
def test_one_hot_is_scikit_learns(run: Run, training: list[str], others: list[str]) -> None:
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(objects(training))
    ours = run({"c": training}, {"c": others}, OneHot(unseen=Unseen.IGNORE))
    np.testing.assert_array_equal(ours, encoder.transform(objects(others)))


def test_missing_text_is_a_category_where_training_rows_have_it(run: Run, fit: Fit) -> None:
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(objects(TRAINING))
    step = OneHot(unseen=Unseen.IGNORE)
    np.testing.assert_array_equal(
        run({"c": TRAINING}, {"c": OTHERS}, step), encoder.transform(objects(OTHERS))
    )
    assert fit({"c": TRAINING}, step).outputs == ("c=Bergen", "c=Oslo", "c=Ålesund", "c=<missing>")


def test_empty_text_is_missing(run: Run) -> None:
    ours = run({"c": ["a", "", None]}, {"c": ["", "a"]}, OneHot())
    np.testing.assert_array_equal(ours, [[0, 1], [1, 0]])


def test_frequent_categories_get_features_and_the_rest_share_one(run: Run) -> None:
    training = ["a"] * 5 + ["b"] * 4 + ["c"] * 3 + ["d"]
    others = ["a", "b", "c", "d", "e"]
    # scikit-learn counts the shared feature among max_categories
    encoder = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=3, sparse_output=False)
    theirs = encoder.fit(objects(training)).transform(objects(others))
    ours = run({"c": training}, {"c": others}, OneHot(unseen=Unseen.OTHER, max_categories=2))
    np.testing.assert_array_equal(ours, theirs)


def test_the_first_category_can_be_left_out(run: Run) -> None:
    ours = run({"c": ["a", "b", "c"]}, {"c": ["a", "c"]}, OneHot(drop_first=True))
    np.testing.assert_array_equal(ours, [[0, 0], [0, 1]])


def test_an_unseen_category_is_an_error_that_names_it(run: Run) -> None:
    with pytest.raises(InvalidInput, match=r"'c' is 'Paris' in row 1, counting from 0.*'Bergen', 'Oslo'"):
        run({"c": ["Oslo", "Bergen"]}, {"c": ["Oslo", "Paris"]}, OneHot())


def test_integers_and_booleans_are_categories_in_the_order_of_numbers(fit: Fit) -> None:
    assert fit({"n": np.array([10, 9, 100])}, OneHot()).outputs == ("n=9", "n=10", "n=100")
    assert fit({"n": np.array([True, False])}, OneHot()).outputs == ("n=0", "n=1")


@settings(max_examples=50)
@given(TEXTS, TEXTS)
def test_ordinal_is_scikit_learns(run: Run, training: list[str], others: list[str]) -> None:
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1).fit(objects(training))
    ours = run({"c": training}, {"c": others}, Ordinal(unseen=Unseen.IGNORE))
    np.testing.assert_array_equal(ours, encoder.transform(objects(others)))


def test_ordinal_takes_an_order_of_its_own(run: Run) -> None:
    step = Ordinal(categories=("low", "mid", "high"), unseen=Unseen.OTHER)
    ours = run({"c": ["mid"]}, {"c": ["high", "low", "?"]}, step)
    np.testing.assert_array_equal(ours, [[2], [0], [3]])


@settings(max_examples=50)
@given(TEXTS)
def test_hashing_is_scikit_learns(run: Run, texts: list[str]) -> None:
    theirs = FeatureHasher(n_features=7, input_type="string").transform([[text] for text in texts])
    ours = run({"c": texts}, {"c": texts}, Hashing(features=7))
    np.testing.assert_array_equal(ours, theirs.toarray())


@given(st.lists(st.binary(max_size=20), max_size=10))
def test_the_hash_is_murmur3(texts: list[bytes]) -> None:
    assert murmur3(texts).tolist() == [murmurhash3_32(text, seed=0) for text in texts]


@pytest.mark.parametrize(
    "step", [Impute(fill=Fill.MOST_FREQUENT), Impute(fill=Fill.CONSTANT, text="?")], ids=["most", "constant"]
)
def test_missing_text_is_imputed_as_scikit_learn_does(run: Run, step: Impute) -> None:
    imputer = SimpleImputer(strategy=step.fill.value, missing_values=None, fill_value=step.text)
    filled = imputer.fit(objects(TRAINING)).transform(objects(TRAINING))
    theirs = OneHotEncoder(sparse_output=False).fit_transform(filled)
    np.testing.assert_array_equal(run({"c": TRAINING}, {"c": TRAINING}, step, OneHot()), theirs)


def test_text_that_no_step_encodes_is_an_error(run: Run) -> None:
    with pytest.raises(InvalidInput, match="is still text after its steps; use one_hot, ordinal or hashing"):
        run({"c": ["a"]}, {"c": ["a"]}, Impute(fill=Fill.CONSTANT, text="?"))


def test_numbers_where_training_had_text_are_an_error(run: Run) -> None:
    with pytest.raises(InvalidInput, match="holds numbers, but in training it held text"):
        run({"c": ["a", "b"]}, {"c": np.array([1.0])}, OneHot())


def test_text_that_is_missing_in_every_row_may_come_as_numbers(run: Run) -> None:
    np.testing.assert_array_equal(
        run({"c": ["a", None]}, {"c": np.array([np.nan, np.nan])}, OneHot()), [[0, 1], [0, 1]]
    )
