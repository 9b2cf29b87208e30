"""Keys of members: exact round trips, and everything wrong with one named."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochd.v1 import spec_pb2
from epochd_server.codec.keys import decode_key, encode_key
from epochd_server.domain.errors import Violations

values = (
    st.text(st.characters(codec="utf-8"), max_size=20)
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)


@given(st.lists(values, min_size=1, max_size=4).map(tuple))
def test_a_key_comes_back_with_its_types(key) -> None:
    found = decode_key(spec_pb2.MemberKey.FromString(encode_key(key).SerializeToString()), Violations())
    assert found == key
    assert [type(value) for value in found] == [type(value) for value in key]


def test_a_key_without_values_is_refused() -> None:
    violations = Violations()
    assert decode_key(spec_pb2.MemberKey(), violations) is None
    assert [violation.field for violation in violations.found] == ["values"]


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_everything_wrong_with_a_key_is_named(number) -> None:
    violations = Violations()
    parts = [spec_pb2.KeyValue(text=""), spec_pb2.KeyValue(), spec_pb2.KeyValue(number=number)]
    assert decode_key(spec_pb2.MemberKey(values=parts), violations) is None
    assert [violation.field for violation in violations.found] == ["values[1]", "values[2].number"]
