"""Class labels → indices, against scikit-learn's LabelEncoder; features and their faults."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.preprocessing import LabelEncoder

from epochd_server.data.columns import TableColumns, TensorColumns
from epochd_server.data.features import check_features, prepare_features, wrong_value
from epochd_server.data.fitness import FEATURE_NOT_FINITE, TARGET_NOT_FINITE, UnusableRows
from epochd_server.data.targets import load_targets, prepare_targets
from epochd_server.domain.data import Column, Table, TensorPair
from epochd_server.domain.errors import Violations
from epochd_server.domain.specs import Loss, LossKind, Precision

CROSS_ENTROPY = Loss(kind=LossKind.CROSS_ENTROPY)
BCE = Loss(kind=LossKind.BCE_WITH_LOGITS)
MSE = Loss(kind=LossKind.MSE)

whole = st.lists(st.integers(-(2**53), 2**53), min_size=2, max_size=30)
texts = st.lists(st.text(max_size=3), min_size=2, max_size=30)


def column(values: np.ndarray) -> TableColumns:
    return TableColumns(Table((Column("y", values),)))


def text(values: list[str]) -> np.ndarray:
    return np.array(values, dtype=object)


@given(
    whole.map(lambda v: np.array(v, np.int64))
    | whole.map(lambda v: np.array(v, np.float64))
    | st.lists(st.booleans(), min_size=2).map(np.array)
    | texts.map(text)
)
def test_labels_are_numbered_as_scikit_learn_does(labels) -> None:
    violations = Violations()
    targets = prepare_targets(column(labels), [0], CROSS_ENTROPY, Precision.FLOAT32, None, violations)
    if len(set(labels.tolist())) < 2:
        assert targets is None
        assert violations
        return
    encoder = LabelEncoder().fit(labels.tolist())
    assert list(targets.classes) == encoder.classes_.tolist()
    assert targets.values.dtype == np.int64
    assert targets.values.tolist() == encoder.transform(labels.tolist()).tolist()
    loaded = load_targets(column(labels), [0], CROSS_ENTROPY, Precision.FLOAT32, targets.classes)
    assert np.array_equal(loaded, targets.values)


@given(st.lists(st.booleans(), min_size=2).filter(lambda v: len(set(v)) == 2), st.sampled_from(Precision))
def test_two_classes_are_0_and_1_of_the_precision(truth, precision) -> None:
    for labels in (np.array(truth), np.array(truth, np.float64), text(["yes" if t else "no" for t in truth])):
        targets = prepare_targets(column(labels), [0], BCE, precision, None, Violations())
        assert targets.values.dtype == np.dtype(precision.value)
        assert targets.values.tolist() == [[float(t)] for t in truth]


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 3))), st.sampled_from(Precision))
def test_numbers_are_used_only_where_all_are_finite_in_the_precision(matrix, precision) -> None:
    columns = TensorColumns(TensorPair(matrix, matrix))
    with np.errstate(over="ignore"):
        converted = matrix.astype(precision.value)
    violations = Violations()
    features = prepare_features(columns, range(matrix.shape[1]), precision, violations)
    targets = prepare_targets(
        columns, range(matrix.shape[1], 2 * matrix.shape[1]), MSE, precision, None, violations
    )
    if np.isfinite(converted).all():
        assert np.array_equal(features, converted)
        assert features.flags.c_contiguous
        assert np.array_equal(targets.values, converted)
    else:
        assert features is None
        assert targets is None
        wrong = int((~np.isfinite(converted)).any(axis=0).sum())
        assert len(violations.found) == 2 * wrong


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "int32", "int64", "uint8", "float16", "float32"])
def test_numbers_of_every_type_are_converted(dtype) -> None:
    values = np.array([0, 1, 1]).astype(dtype)
    matrix = prepare_features(column(values), [0], Precision.FLOAT64, Violations())
    assert matrix.tolist() == [[0.0], [1.0], [1.0]]
    assert wrong_value(values, Precision.FLOAT64) is None


@pytest.mark.parametrize(
    ("labels", "classes"),
    [(["b", None, "a"], ("a", "b")), ([1.0, float("nan"), 0.0], (0, 1)), ([1.0, float("inf"), 0.0], (0, 1))],
)
def test_a_missing_label_of_a_fleet_is_the_matter_of_its_row(labels, classes) -> None:
    values = np.array(labels, dtype=object if isinstance(labels[0], str) else None)
    found = []
    for loss in (CROSS_ENTROPY, BCE):
        unusable, violations = UnusableRows(), Violations()
        targets = prepare_targets(column(values), [0], loss, Precision.FLOAT32, None, violations, unusable)
        assert not violations
        assert targets.classes == classes
        assert unusable.by_reason[TARGET_NOT_FINITE].tolist() == [False, True, False]
        found.append(targets.values.reshape(-1)[[0, 2]].tolist())
        loaded = load_targets(column(values), [0], loss, Precision.FLOAT32, classes, is_fleet=True)
        assert np.array_equal(loaded[[0, 2]], targets.values[[0, 2]])
    assert found == [[1, 0], [1, 0]]


def test_labels_that_are_all_missing_are_a_fault_of_a_fleet_too() -> None:
    violations = Violations()
    values = np.full(3, np.nan)
    prepare_targets(column(values), [0], CROSS_ENTROPY, Precision.FLOAT32, None, violations, UnusableRows())
    assert violations


def test_targets_of_a_fleet_that_are_not_finite_are_the_matter_of_their_rows() -> None:
    violations, unusable = Violations(), UnusableRows()
    values = np.array([1.0, np.nan, 1e300])
    targets = prepare_targets(column(values), [0], MSE, Precision.FLOAT32, None, violations, unusable)
    assert not violations
    assert targets.values[0].tolist() == [1]
    assert unusable.by_reason[TARGET_NOT_FINITE].tolist() == [False, True, True]
    loaded = load_targets(column(values), [0], MSE, Precision.FLOAT32, None, is_fleet=True)
    assert np.array_equal(loaded, targets.values, equal_nan=True)


@pytest.mark.parametrize("value", [np.nan, 1e300])
def test_features_of_a_fleet_that_are_not_finite_are_the_matter_of_their_rows(value) -> None:
    values = np.array([1.0, value, 3.0])
    for check in (prepare_features, check_features):
        violations, unusable = Violations(), UnusableRows()
        check(column(values), [0], Precision.FLOAT32, violations, unusable)
        assert not violations
        assert unusable.by_reason[FEATURE_NOT_FINITE].tolist() == [False, True, False]
