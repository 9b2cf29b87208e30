"""Rows by member: held against pandas, which nobody here wrote."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import ipc

from epochd_server.data.columns import Columns, TableColumns
from epochd_server.data.grouping import MAX_KEY_TEXT, Assignment, assign_members, find_member
from epochd_server.data.loading import ArrowColumns
from epochd_server.domain.data import Column, Table
from epochd_server.domain.errors import Violations

MANY = 1_000_000
texts = st.text(st.characters(codec="utf-8"), max_size=3)
near = st.integers(-3, 3)
anywhere = st.sampled_from([-(2**63), -1, 0, 7, 10**12, 2**63 - 1])


@st.composite
def key_columns(draw: st.DrawFn) -> list[list[str] | list[int]]:
    rows = draw(st.integers(1, 30))
    kinds = draw(st.lists(st.sampled_from([texts, near, anywhere]), min_size=1, max_size=3))
    return [draw(st.lists(kind, min_size=rows, max_size=rows)) for kind in kinds]


def inline(columns: Sequence[list]) -> Columns:
    def array(values: list) -> np.ndarray:
        return np.array(values, dtype=object if isinstance(values[0], str) else np.int64)

    return TableColumns(
        Table(tuple(Column(f"k{index}", array(values)) for index, values in enumerate(columns)))
    )


def stored(path: str, columns: Sequence[list]) -> Columns:
    table = pa.table({f"k{index}": values for index, values in enumerate(columns)})
    with ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    return ArrowColumns(path)


def assigned(columns: Columns, count: int) -> Assignment:
    violations = Violations()
    assignment = assign_members(columns, range(count), MANY, violations)
    assert not violations
    assert assignment is not None
    return assignment


def faults(columns: Columns, limit: int = MANY) -> dict[str, str]:
    violations = Violations()
    assert assign_members(columns, range(len(columns.names)), limit, violations) is None
    return {violation.field: violation.description for violation in violations.found}


@given(key_columns())
def test_members_rows_and_their_order_are_those_of_pandas(columns) -> None:
    assignment = assigned(inline(columns), len(columns))
    # pandas keeps integers exact only where every column is an object
    frame = pd.DataFrame({index: pd.Series(values, dtype=object) for index, values in enumerate(columns)})
    groups = {
        key if isinstance(key, tuple) else (key,): rows.index.tolist()
        for key, rows in frame.groupby(list(frame.columns), sort=True)
    }
    keys = [assignment.keys.key(member) for member in range(len(assignment.keys))]
    assert keys == sorted(groups)
    order, offsets = assignment.order(), assignment.offsets()
    rows = np.arange(len(columns[0])) if order is None else order
    for member, key in enumerate(keys):
        assert rows[offsets[member] : offsets[member + 1]].tolist() == groups[key]
    assert offsets[-1] == len(columns[0])


@given(key_columns())
def test_a_stored_dataset_is_grouped_as_a_table_is(tmp_path_factory, columns) -> None:
    path = str(tmp_path_factory.getbasetemp() / "keys.arrow")
    left, right = assigned(inline(columns), len(columns)), assigned(stored(path, columns), len(columns))
    assert np.array_equal(left.members, right.members)
    for ours, theirs in zip(left.keys.columns, right.keys.columns, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.tolist() == theirs.tolist()


@given(key_columns(), st.data())
def test_a_key_is_found_among_the_others(columns, data) -> None:
    keys = assigned(inline(columns), len(columns)).keys
    member = data.draw(st.integers(0, len(keys) - 1))
    assert find_member(keys, keys.key(member)) == member


@given(key_columns(), st.data())
def test_a_key_of_no_member_is_not_found(columns, data) -> None:
    keys = assigned(inline(columns), len(columns)).keys
    other = tuple(data.draw(texts if isinstance(values[0], str) else near) for values in columns)
    known = {keys.key(member) for member in range(len(keys))}
    assert (find_member(keys, other) is None) == (other not in known)


def test_rows_that_are_sorted_already_are_left_as_they_are() -> None:
    assert assigned(inline([[1, 1, 5, 9, 9]]), 1).order() is None


def test_a_hundred_thousand_rows_keep_their_order_within_a_member() -> None:
    values = np.random.default_rng(0).integers(0, 1_000, 100_000)
    order = assigned(TableColumns(Table((Column("k", values),))), 1).order()
    assert np.array_equal(order, np.argsort(values, kind="stable"))


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.uint8, np.int16, np.int32, np.int64])
def test_integers_of_every_width_are_keys(dtype) -> None:
    table = Table((Column("k", np.array([1, 0, 1], dtype)),))
    keys = assigned(TableColumns(table), 1).keys
    assert [keys.key(member) for member in range(2)] == [(0,), (1,)]
    assert keys.columns[0].dtype == np.int64


def test_floating_point_keys_are_a_fault() -> None:
    found = faults(TableColumns(Table((Column("k", np.array([1.0, 2.0])),))))
    assert found == {
        "data.table.columns[0]": "key 'k' holds floating-point numbers; keys are text or integers"
    }


@pytest.mark.parametrize("values", [["a", None, "b", None], [1, None, 2, None]])
def test_a_missing_key_is_named_with_its_first_row(tmp_path, values) -> None:
    found = faults(stored(str(tmp_path / "keys.arrow"), [values]))
    assert found == {
        "data.dataset": "key 'k0' is missing in row 1 and 1 more, counting from 0; every row needs a key"
    }


def test_faults_of_all_key_columns_are_named_at_once() -> None:
    table = Table((Column("a", np.array([0.5])), Column("b", np.array(["x" * 2_000], dtype=object))))
    found = faults(TableColumns(table))
    assert set(found) == {"data.table.columns[0]", "data.table.columns[1]"}
    assert f"2,000 characters, at most {MAX_KEY_TEXT:,}" in found["data.table.columns[1]"]


def test_more_keys_than_the_limit_are_a_fault() -> None:
    found = faults(inline([[1, 2, 3, 1]]), limit=2)
    assert found == {"data.group_columns": "'k0' would make 3 members, at most 2 are allowed"}
    assert assign_members(inline([[1, 2, 3, 1]]), [0], 3, Violations()) is not None
