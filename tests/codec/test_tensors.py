"""Tensors: exact round trips, and nothing a hostile message says makes an exception or an allocation."""

import struct
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
import torch
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from epochd.v1 import tensor_pb2 as pb
from epochd_server.codec.tensors import (
    NUMBERS,
    decode_dtype,
    decode_raw,
    decode_tensor,
    encode_raw,
    encode_tensor,
    item_size,
)
from epochd_server.domain.errors import Violations

NUMPY_TYPES = [name for name in NUMBERS if name != "bfloat16"]
INTEGERS = ["bool", "int8", "int16", "int32", "int64", "uint8"]
INFINITE = 0x7F80
LARGEST = float(np.finfo(np.float32).max)
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
arrays = st.sampled_from(NUMPY_TYPES).flatmap(lambda name: hnp.arrays(np.dtype(name), shapes))


def faults(message: pb.Tensor) -> dict[str, str]:
    violations = Violations()
    assert decode_tensor(message, violations) is None
    return {violation.field: violation.description for violation in violations.found}


@given(arrays)
def test_an_array_comes_back_to_the_bit(array) -> None:
    violations = Violations()
    decoded = decode_tensor(pb.Tensor.FromString(encode_tensor(array).SerializeToString()), violations)
    assert not violations
    assert decoded.dtype == array.dtype
    assert decoded.shape == array.shape
    assert decoded.tobytes() == array.tobytes()


@given(arrays)
def test_layout_and_byte_order_of_an_array_do_not_matter(array) -> None:
    turned = array.copy(order="F").astype(array.dtype.newbyteorder(">"))
    assert encode_tensor(turned) == encode_tensor(array)
    assert encode_tensor(array.T).data == np.ascontiguousarray(array.T).tobytes()


@given(arrays)
def test_raw_tensors_keep_their_bytes(array) -> None:
    message = encode_tensor(array)
    raw = decode_raw(message, Violations())
    assert (raw.dtype, raw.shape, bytes(raw.data)) == (array.dtype.name, array.shape, message.data)
    assert encode_raw(raw) == message


def test_the_elements_are_little_endian() -> None:
    assert encode_tensor(np.array([1, 256], np.int16)).data == struct.pack("<2h", 1, 256)


def test_decoding_copies_nothing_but_the_messages_own_bytes() -> None:
    message = encode_tensor(np.zeros(1_000_000))
    tracemalloc.start()
    decoded = decode_tensor(message, Violations())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not decoded.flags.writeable
    assert peak < 8_100_000


@given(st.lists(st.floats(width=32), max_size=20))
def test_bfloat16_bytes_become_the_same_numbers_in_float32(numbers) -> None:
    tensor = torch.tensor(numbers, dtype=torch.bfloat16)
    data = tensor.view(torch.int16).numpy().tobytes()
    message = pb.Tensor(dtype=pb.DATA_TYPE_BFLOAT16, shape=[len(numbers)], data=data)
    assert np.array_equal(decode_tensor(message, Violations()), tensor.float().numpy(), equal_nan=True)


@settings(max_examples=300)
@given(st.lists(st.floats(), min_size=1, max_size=20))
def test_plain_numbers_are_rounded_to_bfloat16_once(numbers) -> None:
    message = pb.Tensor(dtype=pb.DATA_TYPE_BFLOAT16, shape=[len(numbers)], numbers=pb.Numbers(values=numbers))
    decoded = decode_tensor(message, Violations())
    for number, rounded in zip(numbers, decoded.tolist(), strict=True):
        assert np.array_equal(rounded, nearest_bfloat16(number), equal_nan=True)


def nearest_bfloat16(number: float) -> float:
    """Of the bfloat16 around a float64 the nearest, or of two the one with an even mantissa; in exact arithmetic."""
    if not np.isfinite(number):
        return number
    exact = abs(Fraction(number))
    code = 0x7F7F if abs(number) > LARGEST else int(np.float32(abs(number)).view(np.uint32)) >> 16
    around = range(max(code - 1, 0), min(code + 2, INFINITE) + 1)
    nearest = min(around, key=lambda c: (abs(value_of(c) - exact), c & 1))
    return float(np.copysign(np.inf if nearest == INFINITE else float(value_of(nearest)), number))


def value_of(code: int) -> Fraction:
    """A bfloat16's value; infinity counts as the next power of two, as in IEEE rounding."""
    return Fraction(2**128) if code == INFINITE else Fraction(float(np.uint32(code << 16).view(np.float32)))


