"""Activations and derivatives through both clients."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import epochd
from epochd.v1 import activation_pb2, errors_pb2


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_arrays_keep_type_and_shape(call, dtype):
    y = call(lambda c: c.activation("sigmoid", np.ones((2, 3), dtype)))
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, np.full((2, 3), 2.0))


def test_numbers_give_numbers_and_lists_float64(call, steps):
    @steps
    def use(client):
        return (
            (yield client.activation("tanh", 3)),
            (yield client.activation("tanh", np.float32(1.5))),
            (yield client.activation("tanh", [1, 2])),
            (yield client.activation("tanh", np.array(1.0))),
        )

    number, scalar, array, zero = call(use)
    assert type(number) is float
    assert number == 6.0
    assert type(scalar) is np.float32
    assert array.dtype == np.float64
    assert isinstance(zero, np.ndarray)
    assert zero.shape == ()


def test_what_is_no_number_is_refused_here(call):
    with pytest.raises(epochd.InvalidArgument, match="must hold real numbers"):
        call(lambda c: c.activation("tanh", ["a"]))


def test_arguments_reach_the_server(call, request_of):
    call(lambda c: c.activation("leaky_relu", [1.0], op="derivative", strict=True, negative_slope=0.2))
    request = request_of("ActivationTransform")
    (step,) = request.chain
    assert step.function == activation_pb2.ACTIVATION_FUNCTION_LEAKY_RELU
    assert step.operation == activation_pb2.ACTIVATION_OPERATION_DERIVATIVE
    assert step.parameters == {"negative_slope": 0.2}
    assert not step.HasField("axis")
    assert request.strict


def test_the_axis_0_is_not_an_unset_axis(call, request_of):
    call(lambda c: c.activation("softmax", [[1.0]], axis=0))
    assert request_of("ActivationTransform").chain[0].HasField("axis")


def test_a_chain_is_applied_in_order(call, request_of):
    call(
        lambda c: c.activation(
            ["sigmoid", epochd.Activation("gelu", op="inverse", approximate="tanh")], [1.0]
        )
    )
    first, second = request_of("ActivationTransform").chain
    assert first.function == activation_pb2.ACTIVATION_FUNCTION_SIGMOID
    assert (second.operation, second.approximate) == (activation_pb2.ACTIVATION_OPERATION_INVERSE, "tanh")


def test_arguments_beside_a_chain_are_refused(call):
    with pytest.raises(epochd.InvalidArgument, match="to the steps"):
        call(lambda c: c.activation(["sigmoid"], [1.0], op="inverse"))


def test_an_unknown_function_is_refused_with_the_known_ones(call):
    with pytest.raises(epochd.InvalidArgument, match=r"celu.*is 'sigmod'"):
        call(lambda c: c.activation("sigmod", [1.0]))


def test_large_tensors_are_streamed_in_chunks(call, fake):
    x = np.arange(1_000_001, dtype=np.float64)
    y = call(lambda c: c.activation("relu", x))
    np.testing.assert_array_equal(y, 2 * x)
    assert fake.does.calls == ["ActivationTransformStream"]
    assert max(r for r in fake.does.requests if isinstance(r, int)) <= 1 << 20


def test_large_non_contiguous_tensors_are_streamed_row_major(call):
    x = np.arange(2_000_000, dtype=np.float32).reshape(1000, 2000).T
    np.testing.assert_array_equal(call(lambda c: c.activation("relu", x)), 2 * x)


def test_large_big_endian_tensors_are_streamed_little_endian(call):
    x = np.arange(1_000_000, dtype=">f4")
    np.testing.assert_array_equal(call(lambda c: c.activation("relu", x)), 2 * x)


def test_a_result_too_large_for_a_message_is_streamed(call, fake, detail):
    import grpc

    info = errors_pb2.ErrorInfo(reason="MESSAGE_TOO_LARGE")
    fake.does.fail(
        "ActivationTransform", grpc.StatusCode.RESOURCE_EXHAUSTED, details=[detail("ErrorInfo", info)]
    )
    np.testing.assert_array_equal(
        call(lambda c: c.activation("softmax", [1.0, 2.0], op="derivative")), [2.0, 4.0]
    )
    assert fake.does.calls == ["ActivationTransform", "ActivationTransformStream"]


def test_a_stream_that_breaks_begins_again(call, fake):
    import grpc

    fake.does.fail("ActivationTransformStream", grpc.StatusCode.UNAVAILABLE)
    assert call(lambda c: c.activation("relu", np.ones(1_000_000))).sum() == 2_000_000


@pytest.mark.parametrize("size", [0, 1])
def test_a_response_of_the_wrong_length_is_data_loss(call, fake, size):
    def stream(request_iterator, context):
        header = activation_pb2.ActivationStreamResult(dtype=10, shape=[1])
        yield activation_pb2.ActivationTransformStreamResponse(header=header)
        yield activation_pb2.ActivationTransformStreamResponse(data=b"12345678" * 2 * size + b"1234")

    fake.does.ActivationTransformStream = stream
    fake.restart()
    with pytest.raises(epochd.DataLoss):
        call(lambda c: c.activation("relu", np.ones(1_000_000)))


def test_empty_tensors_pass(call):
    assert call(lambda c: c.activation("relu", np.empty((0, 3), np.float32))).shape == (0, 3)


def test_a_64_mb_tensor_takes_little_more_memory_than_its_result(fake):
    x = np.ones(8_000_000)
    with epochd.connect(fake.address) as client:
        client.activation("relu", x[:1_000_000])
        tracemalloc.start()
        try:
            y = client.activation("relu", x)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert y.nbytes == 64_000_000
    # NumPy's memory is traced, too. The fake server lives in this process and has its chunks in the count.
    assert peak < 1.5 * y.nbytes


def test_derivatives_have_value_gradients_intermediates_and_history(call, request_of):
    result = call(lambda c: c.differentiate("2*w**2 + 5", w=2.0, repeat=2, accumulate=True))
    assert (result.value, result.gradients) == (13.0, {"w": 8.0})
    assert type(result.value) is float
    assert result.history == [{"w": 8.0}, {"w": 8.0}]
    np.testing.assert_array_equal(result.intermediates["y"], [4.0, 5.0])
    assert str(result) == "13.0 (d/dw = 8.0)"
    request = request_of("Differentiate")
    assert (request.expression, request.repeat, request.accumulate) == ("2*w**2 + 5", 2, True)
    assert request.variables[0].tensor.dtype == 10


def test_variables_with_any_name_are_given_as_a_mapping(call, request_of):
    call(lambda c: c.differentiate("repeat * x", {"repeat": 1}, x=np.float32([1, 2]), gradients_of=["x"]))
    request = request_of("Differentiate")
    assert [(v.name, v.tensor.dtype) for v in request.variables] == [("repeat", 10), ("x", 9)]
    assert list(request.gradients_of) == ["x"]
