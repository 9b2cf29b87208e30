"""Roles: which columns are learned from and which are predicted."""

from hypothesis import given
from hypothesis import strategies as st

from epochd_server.data.selection import select
from epochd_server.domain.data import ColumnRoles
from epochd_server.domain.errors import Violations

unique_names = st.lists(st.sampled_from("abcdefgh"), unique=True)


@given(unique_names.filter(lambda names: len(names) > 1), st.data())
def test_good_roles_are_found_in_their_order(names, data) -> None:
    shuffled = data.draw(st.permutations(names))
    cut = data.draw(st.integers(1, len(names) - 1))
    features, targets = shuffled[:cut], shuffled[cut:]
    violations = Violations()
    selection = select(names, ColumnRoles(features=tuple(features), targets=tuple(targets)), violations)
    assert not violations
    assert selection.complete
    assert [names[index] for index in selection.features] == features
    assert [names[index] for index in selection.targets] == targets


@given(unique_names.filter(lambda names: len(names) > 1))
def test_without_features_every_other_column_is_one(names) -> None:
    selection = select(names, ColumnRoles(targets=(names[-1],)), Violations())
    assert selection.features == tuple(range(len(names) - 1))


@given(
    unique_names,
    st.lists(st.sampled_from("abxyz"), max_size=12),
    st.lists(st.sampled_from("abxyz"), max_size=12),
)
def test_each_faulty_name_has_a_violation_and_the_others_are_found(names, features, targets) -> None:
    violations = Violations()
    selection = select(names, ColumnRoles(features=tuple(features), targets=tuple(targets)), violations)
    assert selection.complete == (not violations)
    fields = {violation.field for violation in violations.found}
    for role, wanted in (("feature", features), ("target", targets)):
        for position, name in enumerate(wanted):
            faulty = name not in names or name in wanted[:position]
            both = role == "feature" and name in targets
            assert (f"data.{role}_columns[{position}]" in fields) == (faulty or both)
    found = {names[index] for index in selection.targets}
    assert found == set(targets) & set(names)


def test_features_are_the_columns_without_another_role() -> None:
    roles = ColumnRoles(targets=("y",), groups=("store", "year"), weight="w")
    names = ("year", "a", "w", "y", "store", "b")
    selection = select(names, roles, Violations())
    assert (selection.features, selection.targets) == ((1, 5), (3,))
    assert (selection.groups, selection.weight) == ((4, 0), 2)
    assert selection.roles(names) == ColumnRoles(
        features=("a", "b"), targets=("y",), groups=("store", "year"), weight="w"
    )


def test_columns_of_two_roles_are_named_in_the_later_one() -> None:
    violations = Violations()
    roles = ColumnRoles(features=("x", "y", "k", "w"), targets=("y",), groups=("k", "y"), weight="w")
    select(("x", "y", "k", "w"), roles, violations)
    assert {violation.field: violation.description for violation in violations.found} == {
        "data.group_columns[1]": "'y' is a target column too",
        "data.feature_columns[1]": "'y' is a target column too",
        "data.feature_columns[2]": "'k' is a key column too",
        "data.feature_columns[3]": "'w' is the weight column too",
    }
    violations = Violations()
    select(("x", "y", "k"), ColumnRoles(targets=("y",), groups=("k",), weight="k"), violations)
    assert [violation.field for violation in violations.found] == ["data.weight_column"]


def test_unknown_keys_and_weights_come_with_the_nearest_column() -> None:
    violations = Violations()
    roles = ColumnRoles(targets=("y",), groups=("stroe", "store", "store"), weight="wieght")
    select(("x", "y", "store", "weight"), roles, violations)
    assert {violation.field: violation.description for violation in violations.found} == {
        "data.group_columns[0]": "'stroe' is no column of the data; did you mean 'store'?",
        "data.group_columns[2]": "'store' is listed twice",
        "data.weight_column": "'wieght' is no column of the data; did you mean 'weight'?",
    }
