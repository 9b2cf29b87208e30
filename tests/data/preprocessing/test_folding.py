"""Steps of folds: fitted to each fold's rows, with the same features in all, and kept so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from epochd_server.codec.preprocessing import decode_fitted, encode_stored_fitted
from epochd_server.data.columns import TableColumns
from epochd_server.data.preprocessing.features import prepare_transformed
from epochd_server.data.preprocessing.fitting import TrainingRows
from epochd_server.data.preprocessing.folding import fit_folds
from epochd_server.domain.errors import EpochdError, InvalidInput, Violations
from epochd_server.domain.preprocessing import (
    Bucketize,
    ColumnSteps,
    FittedPreprocessing,
    OneHot,
    Preprocessing,
    Step,
    Unseen,
)
from epochd_server.domain.specs import Precision

FOLDS = [TrainingRows(rows=np.arange(4)), TrainingRows(rows=np.arange(2, 6))]
Table = Callable[[Mapping[str, Any]], TableColumns]


def fitted_to(columns: TableColumns, *steps: Step) -> FittedPreprocessing:
    entries = (ColumnSteps(columns=columns.names, steps=steps),) if steps else ()
    violations = Violations()
    indices = range(len(columns.names))
    fitted = fit_folds(Preprocessing(columns=entries), columns, indices, TrainingRows(), FOLDS, violations)
    violations.raise_if_any()
    assert fitted is not None
    return fitted


def features(fitted: FittedPreprocessing, columns: TableColumns, fold: int) -> np.ndarray:
    made = prepare_transformed(fitted.folds[fold], columns, Precision.FLOAT64, Violations())
    assert made is not None
    return made


def test_long_labels_that_begin_alike_keep_their_features(table: Table) -> None:
    long = "x" * 100
    columns = table({"a": [f"{long}0", "y", "z", "y", f"{long}1", f"{long}0"]})
    fitted = fitted_to(columns, OneHot(unseen=Unseen.IGNORE))
    assert len(set(fitted.outputs)) == 4
    np.testing.assert_array_equal(features(fitted, columns, 0).sum(axis=1), [1, 1, 1, 1, 0, 1])
    np.testing.assert_array_equal(features(fitted, columns, 1).sum(axis=1), 1)


def test_intervals_are_each_folds_own_in_the_same_features(table: Table) -> None:
    columns = table({"a": np.arange(6.0)})
    fitted = fitted_to(columns, Bucketize(buckets=2))
    assert fitted.outputs == ("a<2.5", "a>=2.5")
    np.testing.assert_array_equal(features(fitted, columns, 0)[:, 0], np.arange(6) < 1.5)
    np.testing.assert_array_equal(features(fitted, columns, 1)[:, 0], np.arange(6) < 3.5)


def test_what_auto_drops_in_one_fold_is_zero_there(table: Table) -> None:
    columns = table({"a": np.arange(6.0), "b": np.array([1.0, 1.0, 1.0, 1.0, 2.0, 3.0])})
    fitted = fitted_to(columns)
    assert fitted.outputs == ("a", "b")
    assert fitted.folds[0].inputs == ("a",)
    assert not features(fitted, columns, 0)[:, 1].any()
    assert features(fitted, columns, 1)[:, 1].any()


def test_a_fold_that_leaves_no_feature_is_told_of(table: Table) -> None:
    with pytest.raises(InvalidInput, match="no feature is left of the training rows of fold 0"):
        fitted_to(table({"b": np.array([1.0, 1.0, 1.0, 1.0, 2.0, 3.0])}))


def test_they_are_kept_and_damage_is_found(table: Table) -> None:
    fitted = fitted_to(table({"a": ["p", "q", "r", "q", "s", "p"]}), OneHot(unseen=Unseen.OTHER))
    assert fitted.folds[0].columns[0].places == (0, 1, 2, 4)
    message = encode_stored_fitted(fitted)
    assert message is not None
    assert decode_fitted(message) == fitted
    for places in ([0, 0, 1, 2], [0, 1, 2, 5]):
        message.folds[0].columns[0].places.places[:] = places
        with pytest.raises(EpochdError):
            decode_fitted(message)
    message.folds[0].columns[0].ClearField("places")
    message.folds[0].columns[0].outputs.pop()
    with pytest.raises(EpochdError):
        decode_fitted(message)
