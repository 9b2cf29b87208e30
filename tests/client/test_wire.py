"""Tensors, events and files between messages and Python values."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from safetensors.torch import save

import epochd
from epochd import events
from epochd._wire.labels import decode_labels
from epochd._wire.safetensors import read_safetensors
from epochd._wire.tensors import as_array, byte_chunks, decode_tensor, encode_tensor
from epochd.events import short_number
from epochd.v1 import tensor_pb2

DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "float16", "float32", "float64"]
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)


@settings(max_examples=100, deadline=None)
@given(ARRAYS, st.booleans())
def test_arrays_survive_the_way_there_and_back(array, transposed):
    array = array.T if transposed else array
    back = decode_tensor(tensor_pb2.Tensor.FromString(encode_tensor(array).SerializeToString()))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)
    assert back.flags.writeable


@settings(max_examples=100, deadline=None)
@given(ARRAYS, st.integers(1, 64), st.booleans())
def test_chunks_are_the_bytes_row_major(array, size, transposed):
    array = array.T if transposed else array
    chunks = list(byte_chunks(array, size))
    assert b"".join(chunks) == array.tobytes()
    assert all(len(chunk) <= max(size, array.itemsize) for chunk in chunks)


def test_bfloat16_is_read_as_float32():
    values = torch.tensor([1.0, -2.5, 3.140625, float("inf")], dtype=torch.bfloat16)
    message = tensor_pb2.Tensor(
        dtype=tensor_pb2.DATA_TYPE_BFLOAT16, shape=[4], data=values.view(torch.int16).numpy().tobytes()
    )
    decoded = decode_tensor(message)
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, values.float().numpy())


def test_plain_numbers_are_read():
    message = tensor_pb2.Tensor(shape=[2], numbers=tensor_pb2.Numbers(values=[1.5, 2.5]))
    np.testing.assert_array_equal(decode_tensor(message), np.array([1.5, 2.5]))


def test_data_that_does_not_fit_its_shape_is_data_loss():
    with pytest.raises(epochd.DataLoss, match="came with 1 elements"):
        decode_tensor(tensor_pb2.Tensor(dtype=9, shape=[2], data=b"1234"))


def test_text_is_no_tensor():
    with pytest.raises(TypeError, match="no tensor can hold"):
        encode_tensor(["a"])


def test_an_array_is_not_copied_to_be_read():
    array = np.ones(3)
    assert as_array(array) is array


def test_a_safetensors_file_of_every_type_is_read_as_torch_wrote_it():
    tensors = {
        "b.weight": torch.randn(3, 4),
        "a.bias": torch.randn(3, dtype=torch.float64),
        "half": torch.randn(2, 2).half(),
        "brain": torch.randn(5).bfloat16(),
        "n": torch.arange(3),
        "flag": torch.tensor([True, False]),
        "scalar": torch.tensor(1.5),
        "empty": torch.empty(0, 3),
    }
    read = read_safetensors(save(tensors))
    assert set(read) == set(tensors)
    for name, value in tensors.items():
        expected = value.float() if value.dtype == torch.bfloat16 else value
        np.testing.assert_array_equal(read[name], expected.numpy())


def test_the_order_of_a_file_is_the_one_its_metadata_gives():
    tensors = {"0.weight": torch.ones(2, 3), "0.bias": torch.ones(2), "other": torch.ones(1)}
    file = save(tensors, metadata={"parameters": '["0.weight", "0.bias"]'})
    assert list(read_safetensors(file)) == ["0.weight", "0.bias", "other"]
    assert set(read_safetensors(save(tensors))) == set(tensors)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_safetensors_file_is_data_loss_and_nothing_else(data):
    file = save({"w": torch.ones(2, 3)})
    kept = data.draw(st.integers(0, len(file) - 1))
    with pytest.raises(epochd.DataLoss):
        read_safetensors(file[:kept])


def test_labels_are_str_or_int64():
    texts = decode_labels(tensor_pb2.ClassLabels(strings=tensor_pb2.Strings(values=["no", "yes"])))
    numbers = decode_labels(tensor_pb2.ClassLabels(integers=tensor_pb2.IntegerLabels(values=[3, 5])))
    assert texts.tolist() == ["no", "yes"]
    assert numbers.dtype == np.int64
    assert decode_labels(tensor_pb2.ClassLabels()) is None


def log(**changes):
    values = {
        "sequence": 3,
        "time": datetime.now(UTC),
        "epoch": 100,
        "epochs": 2000,
        "loss": 0.25,
        "lr": 0.01,
    }
    return events.EpochLog(**(values | changes))


def test_a_log_prints_in_columns_that_line_up():
    assert str(log(epoch=0)) == "Epoch    0/1999  loss 0.250000  lr 0.01"
    assert str(log(epoch=1900, loss=7.7e-6)) == "Epoch 1900/1999  loss 7.7e-06  lr 0.01"
    assert str(log(loss=0.0)).endswith("loss 0.000000  lr 0.01")
    assert "  loss nan  " in str(log(loss=float("nan")))


def test_a_log_prints_small_parameters_only():
    parameters = {"linear.weight": np.ones((3, 3)), "linear.bias": np.float32([0.5])}
    assert str(log(parameters=parameters)).endswith("lr 0.01  linear.bias 0.500")


def test_large_numbers_are_short():
    shown = [short_number(value) for value in (0, 999, 1000, 150_000, 1.5e6, 2e9)]
    assert shown == ["0", "999", "1.0k", "150k", "1.5M", "2.0G"]


def test_states_know_whether_they_are_final():
    assert [state for state in epochd.State if state.ended] == ["SUCCEEDED", "FAILED", "CANCELLED"]