@given(st.sampled_from(["float16", "float32", "float64"]), st.lists(st.floats(), max_size=100))
def test_plain_numbers_are_converted_as_numpy_does(dtype, numbers) -> None:
    message = pb.Tensor(dtype=NUMBERS[dtype], shape=[len(numbers)], numbers=pb.Numbers(values=numbers))
    with np.errstate(over="ignore"):
        expected = np.array(numbers, np.float64).astype(dtype)
    assert np.array_equal(decode_tensor(message, Violations()), expected, equal_nan=True)


@given(st.sampled_from(INTEGERS), st.floats() | st.integers(-(2**65), 2**65).map(float))
def test_plain_numbers_must_fit_an_integer_type(dtype, number) -> None:
    low, high = (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    message = pb.Tensor(dtype=NUMBERS[dtype], shape=[], numbers=pb.Numbers(values=[number]))
    violations = Violations()
    decoded = decode_tensor(message, violations)
    if np.isfinite(number) and number == int(number) and low <= int(number) <= high:
        assert int(decoded) == int(number)
    else:
        assert [violation.field for violation in violations.found] == ["numbers.values[0]"]


def test_plain_numbers_without_a_type_are_float64() -> None:
    decoded = decode_tensor(pb.Tensor(shape=[2], numbers=pb.Numbers(values=[0.1, 2])), Violations())
    assert decoded.dtype == np.float64
    assert decoded.tolist() == [0.1, 2]


def test_nothing_is_needed_where_the_shape_has_a_zero() -> None:
    decoded = decode_tensor(pb.Tensor(dtype=pb.DATA_TYPE_INT8, shape=[3, 0]), Violations())
    assert decoded.shape == (3, 0)
    assert decoded.dtype == np.int8


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.Tensor(shape=[1], data=b"\0"), "dtype"),
        (pb.Tensor(dtype=99, shape=[1], data=b"\0"), "dtype"),
        (pb.Tensor(dtype=1, shape=[2], data=b"\1\2"), "data"),
        (pb.Tensor(dtype=9, shape=[2], data=b"\0" * 7), "data"),
        (pb.Tensor(dtype=9, shape=[2], data=b"\0" * 9), "data"),
        (pb.Tensor(dtype=9, shape=[2]), "elements"),
        (pb.Tensor(dtype=9, shape=[0], data=b"\0"), "data"),
        (pb.Tensor(dtype=9, shape=[-1], data=b""), "shape[0]"),
        (pb.Tensor(dtype=9, shape=[1] * 17, data=b"\0" * 4), "shape"),
        (pb.Tensor(dtype=9, shape=[2**32, 2**32], data=b""), "shape"),
        (pb.Tensor(dtype=9, shape=[0, 2**62], data=b""), "shape"),
        (pb.Tensor(shape=[2], numbers=pb.Numbers(values=[1])), "numbers"),
    ],
)
def test_each_fault_has_its_field(message, field) -> None:
    assert list(faults(message)) == [field]


def test_all_faults_of_a_tensor_are_named_at_once() -> None:
    message = pb.Tensor(dtype=99, shape=[-1, -2], data=b"")
    assert set(faults(message)) == {"dtype", "shape[0]", "shape[1]"}


def test_an_unknown_number_straight_from_the_wire_is_named() -> None:
    message = pb.Tensor.FromString(b"\x08\xe7\x07\x12\x01\x01\x1a\x01\x00")
    assert faults(message) == {"dtype": "999 is no known DataType"}


@pytest.mark.parametrize("name", list(NUMBERS))
def test_sizes_and_names_are_pytorchs(name) -> None:
    dtype = getattr(torch, name)
    assert item_size(name) == torch.empty(0, dtype=dtype).element_size()
    assert decode_dtype(NUMBERS[name], Violations()) == name


hostile_sizes = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, 2, 2**31, 2**32, 2**62])
hostile = st.builds(
    pb.Tensor,
    dtype=st.integers(-(2**31), 2**31 - 1) | st.integers(0, 12),
    shape=st.lists(hostile_sizes, max_size=20),
    data=st.binary(max_size=50),
) | st.builds(
    pb.Tensor,
    dtype=st.integers(0, 12),
    shape=st.lists(st.integers(-1, 4), max_size=3),
    numbers=st.builds(pb.Numbers, values=st.lists(st.floats(), max_size=10)),
)


@settings(max_examples=400, deadline=None)
@given(hostile)
def test_a_hostile_tensor_is_decoded_or_has_violations_and_costs_nothing(message) -> None:
    violations = Violations()
    tracemalloc.start()
    decoded = decode_tensor(message, violations)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (decoded is None) == bool(violations)
    assert peak < 100_000


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_tensor_or_have_violations(data) -> None:
    try:
        message = pb.Tensor.FromString(data)
    except DecodeError:
        return
    violations = Violations()
    assert (decode_tensor(message, violations) is None) == bool(violations)
