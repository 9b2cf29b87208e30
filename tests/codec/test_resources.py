"""Runs, models, versions, cards and datasets as clients and the store see them."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochd.v1 import datasets_pb2, run_pb2
from epochd_server.codec.datasets import check_digest, decode_format, encode_dataset
from epochd_server.codec.labels import decode_classes
from epochd_server.codec.models import decode_card, encode_card, encode_registered_model, encode_version
from epochd_server.codec.runs import decode_states, encode_run, encode_state
from epochd_server.codec.specs import join_spec, stored_sweep
from epochd_server.codec.times import decode_time, encode_time
from epochd_server.domain.datasets import Dataset, DatasetColumn, DatasetFormat
from epochd_server.domain.errors import EpochdError, Reason, Violations
from epochd_server.domain.models import Alias, Model, ModelVersion, VersionCard
from epochd_server.domain.resources import parse_model, parse_run, parse_version_reference
from epochd_server.domain.runs import Run, RunState

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


@given(st.from_type(VersionCard))
def test_a_card_survives_storage(card: VersionCard) -> None:
    assert decode_card(encode_card(card)) == card


@given(st.binary(max_size=60))
def test_other_bytes_are_a_corrupt_card(data: bytes) -> None:
    try:
        decode_card(data)
    except EpochdError as error:
        assert error.reason is Reason.ARTIFACT_CORRUPT  # noqa: PT017


@given(st.from_type(ModelVersion))
def test_a_version_says_all_that_its_card_does(version: ModelVersion) -> None:
    message = encode_version(version)
    card = version.card
    assert str(parse_version_reference(message.name)) == message.name
    assert decode_time(message.create_time) == version.create_time
    assert parse_run(message.run) == card.run_id
    assert decode_classes(message.classes) == card.classes
    assert message.HasField("classes") == (card.classes is not None)
    assert (message.parameters, message.rows, message.epochs) == (card.parameters, card.rows, card.epochs)
    assert list(message.feature_columns) == list(card.feature_columns)
    assert (message.members, message.failed_members) == (card.members, card.failed_members)
    spec = join_spec(
        message.model,
        message.loss,
        message,
        message.dtype,
        message.seed,
        message.logging,
        message.key_columns,
        stored_sweep(message.sweep, message.gradient) if message.HasField("sweep") else None,
        message.validation if message.HasField("validation") else None,
    )
    assert spec == card.spec
    origin = card.origin
    assert (message.fleet, message.HasField("member")) == (
        "" if origin is None else f"models/{origin.model}/versions/{origin.version}",
        origin is not None,
    )


@given(st.from_type(Run))
def test_a_run_says_all_that_is_known_of_it(run: Run) -> None:
    message = encode_run(run)
    assert parse_run(message.name) == run.run_id
    assert parse_model(message.model) == run.model
    assert message.state == encode_state(run.state)
    assert decode_time(message.create_time) == run.create_time
    assert message.HasField("start_time") == (run.start_time is not None)
    assert message.HasField("end_time") == (run.end_time is not None)
    assert bool(message.model_version) == (run.version is not None)
    assert message.HasField("failure") == (run.failure is not None)
    assert message.HasField("latest_log") == (run.latest_log is not None)
    assert message.latest_sequence == run.latest_sequence
    assert message.epochs == run.spec.fit.epochs
    held_out = message.validation if message.HasField("validation") else None
    spec = join_spec(
        message.spec, message.loss, message, message.dtype, message.seed, message.logging, validation=held_out
    )
    assert spec == replace(run.spec, key_columns=(), sweep=None)


def test_a_model_lists_its_aliases_in_order() -> None:
    model = Model(
        model="m",
        latest_version=3,
        create_time=NOON,
        update_time=NOON,
        aliases={
            "champion": Alias(version=2, etag="2-a", update_time=NOON),
            "best": Alias(version=3, etag="1-b", update_time=NOON),
        },
    )
    message = encode_registered_model(model)
    assert message.name == "models/m"
    assert message.latest_version == "models/m/versions/3"
    assert [(alias.alias, alias.version) for alias in message.aliases] == [
        ("best", "models/m/versions/3"),
        ("champion", "models/m/versions/2"),
    ]


@pytest.mark.parametrize("state", RunState)
def test_states_have_their_numbers(state: RunState) -> None:
    assert run_pb2.RunState.Name(encode_state(state)) == f"RUN_STATE_{state.name}"
    assert decode_states([encode_state(state)], Violations()) == (state,)


def test_states_asked_for_twice_count_once_and_unknown_ones_are_named() -> None:
    violations = Violations()
    assert decode_states([2, 2, 1, 99, 0], violations) == (RunState.RUNNING, RunState.QUEUED)
    assert [violation.field for violation in violations.found] == ["states[3]", "states[4]"]


@pytest.mark.parametrize("format_", DatasetFormat)
def test_formats_have_their_numbers(format_: DatasetFormat) -> None:
    number = datasets_pb2.DatasetFormat.Value(f"DATASET_FORMAT_{format_.name}")
    assert decode_format(number, Violations()) is format_


@pytest.mark.parametrize("number", [0, 99])
def test_other_formats_are_a_violation(number: int) -> None:
    violations = Violations()
    assert decode_format(number, violations) is None
    assert [violation.field for violation in violations.found] == ["format"]


@pytest.mark.parametrize("digest", ["", "a" * 63, "a" * 65, "A" * 64, "../" + "a" * 61, "a" * 64 + "\n"])
def test_a_digest_is_lower_case_hex(digest: str) -> None:
    violations = Violations()
    check_digest(digest, violations)
    assert violations
    good = Violations()
    check_digest("0f" * 32, good)
    assert not good


def test_a_dataset_names_the_types_of_its_columns() -> None:
    dataset = Dataset(
        digest="0f" * 32,
        format=DatasetFormat.CSV,
        rows=3,
        columns=(DatasetColumn("x", "float64"), DatasetColumn("s", None)),
        size_bytes=10,
        create_time=NOON,
    )
    message = encode_dataset(dataset)
    assert message.name == "datasets/" + "0f" * 32
    assert [(column.name, column.dtype) for column in message.columns] == [("x", 10), ("s", 0)]
    assert (message.rows, message.size_bytes) == (3, 10)


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_are_exact_and_agree_with_protobufs_own(time: datetime) -> None:
    message = encode_time(time)
    assert decode_time(message) == time
    assert message.ToDatetime(UTC) == time
