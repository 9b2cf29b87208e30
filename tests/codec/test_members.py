"""Keys of members on the wire."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochd.v1 import spec_pb2
from epochd_server.codec.members import decode_key, encode_key, encode_keys, stored_key
from epochd_server.domain.errors import EpochdError, Reason, Violations
from epochd_server.domain.fleets import Key

values = (
    st.text(st.characters(codec="utf-8"))
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
keys = st.lists(values, min_size=1, max_size=16).map(tuple)


@given(keys)
def test_a_key_comes_back_with_its_types(key: Key) -> None:
    for decoded in (decode_key(encode_key(key), Violations()), stored_key(encode_key(key))):
        assert decoded == key
        assert list(map(type, decoded)) == list(map(type, key))


@given(st.lists(keys, max_size=4))
def test_keys_keep_their_order(several: list[Key]) -> None:
    assert [stored_key(message) for message in encode_keys(several)] == several


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (spec_pb2.MemberKey(), "values"),
        (spec_pb2.MemberKey(values=[spec_pb2.KeyValue(integer=1)] * 17), "values"),
        (spec_pb2.MemberKey(values=[spec_pb2.KeyValue(integer=1), spec_pb2.KeyValue()]), "values[1].value"),
        (spec_pb2.MemberKey(values=[spec_pb2.KeyValue(number=float("nan"))]), "values[0].number"),
        (spec_pb2.MemberKey(values=[spec_pb2.KeyValue(number=float("inf"))]), "values[0].number"),
    ],
)
def test_a_malformed_key_is_a_violation_of_a_request_and_corrupt_in_storage(message, field) -> None:
    violations = Violations()
    assert decode_key(message, violations) is None
    assert [violation.field for violation in violations.found] == [field]
    with pytest.raises(EpochdError) as caught:
        stored_key(message)
    assert caught.value.reason is Reason.ARTIFACT_CORRUPT
