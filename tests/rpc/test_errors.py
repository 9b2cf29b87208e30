"""What a client receives for each error, read back with googleapis' own stubs."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from epochd.v1 import errors_pb2
from epochd_server.domain.errors import CATALOG, Code, EpochdError, FieldViolation, InvalidInput, Reason
from epochd_server.rpc.errors import STATUS_CODES, internal, shorten, to_status

TRAILER_LIMIT = 8 * 1024


def details(status: status_pb2.Status, kind: type) -> list:
    found = []
    for packed in status.details:
        message = kind()
        if packed.Unpack(message):
            found.append(message)
    return found


@pytest.mark.parametrize("code", Code)
def test_every_code_of_the_domain_is_the_grpc_code_of_its_name(code):
    assert STATUS_CODES[code].name == code.value
    assert STATUS_CODES[code].value[0] == code_pb2.Code.Value(code.value)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_status_with_its_error_info(reason):
    status = to_status(EpochdError(reason, metadata={"name": "runs/x"}), "call-1")
    assert status.code == STATUS_CODES[CATALOG[reason].code].value[0]
    assert status.message == CATALOG[reason].message
    (info,) = details(status, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == (reason.value, "epochd")
    assert dict(info.metadata) == {"request_id": "call-1", "name": "runs/x"}


@pytest.mark.parametrize("reason", Reason)
def test_retry_info_is_given_exactly_where_the_catalog_names_a_delay(reason):
    found = details(to_status(EpochdError(reason), "x"), error_details_pb2.RetryInfo)
    delay = CATALOG[reason].retry_after_seconds
    assert [info.retry_delay.ToTimedelta().total_seconds() for info in found] == (
        [] if delay is None else [delay]
    )


def test_no_code_is_ok():
    assert grpc.StatusCode.OK not in STATUS_CODES.values()


def test_invalid_input_lists_every_violation():
    violations = [FieldViolation(f"data.table.columns[{i}]", f"is bad, number {i}") for i in range(25)]
    (listed,) = details(to_status(InvalidInput(violations), "x"), error_details_pb2.BadRequest)
    assert [(v.field, v.description) for v in listed.field_violations] == [
        (v.field, v.description) for v in violations
    ]


def test_more_violations_than_fit_are_counted():
    violations = [FieldViolation(f"field{i}", "x" * 100) for i in range(500)]
    (listed,) = details(to_status(InvalidInput(violations), "x"), error_details_pb2.BadRequest)
    *shown, last = listed.field_violations
    assert shown[0].field == "field0"
    assert last.description == f"and {500 - len(shown)} more that do not fit into this answer"


def test_the_details_parse_as_epochds_own_mirror_of_google_rpc():
    data = to_status(InvalidInput([FieldViolation("seed", "must be >= 0")]), "call-1").SerializeToString()
    status = errors_pb2.ErrorStatus.FromString(data)
    info = errors_pb2.ErrorInfo.FromString(status.details[0].value)
    listed = errors_pb2.BadRequest.FromString(status.details[1].value)
    assert info.reason == "INVALID_FIELDS"
    assert [(v.field, v.description) for v in listed.field_violations] == [("seed", "must be >= 0")]


def test_a_bug_tells_nothing_but_where_to_look():
    status = to_status(internal(), "call-1")
    assert status.code == code_pb2.INTERNAL
    assert status.message == "Internal error. The server's log has the details."


@given(st.text(), st.integers(min_value=3, max_value=50))
def test_shortened_text_fits_and_is_a_beginning(text, limit):
    short = shorten(text, limit)
    assert len(short.encode()) <= limit
    assert short == text or text.startswith(short.removesuffix("…"))


@given(
    st.lists(
        st.builds(FieldViolation, st.text(max_size=2_000), st.text(max_size=2_000)), min_size=1, max_size=60
    ),
    st.dictionaries(st.text(max_size=300), st.text(max_size=3_000)),
)
def test_no_error_outgrows_the_trailers_limit(violations, metadata):
    """gRPC drops a trailer of more than 8 KiB, and with it the reason of the refusal."""
    error = InvalidInput(violations)
    error.metadata.update(metadata)
    status = to_status(error, "x" * 128)
    percent_encoded = 3 * len(status.message.encode())
    base64 = 4 * (status.ByteSize() + 2) / 3
    assert percent_encoded + base64 < TRAILER_LIMIT - 500


def test_the_documented_table_is_the_catalog():
    """docs/errors.md has one row a reason: its code, its delay and its message."""
    page = Path(__file__).parents[2] / "docs" / "errors.md"
    rows = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in page.read_text().splitlines()
        if line.startswith("| `")
    ]
    assert rows == [documented(reason) for reason in Reason]


def documented(reason: Reason) -> tuple[str, ...]:
    entry = CATALOG[reason]
    delay = "" if entry.retry_after_seconds is None else f"{entry.retry_after_seconds:g} s"
    return (f"`{reason.value}`", f"`{entry.code.value}`", delay, entry.message)
