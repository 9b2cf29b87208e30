"""Row weights."""

import math

import numpy as np
import pytest

from epochd_server.data.columns import TableColumns
from epochd_server.data.fitness import WEIGHT_NOT_VALID, UnusableRows
from epochd_server.data.weights import prepare_weights
from epochd_server.domain.data import Column, Table
from epochd_server.domain.errors import Violations
from epochd_server.domain.specs import Precision


def column(values: list) -> TableColumns:
    dtype = object if isinstance(values[0], str) else None
    return TableColumns(Table((Column("w", np.array(values, dtype=dtype)),)))


def fault(values: list) -> str:
    violations = Violations()
    assert prepare_weights(column(values), 0, Precision.FLOAT32, violations) is None
    (violation,) = violations.found
    assert violation.field == "data.table.columns[0]"
    return violation.description


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("values", [[0.0, 1.5], [0, 3], [True, False]])
def test_weights_have_the_precision_of_the_training(precision, values) -> None:
    weights = prepare_weights(column(values), 0, precision, Violations())
    assert weights.dtype == np.dtype(precision.value)
    assert weights.tolist() == values


def test_without_a_column_all_rows_count_alike() -> None:
    assert prepare_weights(column([1.0]), None, Precision.FLOAT32, Violations()) is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.0, -0.5, -1.0], "weight 'w' is -0.5 in row 1 and 1 more, counting from 0"),
        ([math.nan, 1.0], "weight 'w' is nan in row 0,"),
        ([1.0, math.inf], "weight 'w' is inf in row 1,"),
        ([1.0, 1e300], "weight 'w' is 1e+300 in row 1,"),
        ([0.0, 0.0], "weight 'w' is 0 in every row"),
        (["a", "b"], "weight 'w' is text"),
    ],
)
def test_what_cannot_be_a_weight_is_named_with_its_first_row(values, said) -> None:
    assert fault(values).startswith(said)


def test_in_a_fleet_bad_weights_are_the_matter_of_their_rows() -> None:
    violations, unusable = Violations(), UnusableRows()
    weights = prepare_weights(column([1.0, -1.0, math.nan, 0.0]), 0, Precision.FLOAT32, violations, unusable)
    assert not violations
    assert weights.tolist() == [1, 0, 0, 0]
    assert unusable.by_reason[WEIGHT_NOT_VALID].tolist() == [False, True, True, False]


def test_text_is_no_weight_in_a_fleet_either() -> None:
    violations = Violations()
    assert prepare_weights(column(["a"]), 0, Precision.FLOAT32, violations, UnusableRows()) is None
    assert [violation.field for violation in violations.found] == ["data.table.columns[0]"]
