"""What is kept of requests, and the field in which two differ."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochd.v1 import models_pb2, runs_pb2, spec_pb2, tensor_pb2, trainer_pb2
from epochd_server.codec import asked as codec
from epochd_server.codec.asked import decode_asked, first_difference, reused
from epochd_server.domain.errors import Violations
from epochd_server.domain.once import AskedOnce


def asked_of(request) -> AskedOnce:
    named = type(request)()
    named.CopyFrom(request)
    named.request_id = named.request_id or "r-1"
    found = decode_asked(named, Violations())
    assert found is not None
    return found


def difference(one, other) -> str | None:
    before, now = asked_of(one), asked_of(other)
    return first_difference(before.message, before.fields, now.fields)


def training(rows: int = 2, **fields) -> trainer_pb2.TrainRequest:
    """A request of three columns with so many rows."""
    columns = [
        tensor_pb2.Column(name=name, numbers=tensor_pb2.Numbers(values=range(rows)))
        for name in ("a", "b", "y")
    ]
    request = trainer_pb2.TrainRequest(
        model_name="m",
        data=spec_pb2.TrainingData(
            table=tensor_pb2.Table(columns=columns), feature_columns=["a", "b"], target_columns=["y"]
        ),
        model=spec_pb2.ModelSpec(linear=spec_pb2.LinearSpec()),
        gradient=spec_pb2.GradientFit(optimizer=spec_pb2.Optimizer(sgd=spec_pb2.Sgd(lr=0.1)), epochs=3),
        labels={"team": "a", "z": "1"},
    )
    request.MergeFrom(trainer_pb2.TrainRequest(**fields))
    return request


CHANGES = {
    "model_name": lambda r: setattr(r, "model_name", "n"),
    "data.table.columns[1].name": lambda r: setattr(r.data.table.columns[1], "name", "c"),
    "data.table.columns[3]": lambda r: r.data.table.columns.add(name="d"),
    "data.feature_columns": lambda r: r.data.feature_columns.append("c"),
    "model.linear.in_features": lambda r: setattr(r.model.linear, "in_features", 7),
    "gradient.optimizer.sgd.lr": lambda r: setattr(r.gradient.optimizer.sgd, "lr", 0.2),
    "gradient": lambda r: r.least_squares.SetInParent(),
    "seed": lambda r: setattr(r, "seed", 0),
    "labels['team']": lambda r: r.labels.update(team="b"),
    "labels['new']": lambda r: r.labels.update(new=""),
}


@pytest.mark.parametrize("field", CHANGES)
@pytest.mark.parametrize("rows", [2, 4_000])
@pytest.mark.parametrize("turned", [False, True])
def test_names_the_field_that_differs_whichever_of_them_came_first(field, rows, turned) -> None:
    one, other = training(rows), training(rows)
    CHANGES[field](other)
    assert difference(*((other, one) if turned else (one, other))) == field


def test_names_the_rows_of_a_column_where_one_request_is_long_and_the_other_short() -> None:
    assert difference(training(2), training(4_000)).startswith("data.table.columns[0].numbers")
    assert difference(training(2), training(4_000, seed=1)) == difference(training(4_000), training(2))


def test_names_the_first_of_several_by_number() -> None:
    one, other = training(), training()
    for change in CHANGES.values():
        change(other)
    assert difference(one, other) == "model_name"


@given(st.permutations(sorted(CHANGES)), st.integers(1, len(CHANGES)), st.sampled_from([2, 500]))
def test_of_several_changes_it_names_the_one_with_the_lowest_numbers(order, count, rows) -> None:
    one, other = training(rows), training(rows)
    for field in sorted(
        order[:count], key="gradient".__eq__
    ):  # what is changed within it would bring it back
        CHANGES[field](other)
    assert difference(one, other) == min(order[:count], key=list(FIRST).index)


FIRST = sorted(
    CHANGES,
    key=lambda field: (
        ["model_name", "data", "model", "gradient", "seed", "labels"].index(
            field.partition(".")[0].partition("[")[0]
        ),
        field.startswith("data.feature"),
        field != "gradient",  # another kind of fit: the whole of this one is gone
        field,
    ),
)

names = st.text("abc", max_size=3)
numbers = st.one_of(st.just(0.0), st.just(-0.0), st.floats(allow_nan=False, width=32))
labels = st.dictionaries(names, names, max_size=80)
changes = st.builds(
    runs_pb2.UpdateRunLabelsRequest, name=names, labels=labels, removed=st.lists(names, max_size=80)
)
aliases = st.builds(
    models_pb2.SetAliasRequest,
    model=names,
    alias=names,
    canary=st.none() | st.builds(models_pb2.Canary, version=names, percent=numbers),
)
columns = st.builds(
    tensor_pb2.Column,
    name=names,
    numbers=st.builds(tensor_pb2.Numbers, values=st.lists(numbers, max_size=200)),
)
trainings = st.builds(
    trainer_pb2.TrainRequest,
    model_name=names,
    data=st.builds(
        spec_pb2.TrainingData,
        table=st.builds(tensor_pb2.Table, columns=st.lists(columns, max_size=70)),
        feature_columns=st.lists(names, max_size=5),
    ),
    seed=st.none() | st.integers(0, 3),
)
pairs = st.one_of(*(st.tuples(kind, kind) for kind in (changes, aliases, trainings)))


@given(pairs)
def test_finds_a_difference_exactly_where_there_is_one(pair) -> None:
    one, other = pair
    found = difference(one, other)
    same = one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)
    assert (found is None) == same
    assert (asked_of(one).fingerprint == asked_of(other).fingerprint) == same
    assert found == difference(other, one)


@given(pairs)
def test_everything_before_the_field_it_names_is_equal_and_the_field_is_not(pair) -> None:
    one, other = pair
    found = difference(one, other)
    if found is None:
        return
    top = found.partition(".")[0].partition("[")[0]
    for field in type(one).DESCRIPTOR.fields:
        ours, theirs = (_alone(message, field) for message in pair)
        if field.number <= type(one).DESCRIPTOR.fields_by_name[top].number:
            assert (ours == theirs) == (field.name != top)


def _alone(message, field) -> bytes:
    alone = type(message)()
    alone.CopyFrom(message)
    for other in type(message).DESCRIPTOR.fields:
        if other.name != field.name:
            alone.ClearField(other.name)
    return alone.SerializeToString(deterministic=True)


def test_what_is_kept_of_the_longest_requests_is_short() -> None:
    wide = trainer_pb2.TrainRequest()
    wide.data.feature_columns.extend(f"column-{n}" for n in range(50_000))
    for n in range(10_000):
        wide.data.table.columns.add(name=f"column-{n}")
    assert len(asked_of(wide).fields) < 200
    assert len(asked_of(training(4_000)).fields) < 1_500


def test_too_many_fields_within_one_are_one(monkeypatch) -> None:
    monkeypatch.setattr(codec, "_MOST_FIELDS", 10)
    one, other = training(4_000), training(4_000)
    CHANGES["data.table.columns[1].name"](other)
    assert difference(one, other) == "data"
    assert difference(training(2), one) == "data"


def test_another_method_is_named_instead_of_a_field() -> None:
    before = asked_of(models_pb2.DeleteModelRequest(name="models/m"))
    now = asked_of(models_pb2.DeleteVersionRequest(name="models/m"))
    error = reused(before, now)
    assert error.metadata == {"request_id": "r-1", "method": "DeleteModel"}
    assert "of the method DeleteModel" in error.message


def test_fields_of_a_header_are_named_with_it() -> None:
    before, now = (asked_of(models_pb2.ImportHeader(model_name=name)) for name in ("a", "b"))
    assert reused(before, now).metadata["field"] == "header.model_name"


def test_of_a_request_of_which_nothing_was_kept_no_field_is_named() -> None:
    now = asked_of(training())
    before = AskedOnce(request_id="r-1", message=now.message, fingerprint=b"", fields=b"")
    assert reused(before, now).metadata == {"request_id": "r-1"}


def test_a_request_is_the_same_whatever_its_id() -> None:
    one, other = (training(request_id=request_id) for request_id in ("a", "b"))
    assert asked_of(one).fingerprint == asked_of(other).fingerprint
    assert difference(one, other) is None


def test_a_request_without_an_id_is_not_remembered_and_a_malformed_one_is_a_violation() -> None:
    violations = Violations()
    assert decode_asked(training(), violations) is None
    assert not violations
    assert decode_asked(training(request_id="a b"), violations) is None
    assert [violation.field for violation in violations.found] == ["request_id"]
